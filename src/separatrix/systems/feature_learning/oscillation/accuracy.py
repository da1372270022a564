"""Claims on what the networks learn: the weak feature at large steps only (L1, L2, L7, L8), and failures (L9)."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.engines.intervals import bonferroni, bootstrap, clopper_pearson, mean_interval
from separatrix.lab import Measurement, Results
from separatrix.systems.feature_learning.oscillation.networks import EDGE, FAINT
from separatrix.systems.feature_learning.oscillation.settings import Settings

#: Accuracy on points with the weak feature alone that counts as learned, and as not learned.
LEARNED, NOT_LEARNED = 0.95, 0.75
#: Between the two: where the switch is looked for.
SWITCH = 0.8
#: Gain of accuracy over the largest small step.
GAIN = 0.2
#: Training loss of a fitted training set.
FITTED = 0.02


def network(settings: Settings, results: Results, step: float) -> xr.Dataset:
    """Networks trained with this strong step."""
    return results[f"network_step{settings.strong_steps.index(step)}"]


def kept(data: xr.Dataset) -> xr.Dataset:
    """Members that did not diverge."""
    return data.isel(member=np.flatnonzero(data["diverged_at_step"].values < 0))


def final_accuracy(data: xr.Dataset) -> Float[np.ndarray, " n"]:
    """Weak-only accuracy at the end, NaN where a member diverged."""
    return data["weak_only_accuracy"].values[:, -1]


def mean_measurement(
    label: str, values: Float[np.ndarray, " n"], accepted: tuple[float, float], conditions: int, note: str = ""
) -> Measurement:
    """Mean over members with its interval; members without a number count as left out."""
    finite = values[np.isfinite(values)]
    excluded = 1 - finite.size / values.size
    if finite.size < 2:
        return Measurement.missing(label, accepted, "almost all members diverged", excluded)
    estimate, interval = mean_interval(finite, confidence=bonferroni(conditions))
    return Measurement(label, estimate, interval, accepted, excluded, finite.size, note=note)


def large_steps_learn(
    settings: Settings, results: Results, steps: tuple[float, ...] | None = None
) -> list[Measurement]:
    """Weak-only accuracy at large steps, and what it gains over the largest small one on the same data and starts."""
    steps = settings.large if steps is None else steps
    conditions = 2 * len(steps)
    measurements: list[Measurement] = []
    for step in steps:
        accuracy = final_accuracy(network(settings, results, step))
        measurements.append(
            mean_measurement(f"step {step:g}: weak-only accuracy", accuracy, (LEARNED, np.inf), conditions)
        )
        for smooth in settings.small[-1:]:
            label = f"step {step:g}: gain over step {smooth:g}"
            gain = accuracy - final_accuracy(network(settings, results, smooth))
            gained = gain[np.isfinite(gain)]
            if gained.size < 2:
                measurements.append(Measurement.missing(label, (GAIN, np.inf), "almost all members diverged", 1.0))
                continue
            estimate, interval = bootstrap(np.mean, gained, confidence=bonferroni(conditions), seed=settings.seed)
            measurements.append(
                Measurement(label, estimate, interval, (GAIN, np.inf), 1 - gained.size / gain.size, gained.size)
            )
    return measurements


def small_steps_do_not(
    settings: Settings, results: Results, steps: tuple[float, ...] | None = None
) -> list[Measurement]:
    """Weak-only accuracy at small steps; training accuracy and loss at small and at large ones."""
    steps = settings.small if steps is None else steps
    if not steps:
        return [Measurement.missing("weak-only accuracy", (-np.inf, NOT_LEARNED), "strong_steps has no such step")]
    fitted = [*settings.small, *settings.large]
    conditions = len(steps) + 2 * len(fitted)
    measurements = [
        mean_measurement(f"step {step:g}: weak-only accuracy", final_accuracy(network(settings, results, step)),
                         (-np.inf, NOT_LEARNED), conditions)
        for step in steps
    ]  # fmt: skip
    for step in fitted:
        data = network(settings, results, step)
        for name, accepted in (("train_accuracy", (0.999, np.inf)), ("loss", (-np.inf, FITTED))):
            values = data[name].values[:, -1].astype(np.float64)
            label = f"step {step:g}: {name.replace('_', 'ing ').replace('loss', 'training loss')}"
            measurements.append(mean_measurement(label, values, accepted, conditions))
    return measurements


def crossing(curves: Float[np.ndarray, "... n k"], steps: Float[np.ndarray, " k"], axis: int) -> np.ndarray:
    """First step at which the mean accuracy over members (``axis``) reaches :data:`SWITCH`, between two interpolated.

    The smallest step where it is reached from the start, infinity where it is not.
    """
    mean = np.mean(curves, axis=axis)
    above = mean >= SWITCH
    after = np.argmax(above, axis=-1)
    before = np.maximum(after - 1, 0)
    take = lambda i: np.take_along_axis(mean, i[..., None], axis=-1)[..., 0]  # noqa: E731
    low, high = take(before), take(after)
    share = np.where(after > before, (SWITCH - low) / np.where(high > low, high - low, 1), 0)
    place = steps[before] + share * (steps[after] - steps[before])
    return np.where(above.any(axis=-1), place, np.inf)


def switch_at_the_limit(settings: Settings, results: Results, name: str = "network") -> list[Measurement]:
    """Strong step at which the mean weak-only accuracy passes the switch."""
    label, accepted = f"strong step at which the accuracy passes {SWITCH:g}", (0.9, 1.2)
    usable = [step for step in settings.strong_steps if step < EDGE[0]]
    data = [results[f"{name}_step{settings.strong_steps.index(step)}"] for step in usable]
    if not data:
        return [Measurement.missing(label, accepted, f"strong_steps has no value below {EDGE[0]:g}")]
    accuracy = np.stack([final_accuracy(one) for one in data], axis=-1)
    complete = accuracy[np.isfinite(accuracy).all(axis=1)]
    excluded = 1 - len(complete) / len(accuracy)
    steps = np.array(usable)
    if len(complete) == 0 or not np.isfinite(crossing(complete, steps, 0)):
        return [Measurement.missing(label, accepted, "the accuracy stays below it", excluded)]
    estimate, interval = bootstrap(lambda curves, axis: crossing(curves, steps, axis), complete, seed=settings.seed)
    return [Measurement(label, estimate, interval, accepted, excluded, len(complete))]


def accuracy_persists(settings: Settings, results: Results, name: str = "decayed") -> list[Measurement]:
    """Weak-only accuracy at the end of runs whose learning rate has dropped."""
    if not settings.large:
        return [Measurement.missing("accuracy", (LEARNED, np.inf), "strong_steps has no large value")]
    label = f"step {settings.large[0]:g}, dropped tenfold: weak-only accuracy at the end"
    return [mean_measurement(label, final_accuracy(results[name]), (LEARNED, np.inf), 1)]


def diverging(label: str, data: xr.Dataset, accepted: tuple[float, float], confidence: float) -> Measurement:
    """Share of members that diverge, a result and not a loss of members."""
    lost, members = int((data["diverged_at_step"].values >= 0).sum()), data.sizes["member"]
    interval = clopper_pearson(lost, members, confidence=confidence)
    return Measurement(label, lost / members, interval, accepted, members=members)


def outside_of_the_window(settings: Settings, results: Results, inside: bool = False) -> list[Measurement]:
    """Three ways to be outside: growth too slow, neurons flipped over, and noise too small to be needed.

    With ``inside``, the same statistics inside the window, where none of them is true.
    """
    if not (settings.large and settings.small):
        return [Measurement.missing("outside", (0, 1), "strong_steps needs a small and a large value")]
    large, small = settings.large[0], settings.small[0]
    inner, smooth = network(settings, results, large), network(settings, results, small)
    faint, beyond, quiet = inner, inner, smooth
    if not inside:
        faint, beyond, quiet = results["faint"], results[f"edge_step{len(EDGE) - 1}"], results["quiet_step0"]
    return [
        mean_measurement(f"step {large:g}, weak norm {FAINT * settings.weak_norm:g}: weak-only accuracy",
                         final_accuracy(faint), (-np.inf, NOT_LEARNED), 3),
        diverging(f"step {EDGE[-1]:g}: share of runs that diverge", beyond, (0.5, 1.0), bonferroni(3)),
        mean_measurement(f"step {small:g}, little noise: weak-only accuracy", final_accuracy(quiet), (LEARNED, np.inf),
                         3),
    ]  # fmt: skip
