"""The same networks with real images in the place of the noise, and what a large step teaches them (L10, L11)."""

from collections.abc import Iterator
from functools import lru_cache, partial

import numpy as np
import xarray as xr

from separatrix.datasets.classification import TwoClassData, balanced_split
from separatrix.engines.ensemble import State
from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.engines.launch import Launch
from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.feature_learning.oscillation.networks import (
    BETWEEN_TESTS,
    RECORDS,
    Arm,
    arguments,
    course_dataset,
    record_steps,
)
from separatrix.systems.feature_learning.oscillation.settings import TEST_IMAGES, Settings, images
from separatrix.systems.feature_learning.two_feature_network import (
    PatchSGD,
    background_coefficients,
    class_accuracy,
    image_responses,
    network_state,
    observe,
)
from separatrix.systems.feature_learning.two_feature_task import NetworkStart, PatchData, gaussian_start

#: What is shown at test: the image with the weak feature of its class, alone, or with that of the other class.
SHOWN = ("weak_and_image", "image_only", "contradicting")
#: Least gain of accuracy over the largest small step, with the weak feature and without any patch.
GAIN = {"weak_and_image": 0.1, "image_only": 0.05}


def image_steps(settings: Settings) -> tuple[float, ...]:
    """Strong steps with images: the smallest and the largest small one and the first large one."""
    return tuple(sorted({*settings.small[:1], *settings.small[-1:], *settings.large[:1]}))


@lru_cache(maxsize=4096)
def draw_images(settings: Settings, member: int) -> tuple[PatchData, NetworkStart, PatchData]:
    """Training images with their patches, start, and test images of a member, the same for all strong steps.

    Images are centred on the mean of the training images, and each is scaled to the squared norm ``image_power``.
    """
    found = images(settings)
    assert found is not None
    smaller = min(int((found.labels == label).sum()) for label in (-1, 1))
    test = 2 * min(TEST_IMAGES // 2, smaller - settings.samples // 2)
    train, held_out = balanced_split(found.labels, settings.samples, test, [settings.seed, 3, member])
    rng = np.random.default_rng([settings.seed, 4, member])
    centre = found.inputs[train].mean(axis=0)

    def patches(chosen: np.ndarray, strong: np.ndarray) -> PatchData:
        centred = found.inputs[chosen] - centre
        norms = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), np.finfo(float).tiny)
        return PatchData(
            found.labels[chosen].astype(np.float64), strong, np.sqrt(settings.image_power) * centred / norms
        )

    data = patches(train, rng.random(train.size) < settings.strong_share)
    start = gaussian_start(
        rng, settings.width, settings.start_scale, settings.weak_norm, settings.strong_norm, found.inputs.shape[1]
    )
    return data, start, patches(held_out, np.zeros(held_out.size, bool))


def _accuracies(settings: Settings, member: int, weak: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Accuracies ``(3, t)`` in the order of :data:`SHOWN`; the last is the share that follows the weak feature."""
    data, start, test = draw_images(settings, member)
    found = np.full((len(SHOWN), len(weak)), np.nan)
    finite = np.isfinite(background).all(axis=(1, 2))
    coefficients = background_coefficients(start, data, background[finite])
    responses = image_responses(start, data, coefficients, test.backgrounds)
    seen = weak[finite].astype(np.float64)
    found[0, finite] = class_accuracy(seen, responses, test.labels)
    found[1, finite] = class_accuracy(0 * seen, responses, test.labels)
    found[2, finite] = class_accuracy(seen, responses, -test.labels)
    return found


def _finish(
    settings: Settings, steps: np.ndarray, records: dict[str, np.ndarray], diverged: np.ndarray, first: int
) -> xr.Dataset:
    dataset = course_dataset(records, diverged, first, steps)
    tested = slice(0, None, BETWEEN_TESTS)
    found = np.stack(
        [
            _accuracies(
                settings, first + k, records["weak_units"][tested, :, k],
                records["background_units"][tested, :, :, k].astype(np.float64),
            )
            for k in range(diverged.size)
        ]
    )  # fmt: skip
    dataset["image_accuracy"] = (("member", "shown", "test_time"), found)
    return dataset.assign_coords(
        shown=list(SHOWN), test_time=("test_time", steps[tested], {"unit": "SGD steps"})
    )  # fmt: skip


def image_experiment(settings: Settings, found: TwoClassData, index: int, step: float) -> Experiment:
    """Networks on images at one strong step."""

    def state(start: int, stop: int) -> State:
        members = [draw_images(settings, member) for member in range(start, stop)]
        return network_state([data for data, _, _ in members], [one for _, one, _ in members], settings.dtype)

    arm = Arm(settings.task, step, settings.duration(step))
    grid = record_steps(arm.steps)
    n, units, pixels = settings.samples, 2 * settings.width, found.inputs.shape[1]
    tests = RECORDS // BETWEEN_TESTS
    return Experiment(
        f"images_step{index}",
        Launch(
            PatchSGD(n), observe, state, settings.seed, "image visits", partial(arguments, settings, arm), grid,
            partial(_finish, settings, grid),
        ),
        members=settings.runs,
        bytes_per_member=8 * (3 * RECORDS * (units * n + 20) + 4 * n * n + 3 * (n + units + TEST_IMAGES) * pixels
                              + 3 * tests * units * TEST_IMAGES),
        seconds=0.6 + settings.runs * (arm.steps * (2e-8 + 5e-10 * units * n) + 2e-3 + 1e-9 * n * TEST_IMAGES * pixels),
        control=len(settings.small) > 1 and step == settings.small[0],
    )  # fmt: skip


def image_experiments(settings: Settings) -> Iterator[Experiment]:
    """Every strong step with images; none without data."""
    found = images(settings)
    if found is not None:
        for index, step in enumerate(image_steps(settings)):
            yield image_experiment(settings, found, index, step)


def image_gain(settings: Settings, results: Results, shown: str, small_only: bool = False) -> list[Measurement]:
    """Gain of test accuracy from the largest small step to the large one, on the same images and starts.

    With ``small_only``, from the smallest to the largest small step.
    """
    steps, accepted = image_steps(settings), (GAIN[shown], np.inf)
    label = f"{shown.replace('_', ' ')}: gain of accuracy"
    if not settings.large or len(settings.small) < 2:
        return [Measurement.missing(label, accepted, "strong_steps needs two small values and a large one")]
    high, low = (1, 0) if small_only else (2, 1)
    ends = [results[f"images_step{index}"]["image_accuracy"].sel(shown=shown).values[:, -1] for index in (high, low)]
    gain = ends[0] - ends[1]
    finite = gain[np.isfinite(gain)]
    excluded = 1 - finite.size / gain.size
    if finite.size < 2:
        return [Measurement.missing(label, accepted, "almost all runs diverged", excluded)]
    estimate, interval = mean_interval(finite, confidence=bonferroni(1))
    note = f"from {np.nanmean(ends[1]):.3f} at step {steps[low]:g} to {np.nanmean(ends[0]):.3f} at step {steps[high]:g}"
    return [Measurement(label, estimate, interval, accepted, excluded, finite.size, note=note)]
