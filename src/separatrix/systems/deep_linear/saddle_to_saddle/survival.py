"""Saddle-to-saddle learning survives the noise (C6), and the scalar reduction errs in proportion to the step (C7)."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from separatrix.engines.intervals import bonferroni, clopper_pearson, log_slope, median_interval, paired_difference
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.systems.deep_linear.learning_times import flow_time
from separatrix.systems.deep_linear.rises import LEARNED, plateau_losses, rises
from separatrix.systems.deep_linear.saddle_to_saddle.networks import RATE_FACTORS
from separatrix.systems.deep_linear.saddle_to_saddle.noise_peak import run_rises
from separatrix.systems.deep_linear.saddle_to_saddle.settings import Settings, task


def survival(settings: Settings, results: Results) -> list[Measurement]:
    """Order, plateau losses and learning times of SGD against descent from the same starts, and their limit."""
    parts = [m for d in settings.depth for m in _against_descent(settings, results, d, "random")]
    return [*parts, *_order(settings, results, "random"), *(_delay_power(settings, results, d) for d in settings.depth)]


def lazy_survival(settings: Settings, results: Results) -> list[Measurement]:
    """The same from large random weights."""
    parts = [m for depth in settings.depth for m in _against_descent(settings, results, depth, "lazy")]
    return [*parts, *_order(settings, results, "lazy")]


def _confidence(settings: Settings) -> float:
    return bonferroni(4 * len(settings.depth) + 1)


def _pair(results: Results, depth: int, start: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Runs of SGD and of descent from the same starts."""
    return results[f"{start}_depth{depth}_clean"], results[f"{start}_depth{depth}_descent"]


def _in_order(data: xr.Dataset) -> np.ndarray:
    """Whether each run learned all modes, the stronger one always first."""
    return np.all(np.diff(run_rises(data).learned_time, axis=1) > 0, axis=1)


def _order(settings: Settings, results: Results, start: str) -> Iterator[Measurement]:
    """Fraction of runs in order under SGD minus that under descent, all depths together."""
    if task(settings).modes < 2:
        return
    pairs = [_pair(results, depth, start) for depth in settings.depth]
    noisy, smooth = (np.concatenate([_in_order(pair[k]) for pair in pairs]) for k in (0, 1))
    estimate, interval = paired_difference(noisy, smooth, confidence=_confidence(settings))
    yield Measurement(
        f"all depths, {start} start, runs in order: SGD minus descent", estimate, interval, (-0.05, 1.0),
        excluded=diverged_fraction(*(pair[0] for pair in pairs)), members=noisy.size,
        note=f"in order with descent: {smooth.mean():.1%}",
    )  # fmt: skip


def _against_descent(settings: Settings, results: Results, depth: int, start: str) -> Iterator[Measurement]:
    confidence = _confidence(settings)
    sgd, descent = _pair(results, depth, start)
    noisy, smooth = run_rises(sgd), run_rises(descent)
    both = noisy.learned & smooth.learned
    members = len(both)
    excluded = float(np.mean(smooth.learned.all(axis=1) & ~noisy.learned.all(axis=1)))
    label = f"depth {depth}, {start} start"
    if task(settings).modes > 1:
        kept = int(_in_order(sgd).sum())
        interval = clopper_pearson(kept, members, confidence=confidence)
        yield Measurement(f"{label}, runs in order with SGD", kept / members, interval, (0.85, 1.0), excluded=excluded,
                          members=members)  # fmt: skip
        yield from _plateaus(settings, sgd, descent, label)
    both &= smooth.learned_time > 0  # a start beyond the solution has no learning time
    ratio = np.where(both, noisy.learned_time, np.nan) / np.where(both, smooth.learned_time, np.nan)
    where, accepted = f"{label}, learning time of SGD over descent", (0.97, 1.06)
    per_run = _row_medians(ratio)
    if per_run.size < 2:
        yield Measurement.missing(where, accepted, "no mode was learned by both")
        return
    estimate, interval = median_interval(per_run, confidence=confidence)
    yield Measurement(where, estimate, interval, accepted, excluded=excluded, members=per_run.size)


def _row_medians(rows: np.ndarray) -> np.ndarray:
    """Median of each row without its NaNs; rows of nothing else are left out. The rows are independent runs."""
    return np.array([np.median(row[np.isfinite(row)]) for row in rows if np.isfinite(row).any()])


