"""What chaos does to the networks in the end: barriers between copies, predictions, and where paths part and turn."""

import numpy as np
from jaxtyping import Float

from separatrix.engines.intervals import bonferroni, mean_interval, median_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.systems.training_phases.chaos.settings import Settings, problem
from separatrix.systems.training_phases.chaos.transition import kept, transition_steps

#: Barriers in nats: above the first copies are in other basins, below the second in the same.
HIGH, LOW = 0.1, 0.02
#: Early copies must disagree this many times more often than late ones.
TIMES = 3.0
#: Share of the time within which the peaks of all early copies must lie.
TOGETHER = 0.125
#: Parameters must turn this many times faster before the transition than after it.
FASTER = 3.0


def basins(settings: Settings, results: Results, experiment: str = "copies") -> list[Measurement]:
    """Mean barrier at the end of copies spawned before and after the transition of their run."""
    data = results[experiment]
    used, runs = kept(data), kept(results["copies"])
    common = np.intersect1d(used["member"].values, runs["member"].values)
    heights = used["barrier"].sel(member=common).values
    before = data["spawn"].values < transition_steps(settings, runs.sel(member=common))[:, None]
    excluded = diverged_fraction(data, results["copies"])
    measurements = []
    for label, chosen, accepted in (
        ("barrier of copies spawned before the transition", before, (HIGH, np.inf)),
        ("barrier of copies spawned after it", ~before, (0.0, LOW)),
    ):
        with_any = chosen.any(axis=1)
        if with_any.sum() < 2:
            measurements.append(Measurement.missing(label, accepted, "fewer than two runs have such copies", excluded))
            continue
        means = np.sum(np.where(chosen, heights, 0), axis=1)[with_any] / chosen.sum(axis=1)[with_any]
        estimate, interval = mean_interval(means, confidence=bonferroni(2))
        # a barrier is not negative, but the interval of a mean near zero can reach below
        interval = (max(interval[0], 0.0), max(interval[1], 0.0))
        measurements.append(
            Measurement(label, estimate, interval, accepted, excluded, members=means.size, unit="nats")
        )  # fmt: skip
    return measurements


def predictions(settings: Settings, results: Results, experiment: str = "copies") -> list[Measurement]:
    """Disagreement of the first copies at the end, minus three times that of the last ones."""
    tests = problem(settings).split.test_labels.size
    label, accepted = f"disagreement of the first copies minus {TIMES:g} x that of the last", (0.5 / tests, np.inf)
    data = kept(results[experiment])
    values = data["disagreement"].values[:, : settings.directions, :, -1].mean(axis=1)
    excluded = diverged_fraction(results[experiment])
    if len(values) < 2:
        return [Measurement.missing(label, accepted, "runs diverged", excluded)]
    estimate, interval = mean_interval(values[:, 0] - TIMES * values[:, -1])
    return [
        Measurement(label, estimate, interval, accepted, excluded, members=len(values),
                    note=f"first {values[:, 0].mean():.3g}, last {values[:, -1].mean():.3g}")
    ]  # fmt: skip


def peaks(settings: Settings, results: Results, experiment: str = "copies") -> list[Measurement]:
    """Where the dissimilarity of early copies peaks, and how far apart their peaks are."""
    data, runs = kept(results[experiment]), kept(results["copies"])
    labels = ("step of largest dissimilarity over T", "spread of that step over early copies, over T")
    accepted = ((0.0, 0.5), (0.0, TOGETHER))
    excluded = diverged_fraction(results[experiment], results["copies"])
    common = np.intersect1d(data["member"].values, runs["member"].values)
    early = data["spawn"].values < transition_steps(settings, runs.sel(member=common))[:, None]
    values = data["dissimilarity"].sel(member=common).values[:, : settings.directions].mean(axis=1)
    several = early.sum(axis=1) >= 2
    if several.sum() < 2:
        note = "fewer than two runs have two early copies"
        return [
            Measurement.missing(label, region, note, excluded) for label, region in zip(labels, accepted, strict=True)
        ]
    places = data["step"].values[np.nan_to_num(values, nan=-1.0).argmax(axis=-1)] / settings.steps
    middle = np.array([np.median(row[mask]) for row, mask in zip(places, early, strict=True)])[several]
    spread = np.array([np.ptp(row[mask]) for row, mask in zip(places, early, strict=True) if mask.sum() >= 2])
    found = [median_interval(each, confidence=bonferroni(2)) for each in (middle, spread)]
    return [
        Measurement(label, estimate, interval, region, excluded, members=middle.size)
        for label, region, (estimate, interval) in zip(labels, accepted, found, strict=True)
    ]


def turning_speeds(settings: Settings, results: Results, backwards: bool = False) -> Float[np.ndarray, "n 2"]:
    """Mean angle per interval by which each run's parameters turn before its transition and after it, in radians."""
    data = kept(results["copies"])
    turning = data["turning"].values
    step = np.arange(turning.shape[1] - 1)
    angle = 2 * np.arcsin(np.sqrt(np.clip(turning[:, step, step + 1] / 2, 0, 1)))
    if backwards:
        angle = angle[:, ::-1]
    before = data["step"].values[1:] <= transition_steps(settings, data)[:, None]
    with np.errstate(invalid="ignore"):
        return np.stack(
            [np.sum(angle * mask, axis=1) / mask.sum(axis=1) for mask in (before, ~before)], axis=1
        )  # fmt: skip


def turning(settings: Settings, results: Results, backwards: bool = False) -> list[Measurement]:
    """Speed at which the parameters turn before the transition, over that after it."""
    label, accepted = "turning speed before the transition over that after it", (FASTER, np.inf)
    excluded = diverged_fraction(results["copies"])
    speeds = turning_speeds(settings, results, backwards)
    ratio = speeds[:, 0] / speeds[:, 1]
    ratio = ratio[np.isfinite(ratio)]
    if ratio.size < 2:
        note = "fewer than two runs have a transition within the training"
        return [Measurement.missing(label, accepted, note, excluded)]
    estimate, interval = mean_interval(np.log(ratio))
    return [
        Measurement(label, np.exp(estimate), (np.exp(interval[0]), np.exp(interval[1])), accepted, excluded,
                    members=ratio.size)
    ]  # fmt: skip
