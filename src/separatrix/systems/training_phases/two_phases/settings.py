"""Settings of the study `entk-two-phases`, their checks, and the data and networks they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from separatrix.datasets.multiclass import NAMES, ClassSplit, load_classes, source_files, split_classes
from separatrix.lab import SettingError, setting
from separatrix.networks.cnn import CNN
from separatrix.networks.mlp import MLP
from separatrix.systems.training_phases.training import Network

#: Steps of the runs that only controls need, as a share of those of the others.
CONTROL_SHARE = 3
#: Checkpoints of a run at most: every pair of them has a distance.
MOST_CHECKPOINTS = 200


@dataclass(frozen=True)
class Settings:
    """Every experiment of the study is a function of these values."""

    seed: int = setting(0, "seed of everything random", low=0, high=2**31)
    data: str = setting("digits", "digits, fashion-mnist, or a FILE.npz with arrays x and y (class numbers)")
    samples: int = setting(10_000, "samples of the data set to use at most, for training and testing", low=20)
    test_share: float = setting(
        0.5, "share of the samples to test on", low=0, low_open=True, high=1, high_open=True
    )  # fmt: skip
    network: Literal["mlp", "cnn"] = setting("mlp", "what is trained: a perceptron or a convolutional network")
    hidden_widths: tuple[int, ...] = setting((64, 64, 64, 64), "hidden layers of the perceptron", low=1, high=10**5)
    channels: tuple[int, ...] = setting((16, 32, 32), "channels of the convolutional network", low=1, high=10**4)
    activation: Literal["gelu", "relu", "tanh"] = setting("gelu", "activation of the hidden layers")
    learning_rate: float = setting(0.05, "learning rate of SGD", low=0, low_open=True, high=100)
    momentum: float = setting(0.9, "momentum of SGD", low=0, high=1, high_open=True)
    weight_decay: float = setting(1e-4, "weight decay", low=0, high=1)
    batch_size: int = setting(64, "samples of a batch", low=1)
    steps: int = setting(1200, "steps of training", low=20, high=10**8)
    checkpoint_every: int = setting(25, "steps between two kernels", low=1)
    examples: int = setting(64, "training examples of the kernel, an even number", low=4, high=4096)
    runs: int = setting(6, "training runs, each with its own start and order of batches", low=3, high=10**4)
    switches: tuple[int, ...] = setting(
        (0, 20, 50, 100, 200, 400), "steps at which training goes on linearised, increasing from 0", low=0
    )  # fmt: skip
    lazy_width: int = setting(512, "hidden units of the lazy control, in NTK parametrisation", low=1, high=10**6)
    lazy_learning_rate: float = setting(1.0, "learning rate of the lazy control", low=0, low_open=True, high=1e4)
    chaotic_factor: float = setting(
        2.0, "learning rate of the chaotic control over that of the others", low=1, high=1e4
    )  # fmt: skip
    dtype: Literal["float32", "float64"] = setting("float32", "floating-point type of training and of kernels")

    @property
    def grid(self) -> list[int]:
        """Steps at which kernels are taken."""
        return list(range(0, self.steps + 1, self.checkpoint_every))

    @property
    def control_grid(self) -> list[int]:
        """The same for the runs that only controls need."""
        return list(range(0, self.steps // CONTROL_SHARE + 1, self.checkpoint_every))


@dataclass(frozen=True, eq=False)
class Problem:
    """Training and test samples, and the size of what is trained on them.

    Attributes
    ----------
    split
        Inputs with mean 0 and variance 1 over the training set, and classes.
    classes
        C.
    image_shape
        Of an input; None where it is no image.
    """

    split: ClassSplit
    classes: int
    image_shape: tuple[int, ...] | None


def problem(settings: Settings) -> Problem:
    """The data of the settings, read once.

    Raises
    ------
    SettingError
        If they cannot be read or used: one sentence.
    """
    return _read(settings.data, settings.test_share, settings.seed, settings.samples)


@cache
def _read(source: str, test_share: float, seed: int, most: int) -> Problem:
    if source not in NAMES and not source.endswith(".npz"):
        raise SettingError(
            f"data = {source!r} is not allowed: it must be {', '.join(NAMES)}, or a FILE.npz with arrays x and y."
        )
    try:
        data = load_classes(source)
        return Problem(split_classes(data, test_share, seed, most), data.classes, data.image_shape)
    except (ValueError, OSError, ImportError) as error:
        raise SettingError(f"data = {source!r} cannot be used: {str(error).rstrip('.')}.") from None


def input_files(settings: Settings) -> Sequence[Path]:
    """Files whose content is the data."""
    return source_files(settings.data)


def network(settings: Settings) -> Network:
    """What is trained."""
    data = problem(settings)
    if settings.network == "cnn":
        assert data.image_shape is not None
        return CNN(data.image_shape, data.classes, settings.channels, settings.activation)
    inputs = data.split.inputs.shape[1]
    return MLP((inputs, *settings.hidden_widths, data.classes), settings.activation)


def lazy_network(settings: Settings) -> Network:
    """The wide network whose kernel hardly moves: one hidden layer in NTK parametrisation."""
    data = problem(settings)
    widths = (data.split.inputs.shape[1], settings.lazy_width, data.classes)
    return MLP(widths, settings.activation, parametrisation="ntk")


def check(settings: Settings) -> Sequence[str]:
    """Refuse settings that contradict each other; warn where a claim cannot be tested.

    Raises
    ------
    SettingError
        One sentence naming the setting, the value and what is allowed.
    """
    switches = settings.switches
    if switches[0] != 0 or any(later <= earlier for earlier, later in pairwise(switches)) or len(switches) < 3:
        raise SettingError(f"switches = {switches} is not allowed: it must be three or more steps increasing from 0.")
    if switches[-1] >= settings.steps:
        raise SettingError(
            f"switches = {switches} is not allowed: the last must be less than steps = {settings.steps}."
        )
    if settings.examples % 2:
        raise SettingError(f"examples = {settings.examples} is not allowed: it must be an even number.")
    if len(settings.control_grid) < 6:
        raise SettingError(
            f"checkpoint_every = {settings.checkpoint_every} is not allowed: it must be at most "
            f"{settings.steps // CONTROL_SHARE // 5}, for six checkpoints in a third of the steps."
        )
    if len(settings.grid) > MOST_CHECKPOINTS:
        raise SettingError(
            f"checkpoint_every = {settings.checkpoint_every} is not allowed: it must be at least "
            f"{-(-settings.steps // (MOST_CHECKPOINTS - 1))}, for at most {MOST_CHECKPOINTS} checkpoints."
        )
    data = problem(settings)
    if settings.network == "cnn" and data.image_shape is None:
        raise SettingError("network = 'cnn' is not allowed: the inputs of the data are no images.")
    training = len(data.split.labels)
    for name in ("examples", "batch_size"):
        if getattr(settings, name) > training:
            raise SettingError(
                f"{name} = {getattr(settings, name)} is not allowed: it must be at most {training}, the number of "
                "training samples."
            )
    return []