def _plateaus(settings: Settings, sgd: xr.Dataset, descent: xr.Dataset, label: str) -> Iterator[Measurement]:
    """Plateau losses over ``sum_{b > k} s_b^2 / 2``: for each run the median over its plateaus that are separated.

    Nothing where not even descent has plateaus: its rises overlap from this start, and there is nothing to survive.
    """
    rest, s = np.asarray(task(settings).singular_values), sgd["singular_value"].values
    expected = np.array([0.5 * np.sum(rest[k + 1 :] ** 2) for k in range(s.size - 1)])
    ratios = [plateau_losses(d["loss"].values, d["strength"].values, s) / expected for d in (descent, sgd)]
    separated = [np.isfinite(ratio).mean() for ratio in ratios]
    if separated[0] < 0.1:
        return
    where, accepted = f"{label}, loss on the plateaus over the saddle's", (0.9, 1.1)
    note = f"separated plateaus: {separated[1]:.0%} with SGD, {separated[0]:.0%} with descent"
    per_run = _row_medians(ratios[1])
    if per_run.size < 2:
        yield Measurement.missing(where, accepted, note)
        return
    estimate, interval = median_interval(per_run, confidence=_confidence(settings))
    yield Measurement(where, estimate, interval, accepted, members=per_run.size, note=note)


def _delay_power(settings: Settings, results: Results, depth: int) -> Measurement:
    """Power of the learning rate in the delay of learning, aligned start: mean delay after gradient flow, relative.

    Learning is measured by the passage of half the singular value: later, single steps carry runs over the line.
    """
    label, accepted = f"depth {depth}, aligned start, power of the learning rate in the delay", (0.7, 1.3)
    rates = np.array(list(RATE_FACTORS.values()))
    data = [results[f"rate_depth{depth}_{arm}"] for arm in RATE_FACTORS]
    s = data[0]["singular_value"].values
    start = data[0]["strength"].values[0, 0, 0]
    flow = np.array([float(flow_time(start, 0.5 * v, v, depth)) for v in s])
    # The level that counts as learned is a share of what is passed as the singular value.
    half = 0.5 * s / LEARNED
    times = [rises(d["time"].values, d["strength"].values, d["strength"].values, half).learned_time for d in data]
    delays = [np.mean(t / flow - 1, axis=1) for t in times]
    kept = [d[np.isfinite(d)] for d in delays]
    excluded = 1 - sum(d.size for d in kept) / sum(d.size for d in delays)
    note = "mean delays " + ", ".join(f"{d.mean():.2%}" for d in kept if d.size)
    if any(d.size < 2 or d.mean() <= 0 for d in kept):
        return Measurement.missing(label, accepted, note, excluded)
    estimate, interval = log_slope(rates, kept, confidence=_confidence(settings))
    return Measurement(label, estimate, interval, accepted, excluded=excluded, members=kept[0].size, note=note)


def reduction_error(settings: Settings, results: Results, start: str = "aligned") -> list[Measurement]:
    """Power of the learning rate in the mean gap between the full network and its scalar chains on the same samples.

    Gap: the largest ``|mean w_aa - mean of the chain| / s_a`` over modes and times, its place found at the largest
    learning rate (so that noise at the smaller ones cannot choose it).
    """
    confidence = bonferroni(len(settings.depth))
    measurements = []
    for depth in settings.depth:
        runs = [results[name] for name in _reduction_names(depth, start)]
        label, accepted = f"depth {depth}, power of the learning rate in the gap", (0.7, 1.3)
        excluded = diverged_fraction(*runs)
        if any(np.sum(data["diverged_at_step"].values < 0) < 2 for data in runs):
            measurements.append(Measurement.missing(label, accepted, "all runs diverged", excluded))
            continue
        rates, at, mode = reduction_gaps(settings, results, depth, start)
        estimate, interval = log_slope(rates, at, confidence=confidence)
        note = "gaps " + ", ".join(f"{abs(a.mean()):.2%}" for a in at) + f" in mode {mode + 1}"
        measurements.append(
            Measurement(label, estimate, interval, accepted, excluded=excluded, members=at[0].size, note=note)
        )
    return measurements


def _reduction_names(depth: int, start: str) -> dict[str, float]:
    prefix, arms = (
        ("rate", RATE_FACTORS) if start == "aligned" else (start, {a: RATE_FACTORS[a] for a in ("double", "single")})
    )
    return {f"{prefix}_depth{depth}_{arm}": factor for arm, factor in arms.items()}


def reduction_gaps(
    settings: Settings, results: Results, depth: int, start: str = "aligned"
) -> tuple[np.ndarray, list[np.ndarray], int]:
    """Learning rates, the gap of every run at each of them, and the mode (from 0) in which it is largest."""
    names = _reduction_names(depth, start)
    gaps = []
    for name in names:
        data = results[name]
        gap = (data["strength"] - data["reduced_strength"]).values / data["singular_value"].values
        gaps.append(gap[np.isfinite(gap).all(axis=(1, 2))])
    place = np.unravel_index(np.abs(gaps[0].mean(axis=0)).argmax(), gaps[0].shape[1:])
    rates = settings.learning_rate * np.array(list(names.values()))
    return rates, [gap[:, place[0], place[1]] for gap in gaps], int(place[1])
