"""How the tangent kernel turns from checkpoint to checkpoint, from what the probe :mod:`.kernel` has kept of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from separatrix.lab.probe.figures import heat_map
from separatrix.lab.probe.kind import Column, Value
from separatrix.lab.quantities import Quantity
from separatrix.probes.cone import apex_angle, cone
from separatrix.probes.tangent_kernel.distance import distance_matrix, kernel_velocity
from separatrix.probes.tangent_kernel.phases import transition
from separatrix.probes.tangent_kernel.products import estimated_distance

if TYPE_CHECKING:
    import matplotlib.figure

    from separatrix.lab.probe.settings import ProbeSettings

#: Relative standard error of an estimate that counts as converged.
SETTLED = 0.1
#: Variables of which one is recorded: kernels, or their products with shared vectors.
EXACT, PRODUCTS = "kernel", "kernel_products"

MOTION = (
    Column("kernel_distance_first", "distance from the first kernel"),
    Column("kernel_distance_previous", "distance from the previous kernel"),
    Column("kernel_angular_speed", "angular speed of the kernel", unit="degrees/step"),
)


@dataclass(frozen=True, eq=False)
class Kernels:
    """What is kept of the kernels at n checkpoints.

    Attributes
    ----------
    alive
        ``(T,)``: which of all checkpoints these are; the others diverged.
    steps
        ``(n,)``.
    kept
        Kernels ``(n, r, r)``, or products ``(n, m, r)``.
    exact
        Whether they are kernels.
    """

    alive: Bool[np.ndarray, " T"]
    steps: Int[np.ndarray, " n"]
    kept: Float[np.ndarray, "n m r"]
    exact: bool

    @cached_property
    def distance(self) -> Float[np.ndarray, "n n"]:
        """Between all pairs.

        Raises
        ------
        ValueError
            If there are fewer than two.
        """
        return distance_matrix(list(self.kept))

    def error(self, first: int, second: int) -> float:
        """Standard error of a distance over the vectors."""
        if self.exact or first == second:
            return 0.0
        return estimated_distance(self.kept[first], self.kept[second]).standard_error


def kernels(data: xr.Dataset) -> Kernels:
    """What a run has kept; nothing if all checkpoints diverged."""
    alive = data["diverged_at_step"].values < 0
    names = [name for name in (EXACT, PRODUCTS) if name in data]
    kept = data[names[0]].values[alive] if names else np.empty((0, 0, 0))
    return Kernels(alive, data["step"].values[alive], kept, names == [EXACT])


def motion(s: ProbeSettings, data: xr.Dataset) -> Mapping[str, Value]:  # noqa: ARG001
    """Values of the columns :data:`MOTION` at all checkpoints."""
    found = kernels(data)
    n = len(found.steps)
    value, error = np.full((3, n), np.nan), np.full((3, n), np.nan)
    value[0, :1] = error[0, :1] = 0.0
    if n > 1:
        moved = kernel_velocity(found.steps, found.distance)
        value[0], error[0] = found.distance[0], [found.error(0, later) for later in range(n)]
        value[1, 1:], error[1, 1:] = moved.distance, [found.error(later - 1, later) for later in range(1, n)]
        value[2, 1:] = np.degrees(moved.angular_speed)
        slope = np.sqrt(moved.distance * (2 - moved.distance))  # dS / d(angle)
        turned = np.divide(error[1, 1:], slope, out=np.zeros(n - 1), where=slope > 0)
        error[2, 1:] = np.degrees(turned) / np.diff(found.steps)
    settled = error <= SETTLED * np.abs(value)
    return {
        column.name: _everywhere(found.alive, *row) for column, *row in zip(MOTION, value, error, settled, strict=True)
    }


def _everywhere(alive: Bool[np.ndarray, " T"], value: np.ndarray, error: np.ndarray, settled: np.ndarray) -> Value:
    whole = Value(np.full(alive.size, np.nan), np.full(alive.size, np.nan), np.zeros(alive.size, bool))
    for all_of_them, some in zip(whole, (value, error, settled), strict=True):
        all_of_them[alive] = some
    return whole


# -- numbers of the whole course --------------------------------------------------------------------------------------

_OfDistances = Callable[[Int[np.ndarray, " n"], Float[np.ndarray, "n n"]], float]


def _contrast(steps: Int[np.ndarray, " n"], distance: Float[np.ndarray, "n n"]) -> float:
    return transition(steps, distance).ratio


def _radius(steps: Int[np.ndarray, " n"], distance: Float[np.ndarray, "n n"]) -> float:
    cut = transition(steps, distance).index
    return float(np.degrees(cone(distance[cut:, cut:]).radius))


def _apex(steps: Int[np.ndarray, " n"], distance: Float[np.ndarray, "n n"]) -> float:
    cut = transition(steps, distance).index
    return float(np.degrees(apex_angle(distance[0, cut:], distance[cut:, cut:])))


def _of_vectors(measure: _OfDistances) -> Callable[[ProbeSettings, Mapping[str, xr.Dataset]], xr.Dataset]:
    """A function of the distances, within two jackknife errors over the vectors unless kernels are exact."""

    def measured(s: ProbeSettings, results: Mapping[str, xr.Dataset]) -> xr.Dataset:  # noqa: ARG001
        found = kernels(results["checkpoints"])
        try:
            value = measure(found.steps, found.distance)
            if found.exact:
                return xr.Dataset({"estimate": value})
            vectors = found.kept.shape[1]
            without = [
                measure(found.steps, distance_matrix(list(np.delete(found.kept, vector, axis=1))))
                for vector in range(vectors)
            ]
        except ValueError:  # too few checkpoints, or kernels that do not move
            return xr.Dataset({"estimate": np.nan})
        error = np.sqrt((vectors - 1) * np.var(without))
        return xr.Dataset({"estimate": value, "low": value - 2 * error, "high": value + 2 * error})

    return measured


def _transition(s: ProbeSettings, results: Mapping[str, xr.Dataset]) -> xr.Dataset:  # noqa: ARG001
    """Step of the cut between two phases; the interval reaches back to the checkpoint before it."""
    found = kernels(results["checkpoints"])
    try:
        cut = transition(found.steps, found.distance)
    except ValueError:  # too few checkpoints
        return xr.Dataset({"estimate": np.nan})
    return xr.Dataset({"estimate": cut.time, "low": float(found.steps[cut.index - 1]), "high": cut.time})


def quantities(s: ProbeSettings) -> Sequence[Quantity]:  # noqa: ARG001
    """End of the first phase, how clear it is, and the cone of the kernels after it."""
    needs = ("checkpoints",)
    return [
        Quantity("kernel_transition", "end of the first phase of the kernel", _transition, "steps", needs),
        Quantity(
            "kernel_contrast",
            "distance across that end over distance after it; 3 to 7 if the kernel just rotates",
            _of_vectors(_contrast),
            needs=needs,
        ),
        Quantity("kernel_cone_radius", "radius of the cone of later kernels", _of_vectors(_radius), "degrees", needs),
        Quantity("kernel_apex_angle", "angle from the first kernel to its axis", _of_vectors(_apex), "degrees", needs),
    ]


def draw_distances(s: ProbeSettings, results: Mapping[str, xr.Dataset]) -> matplotlib.figure.Figure:
    """Distances of all pairs, with the cut between the phases."""
    found = kernels(results["checkpoints"])
    cut = float(_transition(s, results)["estimate"])
    distance = found.distance if len(found.steps) > 1 else np.zeros((1, 1))
    at = int(np.searchsorted(found.steps, cut)) if np.isfinite(cut) else None
    return heat_map(found.steps, distance, "kernel distance", at)
