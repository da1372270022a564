"""Training and test sets of the study's networks: the depleted-sign task, or images of two classes."""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from separatrix.systems.feature_learning.depleted_sign_task import depleted_samples

if TYPE_CHECKING:
    from separatrix.datasets.classification import TwoClassData
    from separatrix.systems.feature_learning.noise_regimes.settings import Settings

Arrays = dict[str, np.ndarray]


class TaskError(ValueError):
    """The data of the settings cannot be used: one sentence."""


@lru_cache(maxsize=2)
def _read(source: str) -> "TwoClassData":
    from separatrix.datasets.classification import NAMES, load_two_classes

    if source not in NAMES and not source.endswith(".npz"):
        raise TaskError(f"it must be sign, {', '.join(NAMES)}, or a FILE.npz with arrays x and y")
    try:
        data = load_two_classes(source)
    except (ValueError, OSError, ImportError) as error:
        raise TaskError(str(error)) from None
    if not np.any(data.inputs):
        raise TaskError("all its inputs are zero")
    return data


def image_shape(settings: "Settings") -> tuple[int, int] | None:
    """Height and width of the data of the phase diagram, None where they are no images."""
    return None if settings.data == "sign" else _read(settings.data).image_shape


def largest_training_set(settings: "Settings") -> int | None:
    """Samples that a balanced training set can have beside the test set; None where there is no bound.

    Raises
    ------
    TaskError
        If the data cannot be read.
    """
    if settings.data == "sign":
        return None
    labels = _read(settings.data).labels
    return 2 * max(int(min(np.sum(labels < 0), np.sum(labels > 0))) - settings.test_samples // 2, 0)


def sign_sets(seed: int, stream: int, sets: int, samples: int, test: int, dimension: int, chi: float) -> Arrays:
    """Independent training and test sets of the depleted-sign task, as :class:`HingeTraining` takes them."""
    drawn = [
        depleted_samples(np.random.default_rng([seed, stream, samples, one]), samples + test, dimension, chi)
        for one in range(sets)
    ]
    first = np.arange(sets)[:, None] * (samples + test)
    return {
        "inputs": np.concatenate([x for x, _ in drawn]).astype(np.float32),
        "labels": np.concatenate([y for _, y in drawn]).astype(np.float32),
        "rows": (first + np.arange(samples)).astype(np.int32),
        "test_rows": (first + samples + np.arange(test)).astype(np.int32),
    }


def phase_sets(settings: "Settings", stream: int, sets: int) -> Arrays:
    """Training and test sets of the phase diagram's data.

    Images are scaled as a whole so that a pixel has a mean square of one, and split at random for each set.
    """
    if settings.data == "sign":
        return sign_sets(settings.seed, stream, sets, settings.network_samples, settings.test_samples,
                         settings.network_dimension, settings.chi)  # fmt: skip
    from separatrix.datasets.classification import balanced_split

    data = _read(settings.data)
    splits = [
        balanced_split(data.labels, settings.network_samples, settings.test_samples, [settings.seed, stream, one])
        for one in range(sets)
    ]
    return {
        "inputs": (data.inputs / np.sqrt(np.mean(data.inputs**2))).astype(np.float32),
        "labels": data.labels.astype(np.float32),
        "rows": np.stack([train for train, _ in splits]).astype(np.int32),
        "test_rows": np.stack([test for _, test in splits]).astype(np.int32),
    }


def perceptron_sets(seed: int, stream: int, sets: int, samples: int, dimension: int, chi: float) -> Arrays:
    """Independent training sets as :class:`StoppedPerceptron` takes them: ``y x / sqrt(d)``."""
    drawn = (
        depleted_samples(np.random.default_rng([seed, stream, samples, one]), samples, dimension, chi)
        for one in range(sets)
    )
    return {"samples": np.stack([(y[:, None] * x / np.sqrt(dimension)).astype(np.float32) for x, y in drawn])}


def once(make: Callable[[], Arrays]) -> Callable[[], Arrays]:
    """``make``, called at most once: the parts of an experiment share their data."""
    return lru_cache(maxsize=1)(make)
