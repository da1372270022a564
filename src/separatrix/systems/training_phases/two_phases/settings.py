"""Settings of the study `entk-two-phases`, their checks, and the data and networks they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from separatrix.lab import SettingError, setting
from separatrix.networks.mlp import MLP
from separatrix.networks.scaled_difference import ScaledDifference
from separatrix.systems.training_phases.kernel_route import describe_kernel, sign_vectors
from separatrix.systems.training_phases.task import Task, TrainingSettings, check_task, load_task, make_network
from separatrix.systems.training_phases.training import Network

#: Steps of the runs that only controls need, as a share of those of the others.
CONTROL_SHARE = 3
#: Checkpoints of a run at most: every pair of them has a distance.
MOST_CHECKPOINTS = 200


@dataclass(frozen=True)
class Settings(TrainingSettings):
    """Every experiment of the study is a function of these values."""

    test_share: float = setting(
        0.5, "share of the samples to test on", low=0, low_open=True, high=1, high_open=True
    )  # fmt: skip
    steps: int = setting(1200, "steps of training", low=20, high=10**8)
    checkpoint_every: int = setting(25, "steps between two kernels", low=1)
    switches: tuple[int, ...] = setting(
        (0, 20, 50, 100, 200, 400), "steps at which training goes on linearised, increasing from 0", low=0
    )  # fmt: skip
    lazy_width: int = setting(512, "hidden units of the lazy control, in NTK parametrisation", low=1, high=10**6)
    lazy_scale: float = setting(
        300.0, "scale of the outputs of the lazy control of a transformer", low=0, low_open=True, high=1e6
    )  # fmt: skip
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


def problem(settings: Settings) -> Task:
    """The data of the settings, read once."""
    return load_task(settings)


def network(settings: Settings) -> Network:
    """What is trained."""
    return make_network(settings, problem(settings))


def kernel_vectors(settings: Settings) -> int:
    """Random vectors from which all kernels of the study are estimated; 0 if they are exact."""
    return sign_vectors(settings, problem(settings), network(settings), len(settings.grid))


def describe(settings: Settings) -> str:
    """The kernel in words, as figures and notes name it."""
    return describe_kernel(settings, problem(settings), network(settings), len(settings.grid))


def lazy_network(settings: Settings) -> Network:
    """A network whose kernel hardly moves: one wide hidden layer in NTK parametrisation, for text scaled outputs."""
    data = problem(settings)
    if settings.network == "transformer":
        return ScaledDifference(make_network(settings, data), settings.lazy_scale)
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
    check_task(settings, problem(settings))
    return []
