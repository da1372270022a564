"""The chaos probe for one's own training: copies, tangent prediction and the check that makes them worth reading."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from separatrix.engines.intervals import mean_interval
from separatrix.engines.parallel_runs import BatchStep, places
from separatrix.probes.chaos.copies import Parameters, separate
from separatrix.probes.chaos.perturbation import perturbed, random_direction
from separatrix.probes.chaos.tangent import tangent_growth
from separatrix.probes.operators import ProbeError


class NotDeterministicError(ProbeError):
    """An unperturbed copy left its run, so that nothing can be concluded from perturbed ones."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"an unperturbed copy has other parameters than its run at step {step}: the training step is not "
            "deterministic (nondeterministic kernels, data-loader workers, dropout keys or random numbers of its own?)"
        )


class BlownUpError(ProbeError):
    """The run itself stopped being finite, so that there is nothing to compare its copies to."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the run itself is not finite at step {step}: give the batches before that")


@dataclass(frozen=True, eq=False)
class Chaos:
    """What became of small perturbations; not a number for copies that blew up.

    Attributes
    ----------
    steps
        ``(t,)``: steps after the perturbation.
    amplification
        ``(K, t)``: distance over initial distance, for K random directions.
    growth
        ``(K, t)``: logarithm of the same for a vanishing perturbation, from the tangent map; None if it was not asked
        for.
    relative_distance
        ``(K, t)``: distance over the norm of the parameters; near 1 it has saturated.
    dissimilarity
        ``(K, t)``: ``1 - cos`` between the parameters.
    """

    steps: Int[np.ndarray, " t"]
    amplification: Float[np.ndarray, "K t"]
    growth: Float[np.ndarray, "K t"] | None
    relative_distance: Float[np.ndarray, "K t"]
    dissimilarity: Float[np.ndarray, "K t"]

    @property
    def predicted(self) -> Float[np.ndarray, "K t"]:
        """``(K, t)``: amplification of a vanishing perturbation; raises ProbeError if it was not asked for."""
        return np.exp(self._growth())

    @property
    def exponent(self) -> tuple[float, tuple[float, float]]:
        """Growth rate ``log(A) / steps`` at the last step: mean over the directions, and Student's 95 % interval."""
        with np.errstate(divide="ignore"):
            return self._rate(np.log(self.amplification[:, -1]))

    @property
    def predicted_exponent(self) -> tuple[float, tuple[float, float]]:
        """The same for vanishing perturbations, the finite-time Lyapunov exponent; may raise as ``predicted``."""
        return self._rate(self._growth()[:, -1])

    def _growth(self) -> Float[np.ndarray, "K t"]:
        if self.growth is None:
            raise ProbeError("the growth of vanishing perturbations was not asked for: give tangent=True, or a loss")
        return self.growth

    def _rate(self, growth: Float[np.ndarray, " K"]) -> tuple[float, tuple[float, float]]:
        with np.errstate(invalid="ignore"):  # perturbations that vanished or blew up have no rate
            return mean_interval(growth / self.steps[-1])


def record_steps(total: int, records: int) -> Int[np.ndarray, " t"]:
    """Equally spaced steps up to the last; all of them if there are fewer than records."""
    return np.linspace(0, total, min(records, total) + 1).astype(int)[1:]


def copies_held(directions: int) -> int:
    """Copies of the parameters that :func:`measure_chaos` holds at a time, momentum and tangents included."""
    return places() * (2 + 2 * directions)


def measure_chaos(
    step: BatchStep, state: tuple[Parameters, Any], batches: Any, *, sigma: float = 1e-6, directions: int = 3,
    records: int = 10, tangent: bool = True, seed: int = 0, arguments: tuple = (),
) -> Chaos:  # fmt: skip
    """Perturb one run now, train it and its copies on the same batches, and tell how far apart they get.

    Parameters
    ----------
    step
        ``step(state, batch, *arguments) -> state``, a function that JAX can trace; the state is a pair of parameters
        and everything else (optimiser state, or an empty tuple).
    state
        The run now. It is not changed.
    batches
        Pytree of arrays ``(T, ...)``: the batches to come.
    sigma
        Norm of the perturbation over that of the parameters.
    directions
        Random directions K, at least 2 for an error.
    records
        Number of equally spaced steps at which to compare.
    tangent
        Whether to compute the prediction of the tangent map, at two to three times the cost of a step for each.
    arguments
        Passed on to the step; large data should be here and not in a closure.

    Raises
    ------
    NotDeterministicError
        If an unperturbed copy does not keep the very bits of the run.
    BlownUpError
        If the run itself stops being finite.
    ProbeError
        If ``sigma`` is too small for the floating-point type (the sentence says the smallest usable), or there are no
        batches or fewer than two directions.
    """
    total = len(jax.tree.leaves(batches)[0])
    if directions < 2 or total < 1 or records < 1:
        raise ProbeError(
            f"there must be two or more directions, a batch and a record, got {directions}, {total}, {records}"
        )
    grid = record_steps(total, records)
    steps = grid.tolist()
    start = jax.tree.map(lambda leaf: np.asarray(leaf)[None], state)
    ways = [random_direction(np.random.default_rng([seed, k]), state[0]) for k in range(directions)]
    piece = lambda begin, end: jax.tree.map(lambda leaf: np.asarray(leaf)[None, begin:end], batches)  # noqa: E731
    stacked = lambda parts: jax.tree.map(lambda *leaves: np.stack(leaves)[None], *parts)  # noqa: E731

    def spawn(_: int, parameters: Parameters) -> Parameters:
        one = jax.tree.map(lambda leaf: leaf[0], parameters)
        return stacked([one, *(perturbed(one, way, sigma) for way in ways)])

    result = separate(step, start, piece, [0], steps, spawn, arguments)
    if np.any(~np.isfinite(result.norm)):
        raise BlownUpError(int(grid[np.flatnonzero(~np.isfinite(result.norm[0]))[0]]))
    unperturbed = result.distance[0, 0, 0]
    if np.any(unperturbed != 0):
        raise NotDeterministicError(int(grid[np.flatnonzero(unperturbed != 0)[0]]))
    growth = None
    if tangent:
        growth = tangent_growth(step, start, piece, [0], steps, lambda *_: stacked(ways), arguments)[0, :, 0]
    return Chaos(
        grid, result.amplification[0, 1:, 0], growth, result.distance[0, 1:, 0] / result.norm[0],
        result.dissimilarity[0, 1:, 0],
    )  # fmt: skip
