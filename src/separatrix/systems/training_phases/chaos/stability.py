"""Is chaos time spent beyond the edge of stability? The curvature along a run against the growth of perturbations."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.probes.stability import fluctuating_threshold, gradient_descent_threshold
from separatrix.systems.training_phases.chaos.settings import Settings
from separatrix.systems.training_phases.chaos.transition import DECADES, FORGOTTEN, kept


@dataclass(frozen=True)
class Edges:
    """Largest stable curvature of a mini-batch loss, weight decay taken off.

    Attributes
    ----------
    frozen
        Of a Hessian that does not change: ``2 (1 + mu) / eta - w``.
    fluctuating
        Of one that changes from batch to batch: ``2 (1 - mu) / eta - w``.
    """

    frozen: float
    fluctuating: float


def edges(settings: Settings) -> Edges:
    """Both edges at the settings of the optimiser."""
    rate, momentum, decay = settings.learning_rate, settings.momentum, settings.weight_decay
    return Edges(gradient_descent_threshold(rate, momentum) - decay, fluctuating_threshold(rate, momentum) - decay)


def settling_index(data: xr.Dataset, edge: float) -> Float[np.ndarray, " n"]:
    """First record from which on the mean mini-batch sharpness never exceeds the edge, or the number of records."""
    below = data["mini_batch_sharpness"].values.mean(axis=-1) <= edge
    return below.shape[1] - np.logical_and.accumulate(below[:, ::-1], axis=1).sum(axis=1)


def growth_around(data: xr.Dataset, settled: Float[np.ndarray, " n"], evenly: bool = False) -> Float[np.ndarray, "n 2"]:
    """Decades by which the tangent spawned at the start grows up to these records and from there on.

    With ``evenly`` the growth of each run is spread evenly over its time.
    """
    grown = data["log_tangent"].values[:, 0] / np.log(10)
    if evenly:
        grown = grown[:, -1:] * data["step"].values / data["step"].values[-1]
    last = grown.shape[1] - 1
    there = np.take_along_axis(grown, np.minimum(settled, last)[:, None], axis=1)[:, 0]
    return np.stack([there, grown[:, -1] - there], axis=1)


def growth_rates(data: xr.Dataset) -> Float[np.ndarray, "n t-1"]:
    """Growth rate of the tangent spawned at the start between successive records, per step."""
    return np.diff(data["log_tangent"].values[:, 0], axis=1) / np.diff(data["step"].values)


def growth_beyond(settings: Settings, results: Results, edge: float, evenly: bool = False) -> list[Measurement]:
    """Growth until the mini-batch sharpness stays below the edge, which must be large, and after it, which must not."""
    source = results["copies"]
    data, excluded = kept(source), diverged_fraction(source)
    settled = settling_index(data, edge)
    growth = growth_around(data, settled, evenly)
    steps = np.append(data["step"].values, settings.steps)[settled]
    measurements = []
    for label, values, accepted, none in (
        ("decades grown until mini-batches stay below the edge", growth[settled > 0, 0], (DECADES, np.inf),
         "fewer than two runs begin above the edge or rise above it"),
        ("decades grown after it", growth[settled < data["step"].size, 1], (-np.inf, np.log10(FORGOTTEN)),
         "fewer than two runs stay below the edge"),
    ):  # fmt: skip
        if values.size < 2:
            measurements.append(Measurement.missing(label, accepted, none, excluded))
            continue
        estimate, interval = mean_interval(values, confidence=bonferroni(2))
        note = f"edge {edge:.3g}, below it from step {np.median(steps):g} on (median)"
        measurements.append(
            Measurement(label, estimate, interval, accepted, excluded, members=values.size, unit="decades", note=note)
        )  # fmt: skip
    return measurements
