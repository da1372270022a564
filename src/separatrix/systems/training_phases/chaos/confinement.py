"""Is the kernel confined once chaos has ended? Growing windows, and the distance from the first kernel of a window."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.probes.cone import confinement, radius_growth, random_walk
from separatrix.systems.training_phases.chaos.kernel_cone import NARROW, NO_KERNEL
from separatrix.systems.training_phases.chaos.settings import Settings
from separatrix.systems.training_phases.chaos.transition import kept, transition_steps

#: Power of the duration in the squared radius, half-way between confinement (0) and a random walk (1).
SLOW = 0.5
#: Kernels that the shortest window holds; a path needs one more.
FEWEST = 4


@dataclass(frozen=True, eq=False)
class Path:
    """A run's kernels from the end of its chaos on.

    Attributes
    ----------
    elapsed
        ``(t,)``: steps since the end of chaos, from 0.
    distance
        ``(t, t)``: kernel distances.
    """

    elapsed: Float[np.ndarray, " t"]
    distance: Float[np.ndarray, "t t"]

    def walked(self, evenly: bool = False) -> Float[np.ndarray, "t t"]:
        """Distances of a random walk that turns by the same angles, or by their root mean square at every step."""
        steps = np.diagonal(self.distance, 1)
        if evenly:
            angle = np.sqrt(np.mean((2 * np.arcsin(np.sqrt(steps / 2))) ** 2))
            steps = np.full(steps.size, 1 - np.cos(angle))
        return random_walk(steps)


def late_paths(settings: Settings, data: xr.Dataset) -> list[Path]:
    """Paths of the runs whose chaos ends early enough for windows to grow; none where there are no kernels."""
    matrices, time = data["kernel_distance"].values, data["step"].values.astype(np.float64)
    if not np.isfinite(matrices).all():
        return []
    cuts = np.searchsorted(time, transition_steps(settings, data))
    return [
        Path(time[cut:] - time[cut], matrix[cut:, cut:])
        for matrix, cut in zip(matrices, cuts, strict=True) if time.size - cut > FEWEST
    ]  # fmt: skip


def confined(settings: Settings, results: Results, walk: bool = False) -> list[Measurement]:
    """Growth of the squared radius with the window, and share of steady drift in the distance from the end of chaos.

    With ``walk`` both are taken of a random walk with steps of each path's root mean square angle.
    """
    source = results["copies"]
    paths, excluded = late_paths(settings, kept(source)), diverged_fraction(source)
    conditions = (("power of the window in the squared radius", (-np.inf, SLOW)),
                  ("share of drift in the distance from the end of chaos", (-1.0, NARROW)))  # fmt: skip
    if len(paths) < 2:
        note = f"{NO_KERNEL}, or chaos to the end"
        return [Measurement.missing(label, accepted, note, excluded) for label, accepted in conditions]
    powers, shares = [], []
    for path in paths:
        distance = path.walked(evenly=True) if walk else path.distance
        powers.append(radius_growth(distance, FEWEST))
        shares.append(confinement(path.elapsed[1:], distance[0, 1:]).drift_share)
    found = [mean_interval(np.array(values), confidence=bonferroni(2)) for values in (powers, shares)]
    return [
        Measurement(label, estimate, interval, accepted, excluded, members=len(paths))
        for (label, accepted), (estimate, interval) in zip(conditions, found, strict=True)
    ]
