"""Are two networks in one basin? Loss barrier on the segment between them, disagreement of their predictions.

Source: Zhou, Yang, Sugiyama, Yan 2025 (arXiv 2505.13900); the barrier: Frankle, Dziugaite, Roy, Carbin 2020.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from separatrix.probes.operators import ProbeError

Parameters = Any

#: Share of an interval that golden-section search keeps.
_GOLDEN = (np.sqrt(5) - 1) / 2


@dataclass(frozen=True, eq=False)
class Barrier:
    """Loss along the segment between two networks.

    Attributes
    ----------
    height
        Largest excess of the loss over the straight line between its end values; never below 0.
    place
        Share of the way at which it is reached.
    points, losses
        ``(g,)``: the grid and the losses on it.
    uncertainty
        Width of the interval within which the maximum was located, as a share of the way.
    """

    height: float
    place: float
    points: Float[np.ndarray, " g"]
    losses: Float[np.ndarray, " g"]
    uncertainty: float


def interpolated(first: Parameters, second: Parameters, share: Any) -> Parameters:
    """``(1 - share) first + share second``, of arrays of any framework; integers are those of the first."""
    floating = lambda a: "float" in str(getattr(a, "dtype", "float"))  # noqa: E731
    return jax.tree.map(lambda a, b: (1 - share) * a + share * b if floating(a) else a, first, second)


def loss_barrier(
    loss: Callable[[Parameters], Any], first: Parameters, second: Parameters, points: int = 15, tolerance: float = 1e-3
) -> Barrier:
    """Barrier between two networks: a grid, then golden-section search around its maximum.

    Parameters
    ----------
    loss
        Loss of parameters, usually on test data. With batch normalisation it must take the statistics of the units at
        these very parameters; with those of another network a barrier is an artefact.
    first, second
        Parameters at the two ends: pytrees of arrays of any framework, a PyTorch state for example.
    points
        Points of the grid, ends included, at least 3.
    tolerance
        Share of the way to which the maximum is located.

    Raises
    ------
    ProbeError
        If there are fewer than 3 points, or the loss is not finite at an end: then there is no barrier.
    """
    if points < 3 or not 0 < tolerance < 1:
        raise ProbeError(f"points must be at least 3 and tolerance lie in (0, 1), got {points} and {tolerance}")
    at = lambda share: float(loss(interpolated(first, second, share)))  # noqa: E731
    grid = np.linspace(0, 1, points)
    losses = np.array([at(share) for share in grid])
    if not np.isfinite(losses[[0, -1]]).all():
        raise ProbeError(f"the loss at the ends must be finite, got {losses[0]} and {losses[-1]}")
    line = lambda share: (1 - share) * losses[0] + share * losses[-1]  # noqa: E731
    excess = np.where(np.isfinite(losses), losses - line(grid), np.inf)
    best = int(np.argmax(excess))
    if np.isinf(excess[best]):
        return Barrier(np.inf, float(grid[best]), grid, losses, 1 / (points - 1))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, points - 1)]
    height, place = float(excess[best]), float(grid[best])
    while high - low > tolerance:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        values = [at(share) - line(share) for share in (left, right)]
        for share, value in zip((left, right), values, strict=True):
            if value > height:
                height, place = value, float(share)
        low, high = (low, right) if values[0] >= values[1] else (left, high)
    return Barrier(max(height, 0.0), place, grid, losses, float(high - low))


def disagreement(first: Float[Array, "*n m c"], second: Float[Array, "*n m c"]) -> Float[Array, "*n"]:
    """Share of m inputs on which the largest of c outputs differ."""
    return jnp.mean(jnp.argmax(first, axis=-1) != jnp.argmax(second, axis=-1), axis=-1)


def direction_dissimilarity(trajectory: Float[np.ndarray, "t p"]) -> Float[np.ndarray, "t t"]:
    """``1 - cos`` between the parameters of one run at all pairs of times: where its path turns, blocks form."""
    unit = np.asarray(trajectory, np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return np.array([np.sum((unit - one) ** 2, axis=1) / 2 for one in unit])
