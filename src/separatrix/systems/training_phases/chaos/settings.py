"""Settings of the study `chaos-and-cone`, their checks, and the data and networks they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from separatrix.lab import SettingError, setting
from separatrix.networks.activations import Activation
from separatrix.systems.training_phases.kernel_route import describe_kernel, sign_vectors
from separatrix.systems.training_phases.task import (
    Task,
    TrainingSettings,
    check_task,
    load_task,
    make_network,
)
from separatrix.systems.training_phases.training import Network

#: Checkpoints of a run at most: every pair of them has a distance.
MOST_CHECKPOINTS = 200


@dataclass(frozen=True)
class Settings(TrainingSettings):
    """Every experiment of the study is a function of these values."""

    label_noise: float = setting(0.0, "share of the training labels that are drawn anew at random", low=0, high=1)
    hidden_widths: tuple[int, ...] = setting((64,) * 6, "hidden layers of the perceptron", low=1, high=10**5)
    batch_norm: bool = setting(False, "normalise the hidden layers of the perceptron over the batch")
    steps: int = setting(800, "steps of training, T", low=20, high=10**8)
    spawn_steps: tuple[int, ...] = setting(
        (0, 50, 100, 150, 200, 300, 400, 600), "steps t0 at which copies are perturbed, increasing from 0", low=0
    )
    record_every: int = setting(50, "steps between two comparisons", low=1)
    sigma: float = setting(
        1e-6, "norm of the perturbation over that of the parameters", low=0, low_open=True, high=1
    )  # fmt: skip
    directions: int = setting(2, "random directions of each perturbation, beside the gradient's", low=1, high=100)
    examples: int = setting(32, "training examples of the tangent kernel, a multiple of four", low=4, high=4096)
    runs: int = setting(5, "training runs, each with its own start and order of batches", low=3, high=10**4)
    dtype: Literal["float64", "float32"] = setting("float64", "floating-point type of training")

    @property
    def records(self) -> list[int]:
        """Steps t1 at which copies are compared and kernels taken."""
        return list(range(0, self.steps + 1, self.record_every))


def problem(settings: Settings) -> Task:
    """The data of the settings, read once."""
    return load_task(settings, settings.label_noise)


def network(settings: Settings, activation: Activation | None = None) -> Network:
    """What is trained, perhaps with another activation."""
    return make_network(settings, problem(settings), activation, settings.batch_norm)


def kernel_vectors(settings: Settings) -> int:
    """Random vectors from which kernels are estimated; 0 if they are exact."""
    return sign_vectors(settings, problem(settings), network(settings), len(settings.records))


def describe(settings: Settings) -> str:
    """The kernel in words, as figures and notes name it."""
    return describe_kernel(settings, problem(settings), network(settings), len(settings.records))


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
    check_task(settings, problem(settings))
    if settings.network != "mlp" and settings.batch_norm:
        raise SettingError(f"batch_norm = True is not allowed with network = {settings.network!r}, only with 'mlp'.")
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
