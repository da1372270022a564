"""Learning curves against the exact solutions: A1, A2, A4 on decoupled starts, A2 and A9 on random ones."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import rankdata

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.systems.deep_linear.exact_solutions.experiments import RATE_FACTORS
from separatrix.systems.deep_linear.exact_solutions.settings import Settings, mode_task
from separatrix.systems.deep_linear.mode_solutions import mode_strength
from separatrix.systems.deep_linear.response_observables import group_means, tied_groups
from separatrix.systems.deep_linear.rises import crossing_times


def spread(values: Float[np.ndarray, " n"]) -> tuple[float, tuple[float, float]]:
    """Mean and whole range: for what is exact, members differ by rounding or discreteness alone."""
    return float(values.mean()), (float(values.min()), float(values.max()))


def curve_errors(data: xr.Dataset, strength: float, depth: float, pace: float = 1.0) -> Float[np.ndarray, "n r"]:
    """Largest ``|u_sim(t) - u(t)| / s`` of each member and mode; ``pace`` multiplies the theory's time."""
    s = data["singular_value"].values
    exact = mode_strength(pace * data["time"].values[:, None], strength, s, depth)
    return np.max(np.abs(data["strength"].values - exact), axis=1) / s


def analytic_curves(settings: Settings, results: Results, pace: float = 1.0) -> list[Measurement]:
    """Largest error at three learning rates over its bound, and its power of the learning rate (A1)."""
    task = mode_task(settings)
    errors, measurements = [], []
    for factor in RATE_FACTORS:
        data, rate = results[f"modes_rate{factor}"], factor * settings.learning_rate
        error = curve_errors(data, settings.initial_strength, 2, pace).max(axis=1)
        errors.append(error)
        bound = 0.8 * task.largest * rate + 1e-3
        estimate, interval = spread(error / bound)
        measurements.append(
            Measurement(
                f"learning rate {rate:g}, largest error over its bound", estimate, interval, (0.0, 1.0),
                excluded=diverged_fraction(data), members=error.size, note=f"error {error.max():.2g} of s",
            )
        )  # fmt: skip
    label, accepted = "power of the learning rate in the error", (0.9, 1.1)
    if not np.min(errors) > 0:
        return [*measurements, Measurement.missing(label, accepted, "an error is zero or not a number")]
    x = np.log(RATE_FACTORS) - np.mean(np.log(RATE_FACTORS))
    powers = x @ np.log(np.array(errors)) / (x @ x)
    estimate, interval = spread(powers)
    return [*measurements, Measurement(label, estimate, interval, accepted, members=powers.size)]


def depth_curves(settings: Settings, results: Results, extra: int = 0) -> list[Measurement]:
    """Largest error of the curves at each depth (A4); ``extra`` layers are added in the theory."""
    measurements = []
    for depth in settings.depth:
        data = results[f"modes_depth{depth}"]
        error = curve_errors(data, settings.depth_strength, depth + extra).max(axis=1)
        estimate, interval = spread(error)
        measurements.append(
            Measurement(
                f"depth {depth}, largest error over s", estimate, interval, (0.0, 0.005),
                excluded=diverged_fraction(data), members=error.size,
            )
        )  # fmt: skip
    return measurements


# -- learning times -----------------------------------------------------------------------------------------------


def half_times(data: xr.Dataset) -> tuple[Float[np.ndarray, "n g"], Float[np.ndarray, " g"]]:
    """Times at which each mode, or subspace of equal modes, is half learned, NaN where it never is; and its s."""
    s = data["singular_value"].values
    groups = tied_groups(s)
    level = group_means(s, groups)
    kept = (data["diverged_at_step"].values < 0)[:, None, None]
    strength = np.where(kept, group_means(data["strength"].values, groups), np.nan)
    return crossing_times(data["time"].values, strength, level / 2), level


def inverse_times(
    settings: Settings, results: Results, decoupled: str = "modes_rate1", random: str = "small_linear"
) -> list[Measurement]:
    """Learning time against singular value, from decoupled and from random starts (A2)."""
    times, s = half_times(results[decoupled])
    # What is left of the time when the logarithm of the start is taken out
    reduced = times / np.log(s / settings.initial_strength - 1)
    missing = float(np.mean(np.isnan(times)))
    accepted = (0.495, 0.505)
    measurements = []
    for mode, value in enumerate(s):
        seen = reduced[np.isfinite(reduced[:, mode]), mode] * value
        label = f"decoupled start, mode {mode + 1}, s times half time over the logarithm"
        if seen.size == 0:
            measurements.append(Measurement.missing(label, accepted, "never half learned", excluded=1.0))
            continue
        estimate, interval = spread(seen)
        measurements.append(Measurement(label, estimate, interval, accepted, excluded=missing, members=seen.size))
    measurements.append(_power(reduced, s))
    measurements.append(_order(results[random]))
    return measurements


def _power(reduced: Float[np.ndarray, "n r"], s: Float[np.ndarray, " r"]) -> Measurement:
    label, accepted = "decoupled start, power of s in the half time without its logarithm", (-1.05, -0.95)
    whole = np.isfinite(reduced).all(axis=1)
    if s.size < 2 or not whole.any():
        return Measurement.missing(label, accepted, "needs two modes that are learned")
    x = np.log(s) - np.log(s).mean()
    estimate, interval = spread(np.log(reduced[whole]) @ x / (x @ x))
    return Measurement(label, estimate, interval, accepted, excluded=1 - whole.mean(), members=int(whole.sum()))


def _order(data: xr.Dataset) -> Measurement:
    label, accepted = "random start, rank correlation of the half time with 1/s", (0.95, 1.0)
    times, s = half_times(data)
    whole = np.isfinite(times).all(axis=1)
    if s.size < 3 or whole.sum() < 2:
        return Measurement.missing(label, accepted, "needs three different modes that are learned")
    # Two modes half learned at the same time, such as at the start, are equal in rank; all of them have no order.
    ranks = [0.0 if np.ptp(row) == 0 else np.corrcoef(rankdata(row), rankdata(1 / s))[0, 1] for row in times[whole]]
    estimate, interval = mean_interval(np.array(ranks))
    return Measurement(
        label, estimate, (interval[0], min(interval[1], 1.0)), accepted, excluded=1 - whole.mean(), members=len(ranks)
    )


def tanh_alike(
    settings: Settings, results: Results, names: Sequence[str] = ("small_linear", "small_tanh")
) -> list[Measurement]:
    """Half time of the tanh network over that of the linear one from the same start, for each subspace (A9)."""
    del settings
    (linear, s), (tanh, _) = (half_times(results[name]) for name in names)
    measurements, accepted = [], (0.9, 1.1)
    for group, value in enumerate(s):
        label = f"tanh over linear half time, s = {value:.3g}"
        ratio = tanh[:, group] / linear[:, group]
        seen = ratio[np.isfinite(ratio)]
        if seen.size < 2:
            measurements.append(Measurement.missing(label, accepted, "never half learned", excluded=1.0))
            continue
        estimate, interval = mean_interval(seen, confidence=bonferroni(s.size))
        measurements.append(
            Measurement(label, estimate, interval, accepted, excluded=1 - seen.size / ratio.size, members=seen.size)
        )
    return measurements
