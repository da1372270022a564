"""What is trained, and on what: the settings that studies of training share, the data and the network they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from separatrix.datasets.multiclass import NAMES, ClassSplit, load_classes, source_files, split_classes
from separatrix.lab import SettingError, setting
from separatrix.networks.activations import Activation
from separatrix.networks.cnn import CNN
from separatrix.networks.mlp import MLP
from separatrix.systems.training_phases.kernel_course import SUBSETS
from separatrix.systems.training_phases.training import Network


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of data, network and optimiser; a study adds its own and may declare other defaults."""

    seed: int = setting(0, "seed of everything random", low=0, high=2**31)
    data: str = setting("digits", "digits, fashion-mnist, or a FILE.npz with arrays x and y (class numbers)")
    samples: int = setting(10_000, "samples of the data set to use at most, for training and testing", low=20)
    test_share: float = setting(
        0.2, "share of the samples to test on", low=0, low_open=True, high=1, high_open=True
    )  # fmt: skip
    network: Literal["mlp", "cnn"] = setting("mlp", "what is trained: a perceptron or a convolutional network")
    hidden_widths: tuple[int, ...] = setting((64,) * 4, "hidden layers of the perceptron", low=1, high=10**5)
    channels: tuple[int, ...] = setting((16, 32, 32), "channels of the convolutional network", low=1, high=10**4)
    activation: Literal["gelu", "relu", "tanh"] = setting("gelu", "activation of the hidden layers")
    learning_rate: float = setting(0.05, "learning rate of SGD", low=0, low_open=True, high=100)
    momentum: float = setting(0.9, "momentum of SGD", low=0, high=1, high_open=True)
    weight_decay: float = setting(1e-4, "weight decay", low=0, high=1)
    batch_size: int = setting(64, "samples of a batch", low=1)
    examples: int = setting(64, "training examples of the tangent kernel, a multiple of four", low=4, high=4096)
    kernel: Literal["auto", "exact", "estimated"] = setting(
        "auto",
        "how tangent kernels are taken: exactly, or from products with random vectors, where exact ones cost more",
    )
    kernel_vectors: int = setting(32, "random sign vectors of an estimated kernel", low=2, high=4096)
    runs: int = setting(6, "training runs, each with its own start and order of batches", low=3, high=10**4)


@dataclass(frozen=True, eq=False)
class Task:
    """Training and test samples, and the size of what is trained on them.

    Attributes
    ----------
    split
        Inputs with mean 0 and variance 1 over the training set, and classes.
    labels
        ``(N,)``: training labels, with the label noise.
    classes
        C.
    image_shape
        Of an input; None where it is no image.
    """

    split: ClassSplit
    labels: np.ndarray
    classes: int
    image_shape: tuple[int, ...] | None


def load_task(settings: TrainingSettings, label_noise: float = 0.0) -> Task:
    """The data of the settings, read once.

    Parameters
    ----------
    settings
        Of the study.
    label_noise
        Share of the training labels that are drawn anew at random.

    Raises
    ------
    SettingError
        If they cannot be read or used: one sentence.
    """
    return _read(settings.data, settings.test_share, settings.seed, settings.samples, label_noise)


@cache
def _read(source: str, test_share: float, seed: int, most: int, label_noise: float) -> Task:
    if source not in NAMES and not source.endswith(".npz"):
        raise SettingError(
            f"data = {source!r} is not allowed: it must be {', '.join(NAMES)}, or a FILE.npz with arrays x and y."
        )
    try:
        data = load_classes(source)
        split = split_classes(data, test_share, seed, most)
    except (ValueError, OSError, ImportError) as error:
        raise SettingError(f"data = {source!r} cannot be used: {str(error).rstrip('.')}.") from None
    rng = np.random.default_rng([seed, 1])
    drawn = rng.integers(0, data.classes, split.labels.size)
    labels = np.where(rng.random(split.labels.size) < label_noise, drawn, split.labels)
    return Task(split, labels, data.classes, data.image_shape)


def input_files(settings: TrainingSettings) -> Sequence[Path]:
    """Files whose content is the data."""
    return source_files(settings.data)


def make_network(
    settings: TrainingSettings, task: Task, activation: Activation | None = None, batch_norm: bool = False
) -> Network:
    """What is trained, perhaps with another activation than that of the settings."""
    activation = activation or settings.activation
    if settings.network == "cnn":
        assert task.image_shape is not None
        return CNN(task.image_shape, task.classes, settings.channels, activation)
    widths = (task.split.inputs.shape[1], *settings.hidden_widths, task.classes)
    return MLP(widths, activation, batch_norm=batch_norm)


def check_task(settings: TrainingSettings, task: Task) -> None:
    """Refuse settings that do not fit the data.

    Raises
    ------
    SettingError
        One sentence naming the setting, the value and what is allowed.
    """
    if settings.examples % SUBSETS:
        raise SettingError(f"examples = {settings.examples} is not allowed: it must be a multiple of {SUBSETS}.")
    if settings.network == "cnn" and task.image_shape is None:
        raise SettingError("network = 'cnn' is not allowed: the inputs of the data are no images.")
    training = len(task.labels)
    for name in ("examples", "batch_size"):
        if getattr(settings, name) > training:
            raise SettingError(
                f"{name} = {getattr(settings, name)} is not allowed: it must be at most {training}, the number of "
                "training samples."
            )
