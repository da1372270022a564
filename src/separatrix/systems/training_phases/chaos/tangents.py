"""The growth of a small perturbation against that of the tangent map, which knows nothing of kinks."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.engines.intervals import mean_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.systems.training_phases.chaos.settings import Settings
from separatrix.systems.training_phases.chaos.transition import kept

#: Relative distance up to which a perturbation is taken as small.
SMALL = 1e-3
#: Accepted root mean square of log(A / tangent prediction).
CLOSE = 0.1


def log_ratios(data: xr.Dataset) -> Float[np.ndarray, "n s t"]:
    """``log(A / prediction)`` along the first direction, NaN where the perturbation is not small any more."""
    distance = data["relative_distance"].values[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(data["amplification"].values[:, 0]) - data["log_tangent"].values
        # once it has been large it does not come back to the linear regime
        largest = np.fmax.accumulate(np.nan_to_num(distance, nan=-np.inf), axis=-1)
        return np.where(np.isfinite(ratio) & (largest < SMALL), ratio, np.nan)


def tangent_agreement(settings: Settings, results: Results, experiment: str = "smooth") -> list[Measurement]:  # noqa: ARG001
    """Root mean square over spawn and record steps of the logarithm of measured over predicted amplification."""
    label, accepted = f"rms of log(A / tangent) while the distance is below {SMALL:g}", (0.0, CLOSE)
    data = results[experiment]
    ratio = log_ratios(kept(data))
    seen = np.isfinite(ratio).sum(axis=(1, 2))
    excluded = diverged_fraction(data)
    if (seen > 0).sum() < 2:
        return [Measurement.missing(label, accepted, "no perturbation stayed small", excluded)]
    errors = np.sqrt(np.nansum(ratio**2, axis=(1, 2))[seen > 0] / seen[seen > 0])
    # errors of networks with kinks spread over decades, so that their logarithms have a mean
    middle, ends = mean_interval(np.log(np.maximum(errors, 1e-16)))
    estimate, interval = np.exp(middle), np.exp(ends)
    note = f"largest |log| {np.nanmax(np.abs(ratio)):.3g} of {seen.sum()} comparisons"
    return [
        Measurement(label, estimate, (interval[0], interval[1]), accepted, excluded, members=errors.size,
                    note=note)
    ]  # fmt: skip
