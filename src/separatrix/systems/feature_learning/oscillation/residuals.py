"""Claims on the residual of the networks: its bias (L5), its oscillation (L6), and where growth stops (L3)."""

from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from separatrix.engines.intervals import bonferroni, median_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.systems.feature_learning.oscillation import maps
from separatrix.systems.feature_learning.oscillation.accuracy import kept, mean_measurement, network
from separatrix.systems.feature_learning.oscillation.settings import Settings
from separatrix.systems.feature_learning.oscillation_map import residual_bias, stable_weak_share

#: Contribution at which the strong feature counts as fitted, and share of its end at which the weak one has saturated.
ARRIVED, SATURATED = 0.5, 0.5
#: Share of visits to points with the strong feature that must oscillate.
OFTEN = 0.8
#: Last part of a run, in which the oscillation has decayed.
LATE = 0.2


def oscillation_window_records(data: xr.Dataset, share: float) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Records between which the strong feature is fitted and the weak one has not saturated yet, for each member.

    From the first record with ``A >= ARRIVED`` to that with ``B >= SATURATED * share``, or the end of the run.
    """
    last = data.sizes["time"] - 1
    first = lambda flags: np.where(flags.any(axis=1), flags.argmax(axis=1), last)  # noqa: E731
    begin = first(data["strong"].values >= ARRIVED)
    end = first(data["weak"].values >= SATURATED * share) if share > 0 else np.full(begin.shape, last)
    return begin, np.maximum(end, begin)


def _gained(data: xr.Dataset, name: str, begin: Int[np.ndarray, " n"], end: Int[np.ndarray, " n"]) -> np.ndarray:
    values, rows = data[name].values.astype(np.float64), np.arange(begin.size)
    return values[rows, end] - values[rows, begin]


def oscillating_share(data: xr.Dataset, begin: Int[np.ndarray, " n"], end: Int[np.ndarray, " n"]) -> np.ndarray:
    """Share of visits to strong points with ``|l| >= delta`` between two records; NaN without a visit."""
    visits = _gained(data, "visits", begin, end)
    return np.where(visits > 0, _gained(data, "oscillating", begin, end) / np.maximum(visits, 1), np.nan)


def residual_oscillates(
    settings: Settings, results: Results, steps: tuple[float, ...] | None = None
) -> list[Measurement]:
    """Share of oscillating visits before the weak feature saturates; at large steps, the change of it by the end."""
    chosen = settings.oscillating if steps is None else steps
    conditions = len(chosen) + len(settings.large)
    measurements = []
    for step in chosen:
        data = network(settings, results, step)
        good, excluded = kept(data), diverged_fraction(data)
        share = float(stable_weak_share(step, settings.task.ratio))
        begin, end = oscillation_window_records(good, share)
        early = oscillating_share(good, begin, end)
        measurements.append(_with_excluded(
            mean_measurement(f"step {step:g}: share of visits with |l| >= {settings.oscillation:g} before saturation",
                             early, (OFTEN, 1.0), conditions), excluded))  # fmt: skip
        if step in settings.large:
            last = good.sizes["time"] - 1
            late = oscillating_share(good, np.full(begin.shape, round((1 - LATE) * last)), np.full(begin.shape, last))
            measurements.append(_with_excluded(
                mean_measurement(f"step {step:g}: change of this share by the end", late - early, (-np.inf, -0.2),
                                 conditions, f"late share {np.nanmean(late):.2f}"), excluded))  # fmt: skip
    return measurements


def _with_excluded(found: Measurement, excluded: float) -> Measurement:
    """The measurement with the members that diverged among those left out."""
    return replace(found, excluded=max(found.excluded, excluded))


def bias_is_positive(settings: Settings, results: Results, theory=residual_bias) -> list[Measurement]:
    """On the 2-cycle of the map equal to theory; in every oscillating network positive."""
    measurements = maps.bias_on_the_cycle(results, theory)
    for step in settings.oscillating:
        data = network(settings, results, step)
        bias = measured_bias(kept(data), float(stable_weak_share(step, settings.task.ratio)))
        label = f"networks, step {step:g}: sum l / sum l^2, smallest over runs"
        if bias.size == 0:
            measurements.append(Measurement.missing(label, (0.0, np.inf), "all runs diverged", diverged_fraction(data)))
            continue
        measurements.append(
            Measurement(label, bias.min(), (bias.min(), bias.max()), (0.0, np.inf), diverged_fraction(data), bias.size,
                        note=f"mean {bias.mean():.3f}, theory of the map {float(residual_bias(step)):.3f}")
        )  # fmt: skip
    return measurements


def measured_bias(data: xr.Dataset, share: float) -> Float[np.ndarray, " n"]:
    """Sum of residuals over sum of their squares, over visits to strong points while the network oscillates."""
    begin, end = oscillation_window_records(data, share)
    long: Bool[np.ndarray, " n"] = end > begin
    return _gained(data, "residual_sum", begin, end)[long] / _gained(data, "square_sum", begin, end)[long]


def weak_share_of_networks(settings: Settings, results: Results, share=stable_weak_share) -> list[Measurement]:
    """Contribution of the weak feature at the end of large-step runs, over the share at which the map is stable.

    Medians: in a few runs plain points have no unit for their own noise and teach the weak feature beyond this share.
    """
    measurements, accepted = [], (0.9, 1.2)
    for step in settings.large:
        data, label = network(settings, results, step), f"networks, step {step:g}: median of B_end / theory"
        ratio = kept(data)["weak"].values[:, -1].astype(np.float64) / float(share(step, settings.task.ratio))
        if ratio.size == 0:
            measurements.append(Measurement.missing(label, accepted, "all runs diverged", 1.0))
            continue
        estimate, interval = median_interval(ratio, confidence=bonferroni(len(settings.large)))
        measurements.append(Measurement(label, estimate, interval, accepted, diverged_fraction(data), ratio.size))
    return measurements


def growth_and_end(
    settings: Settings, results: Results, growth=maps.weak_growth, share=stable_weak_share
) -> list[Measurement]:
    """The map's conditions, and those of the networks."""
    return [
        *maps.growth_on_the_cycle(settings, results, growth, share),
        *weak_share_of_networks(settings, results, share),
    ]
