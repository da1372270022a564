"""Settings of the study `saddle-to-saddle-sgd`, their checks, and the task (Gaussian or real data) they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from separatrix.lab import SettingError, setting
from separatrix.systems.deep_linear.collapse import collapse_noise_scale
from separatrix.systems.deep_linear.data_setting import data_files, whitened_data
from separatrix.systems.deep_linear.diffusion_peak import critical_label_noise
from separatrix.systems.deep_linear.gradient_noise import batch_factor

if TYPE_CHECKING:
    from separatrix.systems.deep_linear.whitened_task import WhitenedTask


@dataclass(frozen=True)
class Settings:
    """Every experiment of the study is a function of these values."""

    seed: int = setting(0, "seed of everything random", low=0, high=2**53)
    data: str = setting(
        "gaussian", "gaussian (online samples), digits, fashion-mnist, or a FILE.npz with arrays x and y"
    )
    components: int = setting(16, "principal components of the inputs kept of a data set", low=1)
    modes: int = setting(4, "leading modes of a data set to follow", low=1)
    replacement: bool = setting(True, "draw the batches of a data set with replacement")
    singular_values: tuple[float, ...] = setting(
        (4.0, 3.0, 2.0, 1.0), "teacher's singular values, decreasing (Gaussian data)", low=1e-6, high=1e6
    )
    depth: tuple[int, ...] = setting((2, 3, 4), "depths to study", unit="layers", low=2, high=32)
    hidden_width: int = setting(10, "width of the hidden layers of the random starts", low=1, high=4096)
    learning_rate: float = setting(0.002, "learning rate of SGD", low=0, low_open=True, high=10)
    batch_size: int = setting(1, "samples per step", low=1, high=65536)
    label_noise: float = setting(
        0.3, "standard deviation of the label noise (Gaussian data; a data set brings its own)", low=0
    )
    initial_strength: float = setting(
        0.01,
        "mode strength at the aligned start, in units of the smallest singular value",
        low=0,
        low_open=True,
        high=0.2,
    )
    init_exponent: float = setting(
        2.5, "random starts have variance width^-exponent; above 1 is the saddle-to-saddle regime", low=0, high=10
    )
    aligned_runs: int = setting(500, "runs from the aligned start", low=4, high=10**6)
    random_runs: int = setting(192, "runs from random starts", low=4, high=10**6)
    chain_runs: int = setting(100_000, "runs of the scalar chain", low=100, high=10**8)
    samples: int = setting(2_000_000, "samples of the gradient-covariance check", low=1000, high=10**10)
    scalar_label_noise: float = setting(
        0.6, "label noise over singular value in the stationary runs of the scalar chain", low=0, low_open=True
    )
    scalar_rates: tuple[float, ...] = setting(
        (0.04, 0.025, 0.015, 0.01),
        "learning rates times half the relaxation rate, stationary runs of the scalar chain (batch size 1), decreasing",
        low=0,
        low_open=True,
        high=0.5,
    )
    dtype: Literal["float64", "float32"] = setting("float64", "floating-point type of the full-matrix ensembles")

    @property
    def online(self) -> bool:
        """Whether the data are fresh Gaussian samples."""
        return self.data == "gaussian"


@dataclass(frozen=True)
class Task:
    """What is learned, in the teacher's frame, and the noise the scalar theory ascribes to it.

    Attributes
    ----------
    singular_values
        All diagonal entries of M, ``(min(d_0, d_L),)``; on a data set zero beyond the modes that are followed, so that
        every network wide enough for them can learn all of M.
    modes
        Number of leading modes that are followed.
    inputs, outputs
        ``d_0`` and ``d_L``.
    mode_label_noise
        ``(modes,)``: effective label noise of each mode in the noisy arm; on a data set the root mean square of the
        residual in the mode's output times its input.
    noise_scale_factor
        ``kappa / learning_rate``: the batch factor.
    data
        The whitened data set, or None for online Gaussian samples.
    """

    singular_values: Float[np.ndarray, " k"]
    modes: int
    inputs: int
    outputs: int
    mode_label_noise: Float[np.ndarray, " r"]
    noise_scale_factor: float
    data: "WhitenedTask | None"

    @property
    def followed(self) -> Float[np.ndarray, " r"]:
        """Singular values of the modes that are followed."""
        return self.singular_values[: self.modes]

    @property
    def clean_outputs(self) -> Float[np.ndarray, "N d_L"]:
        """What the teacher says about the inputs of the data set."""
        assert self.data is not None
        rank = self.singular_values.size
        taught = self.data.inputs[:, :rank] * self.singular_values
        return np.pad(taught, ((0, 0), (0, self.outputs - rank)))


def task(settings: Settings) -> Task:
    """The task that the settings name.

    Raises
    ------
    SettingError
        If the data cannot be read or whitened, or have too few modes: one sentence.
    """
    if settings.online:
        s = np.asarray(settings.singular_values)
        return Task(s, s.size, s.size, s.size, np.full(s.size, settings.label_noise),
                    batch_factor(settings.batch_size), None)  # fmt: skip
    data = whitened_data(settings.data, settings.components, settings.modes, "gaussian")
    samples, d_in = data.inputs.shape
    if not settings.replacement and settings.batch_size > samples:
        raise SettingError(
            f"batch_size = {settings.batch_size} is not allowed: without replacement it must be at most the {samples} "
            f"samples of the data."
        )
    factor = batch_factor(settings.batch_size, samples, settings.replacement)
    taught = np.where(np.arange(data.singular_values.size) < data.modes, data.singular_values, 0.0)
    # What moves a learned mode a is its residual times x_a.
    residual = data.outputs[:, : data.modes] - data.inputs[:, : data.modes] * taught[: data.modes]
    noise = np.sqrt(np.mean((residual * data.inputs[:, : data.modes]) ** 2, axis=0))
    return Task(taught, data.modes, d_in, data.outputs.shape[1], noise, factor, data)


def check(settings: Settings) -> Sequence[str]:
    """Refuse settings that contradict each other; warn where a claim cannot be tested.

    Raises
    ------
    SettingError
        One sentence naming the setting, the value and what is allowed.
    """
    s = settings.singular_values
    if any(later >= earlier for earlier, later in pairwise(s)):
        raise SettingError(f"singular_values = {s} is not allowed: they must be strictly decreasing, since equal ones have no modes of their own.")  # fmt: skip  # noqa: E501
    rates = settings.scalar_rates
    if len(rates) < 2 or any(later >= earlier for earlier, later in pairwise(rates)):
        raise SettingError(
            f"scalar_rates = {rates} is not allowed: it must be at least two values, strictly decreasing."
        )
    if 2 in settings.depth and rates[0] >= collapse_noise_scale(1.0, settings.scalar_label_noise):
        raise SettingError(
            f"scalar_label_noise = {settings.scalar_label_noise:g} is not allowed: at depth 2 and the largest of "
            f"scalar_rates, {rates[0]:g}, it must be weak enough that the mode does not collapse."
        )
    if len(set(settings.depth)) != len(settings.depth):
        raise SettingError(f"depth = {settings.depth} is not allowed: each depth must appear once.")
    problem = task(settings)
    if settings.hidden_width < problem.modes:
        raise SettingError(
            f"hidden_width = {settings.hidden_width} is not allowed: it must be at least the {problem.modes} modes."
        )
    return list(_warnings(settings, problem))


def _warnings(settings: Settings, problem: Task):
    noise_scale = settings.learning_rate * problem.noise_scale_factor
    dimension = problem.inputs + 1
    for depth in settings.depth:
        rate = depth * problem.followed[0] ** (2 - 2 / depth)
        step = settings.learning_rate * rate * (1 + dimension * problem.noise_scale_factor)
        if step >= 2:
            yield (
                f"At depth {depth} SGD is unstable: learning_rate * lambda * (1 + (d_0 + 1) / B) = {step:.3g}, "
                "stable below 2; expect divergence."
            )
        elif noise_scale * rate >= 0.5:
            yield (
                f"At depth {depth} the temperature means nothing: noise scale * lambda = {noise_scale * rate:.3g}, "
                "small means far below 0.5."
            )
        ratio = np.max(problem.mode_label_noise / problem.followed)
        if ratio > critical_label_noise(depth):
            yield (
                f"At depth {depth} the label noise is above critical for some mode (sigma/s up to {ratio:.3g}, "
                f"critical {critical_label_noise(depth):.3g}): there the diffusion has no peak to test."
            )
    if problem.inputs != problem.outputs:
        yield (
            "Inputs and outputs differ in number: label noise moves the layers away from balance "
            f"(d_0 = {problem.inputs}, d_L = {problem.outputs})."
        )


def input_files(settings: Settings) -> list[Path]:
    """Files whose content determines the run."""
    return [] if settings.online else data_files(settings.data)
