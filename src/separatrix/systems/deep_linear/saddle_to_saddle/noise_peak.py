"""The noise of a mode peaks before the mode is learned (C2), where (C3), and by how much earlier (C10)."""

import itertools

import numpy as np
import xarray as xr

from separatrix.engines.intervals import bonferroni, bootstrap, clustered_fraction, median_interval
from separatrix.lab import Measurement, Results
from separatrix.systems.deep_linear.diffusion_peak import Observable, dominant_label_noise, peak_progress
from separatrix.systems.deep_linear.rises import rises
from separatrix.systems.deep_linear.saddle_to_saddle.settings import Settings, Task, task


def measured_diffusion(data: xr.Dataset) -> np.ndarray:
    """Variance rate of the modes under the data's own noise; the strengths themselves where there is none (descent)."""
    return data[next(n for n in ("dataset_variance_rate", "variance_rate", "strength") if n in data)].values


def run_rises(data: xr.Dataset):
    """:func:`rises` of a recorded network experiment; a run that diverges at any time has learned nothing."""
    kept = (data["diverged_at_step"].values < 0)[:, None, None]
    strength = np.where(kept, data["strength"].values, np.nan)
    return rises(data["time"].values, strength, measured_diffusion(data), data["singular_value"].values)


def _arms(settings: Settings, problem: Task) -> list[tuple[str, str, int, str, np.ndarray]]:
    """(label, experiment, depth, start, modes whose label noise leaves a peak above the plateau), where there are any.

    Where the label noise of every mode hides the peak there is nothing that the claims could speak of.
    """
    arms = []
    for depth, start, labels in itertools.product(settings.depth, ("aligned", "random"), ("clean", "noisy")):
        noise = problem.mode_label_noise if labels == "noisy" else 0 * problem.mode_label_noise
        visible = noise / problem.followed < dominant_label_noise(depth)
        if visible.any():
            name = f"{start}_depth{depth}_{labels}"
            arms.append((f"depth {depth}, {start} start, {labels} labels", name, depth, start, visible))
    return arms


def peak_precedes_learning(settings: Settings, results: Results) -> list[Measurement]:
    """Fraction of (run, mode) in which the diffusion peaks at a record before the mode is learned."""
    arms = _arms(settings, task(settings))
    return [
        _fraction_before(label, results[name], visible, bonferroni(len(arms))) for label, name, _, _, visible in arms
    ]


def loud_peak_precedes_learning(settings: Settings, results: Results) -> list[Measurement]:
    """The same with label noise above critical for every mode."""
    everything = np.ones(task(settings).modes, bool)
    return [
        _fraction_before(
            f"depth {d}, loud labels", results[f"loud_depth{d}"], everything, bonferroni(len(settings.depth))
        )
        for d in settings.depth
    ]


def _fraction_before(label: str, data: xr.Dataset, visible: np.ndarray, confidence: float) -> Measurement:
    accepted = (0.95, 1.0)
    rise = run_rises(data)
    learned, before = rise.learned[:, visible], rise.peaked_before[:, visible]
    if not learned.any():
        return Measurement.missing(label, accepted, "no mode was learned", excluded=1.0)
    # The modes of a run share its samples.
    fraction, interval = clustered_fraction(before.sum(axis=1), learned.sum(axis=1), confidence=confidence)
    return Measurement(
        label, fraction, interval, accepted, excluded=1 - learned.mean(), members=len(learned), note=_hidden(visible)
    )


def _hidden(visible: np.ndarray) -> str:
    left_out = [str(a + 1) for a in np.flatnonzero(~visible)]
    return f"without mode {', '.join(left_out)}, whose label noise hides the peak" if left_out else ""


def peak_position(settings: Settings, results: Results, observable: Observable = "strength") -> list[Measurement]:
    """Median ``w/s`` at the largest diffusion, minus the predicted position."""
    problem = task(settings)
    conditions = [
        (label, name, depth, start, mode)
        for label, name, depth, start, visible in _arms(settings, problem)
        for mode in np.flatnonzero(visible)
    ]
    confidence = bonferroni(len(conditions))
    cache = {name: run_rises(results[name]) for name in {c[1] for c in conditions}}
    measurements = []
    for label, name, depth, start, mode in conditions:
        tolerance = 0.03 if start == "aligned" else 0.06
        noise = problem.mode_label_noise[mode] if name.endswith("noisy") else 0.0
        predicted = float(peak_progress(depth, noise / problem.followed[mode], observable=observable))
        rise = cache[name]
        progress = rise.peak_progress[rise.learned[:, mode], mode]
        where = f"{label}, mode {mode + 1}"
        if progress.size < 2:
            measurements.append(Measurement.missing(where, (-tolerance, tolerance), "the mode was not learned"))
            continue
        estimate, interval = median_interval(progress, confidence=confidence)
        measurements.append(
            Measurement(
                where, estimate - predicted, (interval[0] - predicted, interval[1] - predicted),
                (-tolerance, tolerance),
                excluded=1 - progress.size / rise.learned.shape[0], members=progress.size,
                note=f"median {estimate:.3f}, theory {predicted:.3f}",
            )
        )  # fmt: skip
    return measurements


def lead_scaling(settings: Settings, results: Results, shift: int = 0) -> list[Measurement]:
    """Power of the singular value in the median lead over the predicted one (aligned, clean labels, small steps)."""
    problem = task(settings)
    measurements = []
    for depth in settings.depth:
        label = f"depth {depth}, exponent of the lead over theory"
        if problem.modes < 2:
            measurements.append(Measurement.missing(label, (0.95, 1.05), "needs two modes"))
            continue
        exponent = 2 - 2 / (depth + shift)
        rise = run_rises(results[f"lead_depth{depth}"])
        lead = (rise.learned_time - rise.peak_time)[rise.learned.all(axis=1)]
        if len(lead) == 0:
            measurements.append(Measurement.missing(label, (0.95, 1.05), "no run learned all modes", excluded=1.0))
            continue

        def slope(rows: np.ndarray, axis: int = 0) -> np.ndarray:
            x = np.log(problem.followed) - np.log(problem.followed).mean()
            return np.sum(np.log(np.median(rows, axis=axis)) * x, axis=-1) / np.sum(x**2)

        estimate, interval = bootstrap(slope, lead, confidence=bonferroni(len(settings.depth)), seed=settings.seed)
        # A control may predict no dependence at all: measure then in units of one power.
        unit = -exponent if exponent > 0 else -1.0
        ends = sorted(end / unit for end in interval)
        accepted = (0.95, 1.05) if exponent > 0 else (-0.05, 0.05)
        measurements.append(
            Measurement(
                label,
                estimate / unit,
                (ends[0], ends[1]),
                accepted,
                excluded=1 - len(lead) / len(rise.learned),
                members=len(lead),
                note=f"measured power {estimate:.3f}, theory {-exponent:.3f}",
            )
        )
    return measurements
