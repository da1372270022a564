"""Two-layer ReLU students trained in both layers, and the claim that larger ones are no worse (B8)."""

from functools import partial
from itertools import pairwise

import numpy as np
import xarray as xr

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.lab import Experiment, Measurement, Results, diverged_fraction
from separatrix.systems.high_dimensional_regression.generalization.features import (
    TEST_SAMPLES,
    draw_task,
    stack_tasks,
)
from separatrix.systems.high_dimensional_regression.generalization.settings import Settings
from separatrix.systems.high_dimensional_regression.relu_student import small_start, train

#: Standard deviation of the weights at the start, over the root of the fan-in in the first layer.
START_SCALE = 0.1
RECORDS = 100
#: What a larger network may be worse by, in units of the variance of the clean labels.
TOLERANCE = 0.02


def _simulate(settings: Settings, width: int, start: int, stop: int) -> xr.Dataset:
    tasks = [draw_task(settings, member, settings.feature_samples) for member in range(start, stop)]
    starts = [
        small_start(
            np.random.default_rng([settings.seed, 4, width, member]), width, settings.feature_inputs, START_SCALE
        )
        for member in range(start, stop)
    ]
    cast = partial(np.asarray, dtype=settings.dtype)
    weights = tuple(cast(np.stack(one)) for one in zip(*starts, strict=True))
    between = max(settings.trained_steps // RECORDS, 1)
    test, training = train(
        weights, *(cast(one) for one in stack_tasks(tasks)), cast(settings.trained_rate), RECORDS, between
    )  # fmt: skip
    test, training = np.asarray(test), np.asarray(training)
    lost = ~np.isfinite(test + training)
    steps = between * np.arange(RECORDS + 1)
    diverged = np.where(lost.any(axis=1), steps[lost.argmax(axis=1)], -1)
    variables = {
        "test_error": (("member", "step"), test),
        "training_error": (("member", "step"), training),
        "diverged_at_step": ("member", diverged),
    }
    return xr.Dataset(variables, {"member": np.arange(start, stop), "step": steps})


def trained_experiments(settings: Settings) -> list[Experiment]:
    """Every width."""
    P, N, steps = settings.feature_samples, settings.feature_inputs, settings.trained_steps
    return [
        Experiment(
            f"trained_width{width}",
            partial(_simulate, settings, width),
            members=settings.trained_draws,
            bytes_per_member=8 * (6 * P * width + 3 * TEST_SAMPLES * (width + N)),
            seconds=1.5 + settings.trained_draws * steps * (1e-6 + 5e-11 * P * N * width),
        )
        for width in settings.trained_widths
    ]


def errors(results: Results, width: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Best-stopped and final test error of every student that did not diverge, and the share that did."""
    data = results[f"trained_width{width}"]
    kept = data["test_error"].values[data["diverged_at_step"].values < 0].astype(np.float64)
    return kept.min(axis=1, initial=np.inf), kept[:, -1], diverged_fraction(data)


def larger_is_no_worse(settings: Settings, results: Results, stopped: bool = True) -> list[Measurement]:
    """Change of the mean best-stopped error from each width to the next, on the same samples."""
    widths = settings.trained_widths
    measurements = []
    for smaller, larger in pairwise(widths):
        label, accepted = f"change of the error from {smaller} to {larger} hidden units", (-np.inf, TOLERANCE)
        (best, final, lost), (next_best, next_final, also) = errors(results, smaller), errors(results, larger)
        first, second = (best, next_best) if stopped else (final, next_final)
        excluded = max(lost, also)
        if lost or also:
            measurements.append(Measurement.missing(label, accepted, "students diverged", excluded))
            continue
        estimate, interval = mean_interval(second - first, confidence=bonferroni(len(widths) - 1))
        measurements.append(Measurement(label, estimate, interval, accepted, members=first.size))
    return measurements
