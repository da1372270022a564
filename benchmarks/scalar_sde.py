"""Paths of one mode's stochastic differential equation: ours, diffrax, PyTorch.

``da = a^{L-1} [(s - a^L) dt + sqrt(kappa Qm) dB]`` with ``Qm = 2 (s - a^L)^2 + label_noise^2``, L = 2, float32, 100,000
paths of 1000 steps, final values only. The race at equal algorithm is Euler-Maruyama with Gaussian increments on every
side. Further rows of ours: Milstein (what the studies use) and Euler-Maruyama with two-point increments, which has the
same weak order and suffices for laws. diffrax runs with fixed steps, ``UnsafeBrownianPath`` (its fastest), forward-only
adjoint, compiled; both with one solve mapped over paths and with all paths as one state, on one device and spread over
all. PyTorch updates fixed buffers in place, with its own threads or with paths split over Python threads, all at once
or in pieces that fit the cache.

Before the race the mean and standard deviation of the final values must agree within their statistical error.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import torch
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import evolve
from separatrix.engines.sde import EulerMaruyama
from separatrix.systems.deep_linear.scalar_mode import root_drift, root_noise
from separatrix.systems.deep_linear.scalar_simulation import scalar_sde

EULER, MILSTEIN, TWO_POINT = (
    "separatrix, Euler-Maruyama",
    "separatrix, Milstein",
    "separatrix, two-point increments",
)
MAPPED, STACKED, TORCH = "diffrax, solve mapped over paths", "diffrax, all paths one state", "PyTorch loop"
DEPTH = 2
SINGULAR_VALUE, LABEL_NOISE, NOISE_SCALE = 1.0, 0.5, 0.02
STEP_SIZE = 2.0**-8  # 1000 steps add up exactly in float32
START = 0.3


class Ours:
    """The ensemble engine with one of the schemes."""

    def __init__(self, scheme: EulerMaruyama, paths: int) -> None:
        self.scheme = scheme
        self.state = jnp.full((1, paths), START, jnp.float32)
        self.keys = member_keys(1, "benchmark", 0, paths)
        self.arguments = {
            "singular_value": SINGULAR_VALUE,
            "label_noise": LABEL_NOISE,
            "noise_scale": NOISE_SCALE,
            "step_size": STEP_SIZE,
        }

    def run(self, steps: int) -> np.ndarray:
        """Final values."""
        records, _ = evolve(self.scheme, _state, self.state, self.keys, self.arguments, np.asarray([steps]))
        return records[0, 0]


def _state(state: jax.Array, arguments: dict) -> jax.Array:
    del arguments
    return state


class Diffrax:
    """diffrax, paths as one state or mapped, optionally spread over the devices."""

    def __init__(self, paths: int, steps: int, mapped: bool, spread: bool) -> None:
        devices = np.asarray(jax.devices() if spread else jax.devices()[:1])
        paths_each = paths // devices.size
        drift = lambda t, a, args: root_drift(a, SINGULAR_VALUE, DEPTH)  # noqa: E731, ARG005
        noise = lambda t, a, args: root_noise(a, SINGULAR_VALUE, DEPTH, NOISE_SCALE, LABEL_NOISE)  # noqa: E731, ARG005
        diagonal = lambda t, a, args: lineax.DiagonalLinearOperator(noise(t, a, args))  # noqa: E731

        def solve(key: jax.Array, start: jax.Array) -> jax.Array:
            motion = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(start.shape, jnp.float32), key)
            terms = diffrax.MultiTerm(
                diffrax.ODETerm(drift), diffrax.ControlTerm(diagonal if start.ndim else noise, motion)
            )
            time = np.float32(STEP_SIZE)
            return diffrax.diffeqsolve(
                terms,
                diffrax.Euler(),
                t0=jnp.zeros((), jnp.float32),
                t1=jnp.asarray(time * steps),
                dt0=jnp.asarray(time),
                y0=start,
                saveat=diffrax.SaveAt(t1=True),
                stepsize_controller=diffrax.ConstantStepSize(),
                adjoint=diffrax.ForwardMode(),
                max_steps=None,
                throw=False,
            ).ys[-1]

        def share(keys: jax.Array, start: jax.Array) -> jax.Array:
            return jax.vmap(solve)(keys, start) if mapped else solve(keys[0], start)

        self.keys = jax.random.split(jax.random.key(1), paths if mapped else devices.size)
        self.start = jnp.full(paths_each * devices.size, START, jnp.float32)
        split = P("paths")
        mesh = Mesh(devices, ("paths",))
        self.program = jax.jit(
            jax.shard_map(share, mesh=mesh, in_specs=(split, split), out_specs=split, check_vma=False)
        )

    def run(self) -> np.ndarray:
        """Final values."""
        return np.asarray(self.program(self.keys, self.start))


class Torch:
    """All paths in fixed buffers, updated in place; ``piece`` paths at a time, on ``threads`` Python threads."""

    def __init__(self, paths: int, piece: int, threads: int) -> None:
        self.threads = threads
        sizes = [len(part) for part in np.array_split(np.arange(paths), max(threads, round(paths / piece)))]
        self.parts = [(size, torch.Generator().manual_seed(i)) for i, size in enumerate(sizes)]
        self.pool = ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) if threads > 1 else None

    def run(self, steps: int) -> np.ndarray:
        """Final values."""
        each = self.pool.map if self.pool else map
        return torch.cat(list(each(lambda part: self._advance(*part, steps), self.parts))).numpy()

    @staticmethod
    @torch.no_grad()
    def _advance(paths: int, generator: torch.Generator, steps: int) -> torch.Tensor:
        a = torch.full((paths,), START)
        gap, kick, noise = torch.empty_like(a), torch.empty_like(a), torch.empty_like(a)
        target = torch.full_like(a, SINGULAR_VALUE)
        # sqrt(kappa dt Qm) = sqrt(2 kappa dt gap^2 + kappa dt label_noise^2)
        offset = torch.full_like(a, NOISE_SCALE * STEP_SIZE * LABEL_NOISE**2)
        for _ in range(steps):
            noise.normal_(generator=generator)
            torch.addcmul(target, a, a, value=-1, out=gap)
            torch.addcmul(offset, gap, gap, value=2 * NOISE_SCALE * STEP_SIZE, out=kick)
            kick.sqrt_().mul_(noise).add_(gap, alpha=STEP_SIZE)
            a.addcmul_(a, kick)
        return a


def races(options: Options) -> list[Race]:
    """One race."""
    paths, steps = (2000, 20) if options.quick else (100_000, 1000)
    euler, milstein = EulerMaruyama(*_coefficients()), scalar_sde(DEPTH)
    two_point = EulerMaruyama(*_coefficients(), increments="two-point")
    ours = {
        name: Ours(scheme, paths) for name, scheme in ((EULER, euler), (MILSTEIN, milstein), (TWO_POINT, two_point))
    }
    devices = len(jax.devices())
    final, candidates = {}, []

    def add(name: str, run, group: str = "", threads: int = 1) -> None:
        def keep() -> None:
            final[name] = run()

        candidates.append(Candidate(name, keep, paths * steps, group, partial(torch.set_num_threads, threads)))

    for name, one in ours.items():
        add(name, partial(one.run, steps))
    for spread in (False, True) if devices > 1 else (False,):
        words = f"{devices} devices" if spread else "1 device"
        for group, mapped in ((MAPPED, True), (STACKED, False)):
            add(f"{group}, {words}", Diffrax(paths, steps, mapped, spread).run, group)
    for threads in harness.thread_counts():
        plural = "s" if threads > 1 else ""
        add(f"{TORCH}, {threads} thread{plural}", partial(Torch(paths, paths, 1).run, steps), TORCH, threads)
        split = Torch(paths, 10_000, threads)
        add(f"{TORCH}, pieces of 10,000, {threads} Python thread{plural}", partial(split.run, steps), TORCH)

    def check() -> dict:
        """Means and standard deviations of the final values."""
        moments = {name: _moments(values) for name, values in final.items()}
        reference = moments[EULER]
        scores = {}
        for name, other in moments.items():
            if final[name].dtype != np.float32:
                raise harness.DisagreementError(f"{name} computes in {final[name].dtype}, the race is in float32")
            scores[name] = [
                harness.agree(
                    f"{what} of {name}", reference[i], other[i], float(np.hypot(reference[i + 2], other[i + 2]))
                )
                for i, what in enumerate(("mean", "standard deviation"))
            ]
        return {
            "final mean and standard deviation, ours": list(reference[:2]),
            "largest number of standard errors apart": float(np.max([list(s) for s in scores.values()])),
            "final mean, standard deviation and their errors": {name: list(m) for name, m in moments.items()},
        }

    return [
        Race(
            f"Scalar SDE, depth {DEPTH}, {paths} paths of {steps} steps",
            "path-step",
            candidates,
            [
                Comparison(EULER, STACKED, 8.0, note="(diffrax at its fastest)"),
                Comparison(EULER, MAPPED, 8.0, note="(diffrax as documented)"),
                Comparison(EULER, TORCH, 1.5),
                Comparison(TWO_POINT, STACKED, 8.0, note="(equal weak order)"),
                Comparison(TWO_POINT, TORCH, note="(equal weak order)"),
                Comparison(MILSTEIN, STACKED),
                Comparison(MILSTEIN, TORCH),
            ],
            check,
        )
    ]


def _coefficients() -> tuple:
    scheme = scalar_sde(DEPTH)
    return scheme.drift, scheme.noise


def _moments(values: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, standard deviation, and their standard errors."""
    x = values.astype(np.float64)
    deviation = x.std(ddof=1)
    fourth = np.mean((x - x.mean()) ** 4)
    error = np.sqrt(max(fourth - deviation**4, 0.0) / x.size) / (2 * deviation)
    return float(x.mean()), float(deviation), float(deviation / x.size**0.5), float(error)


if __name__ == "__main__":
    harness.main("scalar_sde", __doc__, races)
