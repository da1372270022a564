"""Settings of the study `chaos-and-cone`, their checks, and the data and networks they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from separatrix.datasets.multiclass import NAMES, ClassSplit, load_classes, source_files, split_classes
from separatrix.lab import SettingError, setting
from separatrix.networks.cnn import CNN
from separatrix.networks.mlp import MLP
from separatrix.systems.training_phases.training import Network

#: Checkpoints of a run at most: every pair of them has a distance.
MOST_CHECKPOINTS = 200


@dataclass(frozen=True)
class Settings:
    """Every experiment of the study is a function of these values."""

    seed: int = setting(0, "seed of everything random", low=0, high=2**31)
    data: str = setting("digits", "digits, fashion-mnist, or a FILE.npz with arrays x and y (class numbers)")
    samples: int = setting(10_000, "samples of the data set to use at most, for training and testing", low=20)
    test_share: float = setting(
        0.2, "share of the samples to test on", low=0, low_open=True, high=1, high_open=True
    )  # fmt: skip
    label_noise: float = setting(0.0, "share of the training labels that are drawn anew at random", low=0, high=1)
    network: Literal["mlp", "cnn"] = setting("mlp", "what is trained: a perceptron or a convolutional network")
    hidden_widths: tuple[int, ...] = setting((64,) * 6, "hidden layers of the perceptron", low=1, high=10**5)
    channels: tuple[int, ...] = setting((16, 32, 32), "channels of the convolutional network", low=1, high=10**4)
    activation: Literal["gelu", "relu", "tanh"] = setting("gelu", "activation of the hidden layers")
    batch_norm: bool = setting(False, "normalise the hidden layers of the perceptron over the batch")
    learning_rate: float = setting(0.05, "learning rate of SGD", low=0, low_open=True, high=100)
    momentum: float = setting(0.9, "momentum of SGD", low=0, high=1, high_open=True)
    weight_decay: float = setting(1e-4, "weight decay", low=0, high=1)
    batch_size: int = setting(64, "samples of a batch", low=1)
    steps: int = setting(800, "steps of training, T", low=20, high=10**8)
    spawn_steps: tuple[int, ...] = setting(
        (0, 50, 100, 150, 200, 300, 400, 600), "steps t0 at which copies are perturbed, increasing from 0", low=0
    )
    record_every: int = setting(50, "steps between two comparisons", low=1)
    sigma: float = setting(
        1e-6, "norm of the perturbation over that of the parameters", low=0, low_open=True, high=1
    )  # fmt: skip
    directions: int = setting(2, "random directions of each perturbation, beside the gradient's", low=1, high=100)
    runs: int = setting(5, "training runs, each with its own start and order of batches", low=3, high=10**4)
    examples: int = setting(32, "training examples of the tangent kernel, an even number", low=4, high=4096)
    dtype: Literal["float64", "float32"] = setting("float64", "floating-point type of training")

    @property
    def records(self) -> list[int]:
        """Steps t1 at which copies are compared and kernels taken."""
        return list(range(0, self.steps + 1, self.record_every))


@dataclass(frozen=True, eq=False)
class Problem:
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


def problem(settings: Settings) -> Problem:
    """The data of the settings, read once.

    Raises
    ------
    SettingError
        If they cannot be read or used: one sentence.
    """
    return _read(settings.data, settings.test_share, settings.seed, settings.samples, settings.label_noise)


@cache
def _read(source: str, test_share: float, seed: int, most: int, label_noise: float) -> Problem:
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
    return Problem(split, labels, data.classes, data.image_shape)


def input_files(settings: Settings) -> Sequence[Path]:
    """Files whose content is the data."""
    return source_files(settings.data)


def network(settings: Settings, activation: Literal["gelu", "relu", "tanh"] | None = None) -> Network:
    """What is trained, perhaps with another activation."""
    data = problem(settings)
    activation = activation or settings.activation
    if settings.network == "cnn":
        assert data.image_shape is not None
        return CNN(data.image_shape, data.classes, settings.channels, activation)
    widths = (data.split.inputs.shape[1], *settings.hidden_widths, data.classes)
    return MLP(widths, activation, batch_norm=settings.batch_norm)


def check(settings: Settings) -> Sequence[str]:
    """Refuse settings that contradict each other; warn where a claim cannot be tested.

    Raises
    ------
    SettingError
        One sentence naming the setting, the value and what is allowed.
    """
    spawns = settings.spawn_steps
    if len(spawns) < 3 or spawns[0] != 0 or any(later <= earlier for earlier, later in pairwise(spawns)):
        raise SettingError(f"spawn_steps = {spawns} is not allowed: it must be three or more steps increasing from 0.")
    if settings.steps % settings.record_every or len(settings.records) < 6:
        raise SettingError(
            f"record_every = {settings.record_every} is not allowed: it must divide steps = {settings.steps} into at "
            "least five intervals."
        )
    if len(settings.records) > MOST_CHECKPOINTS:
        raise SettingError(
            f"record_every = {settings.record_every} is not allowed: it must be at least "
            f"{-(-settings.steps // (MOST_CHECKPOINTS - 1))}, for at most {MOST_CHECKPOINTS} checkpoints."
        )
    if spawns[-1] >= settings.steps:
        raise SettingError(
            f"spawn_steps = {spawns} is not allowed: the last must be less than steps = {settings.steps}."
        )
    if settings.examples % 2:
        raise SettingError(f"examples = {settings.examples} is not allowed: it must be an even number.")
    data = problem(settings)
    if settings.network == "cnn" and data.image_shape is None:
        raise SettingError("network = 'cnn' is not allowed: the inputs of the data are no images.")
    if settings.network == "cnn" and settings.batch_norm:
        raise SettingError("batch_norm = True is not allowed with network = 'cnn', only with 'mlp'.")
    training = len(data.labels)
    for name in ("examples", "batch_size"):
        if getattr(settings, name) > training:
            raise SettingError(
                f"{name} = {getattr(settings, name)} is not allowed: it must be at most {training}, the number of "
                "training samples."
            )
    least = 1e-7 if settings.dtype == "float32" else 1e-15
    if settings.sigma < least:
        raise SettingError(
            f"sigma = {settings.sigma:g} is not allowed: in {settings.dtype} it must be at least {least:g}, or the "
            "parameters are not changed."
        )
    return list(_warnings(settings))


def _warnings(settings: Settings):
    if settings.dtype == "float32":
        yield (
            "In float32 rounding is amplified like the perturbation: tangent and finite copies agree only where the "
            "perturbation is far above 1e-7."
        )
    if settings.activation == "relu":
        yield "Claim D10 is about smooth activations: with ReLU it is expected to fail."
    if settings.batch_norm:
        yield "With batch normalisation there is no tangent kernel of single examples: D8 and D9 stay undecided."
