"""Gradient flow of a deep linear network: exact solutions against a numerical solver.

The work of one call is the map W of a whole network at one time, or at ten, until the smallest mode is learned to 99
%. d inputs, d outputs and d hidden units: depth 4 from a decoupled start in random frames
(``mode_solutions.mode_strength`` for all d modes, put together in the singular frame), and depth 2 from a
zero-balanced start with singular vectors of its own (``zero_balanced_flow``). diffrax integrates all weights,
compiled, with its solvers of order 5 and 8 and adaptive steps, at a tolerance at which it agrees with the exact
solution to a relative 1e-8; it counts with the faster. Everything is in float64.

Before the race the maps at all times must agree within that error, relative to the largest entry.
"""

from collections.abc import Callable
from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.systems.deep_linear.learning_times import flow_time
from separatrix.systems.deep_linear.mode_solutions import mode_strength
from separatrix.systems.deep_linear.starts import decoupled_weights, random_frame, zero_balanced_weights
from separatrix.systems.deep_linear.teacher import Teacher
from separatrix.systems.deep_linear.zero_balanced_flow import zero_balanced_flow

OURS, DIFFRAX = "separatrix, exact", "diffrax"
LARGEST, SMALLEST = 2.0, 0.5  # singular values of the teacher
START = 0.05  # mode strengths at the start
ERROR = 1e-8
TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}
GOAL = 100.0


def flow(_t: jax.Array, weights: tuple, teacher: jax.Array) -> tuple:
    """Gradient flow of all layers on ``|M - W|^2 / 2``."""
    seen = [None, weights[0]]
    for w in weights[1:-1]:
        seen.append(w @ seen[-1])
    error = teacher - weights[-1] @ seen[-1]
    speed = []
    for layer in reversed(range(len(weights))):
        speed.append(error @ seen[layer].T if layer else error)
        error = weights[layer].T @ error
    return tuple(reversed(speed))


class Diffrax:
    """diffrax on all weights, with dense matrices."""

    def __init__(self, weights: list[np.ndarray], teacher: np.ndarray, times: np.ndarray, solver) -> None:
        self.arguments = tuple(jnp.asarray(w) for w in weights), jnp.asarray(teacher), jnp.asarray(times)

        def solve(weights: tuple, teacher: jax.Array, times: jax.Array) -> jax.Array:
            found = diffrax.diffeqsolve(
                diffrax.ODETerm(flow),
                solver,
                t0=0.0,
                t1=times[-1],
                dt0=None,
                y0=weights,
                args=teacher,
                # Steps end at the times asked for: interpolation inside a step would cost accuracy.
                stepsize_controller=diffrax.ClipStepSizeController(diffrax.PIDController(**TOLERANCE), step_ts=times),
                saveat=diffrax.SaveAt(ts=times),
                adjoint=diffrax.ForwardMode(),
                max_steps=100_000,
            ).ys
            product = found[0]
            for w in found[1:]:
                product = w @ product
            return product

        self.program = jax.jit(solve)

    def run(self) -> np.ndarray:
        """W at all times."""
        return np.asarray(self.program(*self.arguments))


def learning(depth: int, count: int) -> np.ndarray:
    """Times until the smallest mode is learned, ``(count,)``."""
    return float(flow_time(START, 0.99 * SMALLEST, SMALLEST, depth)) * np.arange(1, count + 1) / count


def decoupled(
    size: int, depth: int, count: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, Callable[[], np.ndarray]]:
    """Weights, teacher, times, and the exact solution from a decoupled start."""
    rng = np.random.default_rng(0)
    s = np.linspace(LARGEST, SMALLEST, size)
    teacher = Teacher(random_frame(rng, size, size), s, random_frame(rng, size, size))
    weights = decoupled_weights(rng, teacher, (size,) * (depth + 1), np.full(size, START))
    times = learning(depth, count)

    def exact() -> np.ndarray:
        strength = mode_strength(times[:, None], START, s, depth)
        return (teacher.left * strength[:, None]) @ teacher.right.T

    return weights, teacher.matrix, times, exact


def unaligned(size: int, count: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, Callable[[], np.ndarray]]:
    """The same for two layers from a zero-balanced start that is not aligned with the teacher."""
    rng = np.random.default_rng(1)
    s = np.linspace(LARGEST, SMALLEST, size)
    teacher = (random_frame(rng, size, size) * s) @ random_frame(rng, size, size).T
    weights = zero_balanced_weights(rng, (size,) * 3, np.sqrt(START) * rng.uniform(0.5, 1.5, size))
    times = learning(2, count)
    return weights, teacher, times, lambda: zero_balanced_flow(*weights, teacher, times).product


def race(title: str, case: tuple, goal: float | None = None) -> Race:
    """One race on one problem."""
    weights, teacher, times, exact = case
    final: dict[str, np.ndarray] = {}

    def keep(name: str, run: Callable[[], np.ndarray]) -> None:
        final[name] = run()

    solvers = {"order 5": diffrax.Tsit5(), "order 8": diffrax.Dopri8()}
    runs = {OURS: exact}
    runs |= {f"{DIFFRAX}, {name}": Diffrax(weights, teacher, times, solver).run for name, solver in solvers.items()}
    candidates = [
        Candidate(name, partial(keep, name, run), 1, DIFFRAX if name != OURS else "") for name, run in runs.items()
    ]

    def check() -> dict:
        if any(one.dtype != np.float64 for one in final.values()):
            raise harness.DisagreementError("a candidate does not compute in float64")
        return {
            f"largest relative difference, {name}": harness.close(name, final[OURS], other, ERROR)
            for name, other in final.items()
            if name != OURS
        }

    return Race(title, "call", candidates, [Comparison(OURS, DIFFRAX, goal)], check, {"tolerance": TOLERANCE})


def races(options: Options) -> list[Race]:
    """Three races; the goal is that of the whole network at one time."""
    size = 8 if options.quick else 64
    jax.config.update("jax_enable_x64", True)
    deep, flat = f"Gradient flow at depth 4, decoupled start, d = {size}", "Gradient flow at depth 2, unaligned start"
    return [
        race(f"{deep}, one time", decoupled(size, 4, 1), GOAL),
        race(f"{deep}, ten times", decoupled(size, 4, 10)),
        race(f"{flat}, d = {size}, one time", unaligned(size, 1)),
    ]


if __name__ == "__main__":
    harness.main("exact_solutions", __doc__, races)
