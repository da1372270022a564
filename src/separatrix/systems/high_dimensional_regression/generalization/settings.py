"""Settings of the study `high-dim-generalization`, their checks, and the data set they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from separatrix.lab import SettingError, setting
from separatrix.systems.high_dimensional_regression.dataset_regression import DatasetProblem, dataset_problem
from separatrix.systems.high_dimensional_regression.learning_curves import largest_stable_step

#: A data set must hold this many times the samples of the largest training set, so that enough are left for testing.
HELD_OUT = 2


@dataclass(frozen=True)
class Settings:
    """Every experiment of the study is a function of these values."""

    seed: int = setting(0, "seed of everything random", low=0, high=2**53)
    data: str = setting(
        "gaussian", "gaussian, or beside it digits, fashion-mnist, or a FILE.npz with arrays x and y"
    )  # fmt: skip
    components: int = setting(40, "principal components of the inputs kept of a data set, N there", low=4, high=10**5)
    dimension: int = setting(200, "inputs, that is parameters, N of the linear student", low=20, high=10**5)
    ratios: tuple[float, ...] = setting(
        (0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0), "samples over parameters alpha = P/N, increasing, with 1 among them",
        low=0, low_open=True, high=100,
    )  # fmt: skip
    noise_ratios: tuple[float, ...] = setting(
        (0.2, 1.0), "variance of the label noise over that of a parameter of the teacher (INR)", low=0, low_open=True,
        high=1e6,
    )  # fmt: skip
    start_variances: tuple[float, ...] = setting(
        (0.0, 0.04, 0.25, 1.0), "variances of the student's parameters at the start, increasing", low=0, high=1e6
    )
    draws: int = setting(200, "data sets of each ratio", low=10, high=10**6)
    learning_rate: float = setting(0.1, "step of the explicit descent", low=0, low_open=True)
    feature_samples: int = setting(150, "samples P of the nonlinear tasks", low=10, high=10**5)
    feature_inputs: int = setting(20, "inputs N_i of the nonlinear tasks", low=1, high=10**4)
    teacher_width: int = setting(10, "hidden units of the nonlinear teacher", low=1, high=10**5)
    feature_noise: float = setting(
        0.5, "standard deviation of the label noise of the nonlinear tasks, over that of the labels", low=0,
        low_open=True, high=100,
    )  # fmt: skip
    feature_widths: tuple[int, ...] = setting(
        (15, 40, 75, 110, 150, 190, 300, 600, 1500), "numbers of random features N_h, increasing, with P among them",
        low=1, high=10**5,
    )  # fmt: skip
    feature_draws: int = setting(24, "random-feature data sets", low=6, high=10**6)
    trained_widths: tuple[int, ...] = setting(
        (3, 8, 20, 60, 200), "hidden units of the students trained in both layers, increasing", low=1, high=10**5
    )
    trained_draws: int = setting(24, "students of each width trained in both layers", low=4, high=10**6)
    trained_steps: int = setting(6000, "steps of their training", low=100, high=10**8)
    trained_rate: float = setting(0.05, "learning rate of their training", low=0, low_open=True, high=10)
    depth: tuple[int, ...] = setting((1, 2, 3), "depths of the deep linear students", unit="layers", low=1, high=16)
    deep_draws: int = setting(12, "deep linear students of each depth", low=4, high=10**6)
    dtype: Literal["float32", "float64"] = setting(
        "float32", "floating-point type of the students trained in both layers"
    )

    def samples(self, ratio: float) -> int:
        """P at this ratio."""
        return round(ratio * self.dimension)


def problem(settings: Settings) -> DatasetProblem | None:
    """The data set of the settings in the units of the theory; None for Gaussian data alone.

    Raises
    ------
    SettingError
        If it cannot be read or used: one sentence.
    """
    return None if settings.data == "gaussian" else _read(settings.data, settings.components)


@cache
def _read(source: str, components: int) -> DatasetProblem:
    from separatrix.datasets.regression import NAMES, load_regression

    if source not in NAMES and not source.endswith(".npz"):
        raise SettingError(
            f"data = {source!r} is not allowed: it must be gaussian, {', '.join(NAMES)}, or a FILE.npz with arrays x "
            "and y."
        )
    try:
        data = load_regression(source)
        return dataset_problem(data.inputs, data.outputs, components)
    except (ValueError, OSError, ImportError) as error:
        raise SettingError(f"data = {source!r} cannot be used: {str(error).rstrip('.')}.") from None


def check(settings: Settings) -> Sequence[str]:
    """Refuse settings that contradict each other; warn where a claim cannot be tested.

    Raises
    ------
    SettingError
        One sentence naming the setting, the value and what is allowed.
    """
    for name in ("ratios", "start_variances", "feature_widths", "trained_widths", "depth", "noise_ratios"):
        values = getattr(settings, name)
        if any(later <= earlier for earlier, later in pairwise(values)):
            raise SettingError(f"{name} = {values} is not allowed: the values must be strictly increasing.")
    for name in ("ratios", "start_variances", "feature_widths", "trained_widths"):
        values = getattr(settings, name)
        if len(values) < 2:
            raise SettingError(f"{name} = {values} is not allowed: it must be at least two values.")
    if 1.0 not in settings.ratios or settings.ratios[0] >= 1 or settings.ratios[-1] <= 1:
        raise SettingError(
            f"ratios = {settings.ratios} is not allowed: 1 must be among the values, with smaller and larger ones."
        )
    if settings.feature_samples not in settings.feature_widths[1:-1]:
        raise SettingError(
            f"feature_widths = {settings.feature_widths} is not allowed: feature_samples = {settings.feature_samples} "
            "must be among the values, with smaller and larger ones."
        )
    sizes = [settings.samples(ratio) for ratio in settings.ratios]
    if sizes[0] < 4:
        raise SettingError(
            f"ratios = {settings.ratios} is not allowed: the smallest must give at least 4 samples, that is be at "
            f"least {4 / settings.dimension:g}."
        )
    limit = largest_stable_step(descent_ratio(settings))
    if settings.learning_rate >= limit:
        raise SettingError(
            f"learning_rate = {settings.learning_rate:g} is not allowed: descent diverges from 2 / (1 + sqrt(alpha))^2 "
            f"= {limit:.4g} on, at alpha = {descent_ratio(settings):g}."
        )
    data = problem(settings)
    if data is not None:
        _check_size(settings, data)
    return list(_warnings(settings))


def _check_size(settings: Settings, data: DatasetProblem) -> None:
    largest = round(settings.ratios[-1] * settings.components)
    if round(settings.ratios[0] * settings.components) < 2:
        raise SettingError(
            f"components = {settings.components} is not allowed: the smallest of ratios must give at least 2 samples."
        )
    if HELD_OUT * largest > data.inputs.shape[0]:
        raise SettingError(
            f"components = {settings.components} is not allowed: training sets of up to {largest} samples, the largest "
            f"of ratios times components, need {HELD_OUT * largest} samples, and the data have {data.inputs.shape[0]}."
        )


def _warnings(settings: Settings):
    if settings.ratios[0] > 0.3 or settings.noise_ratios[0] > 0.25:
        yield (
            "Claim B3 speaks of many more parameters than samples and of weak noise: the smallest of ratios should be "
            "at most 0.3 and the smallest of noise_ratios at most 0.25."
        )
    halved = settings.feature_samples / 2
    between = [width for width in settings.feature_widths if halved < width < settings.feature_samples]
    if not any(1 < ratio < 2 for ratio in settings.ratios) and not between:
        yield (
            "The grids are too coarse for the control of claim B2: ratios should have a value between 1 and 2, or "
            "feature_widths one between half of feature_samples and feature_samples."
        )
    if settings.start_variances[-1] < 0.5:
        yield "The largest of start_variances is small: the slope of claim B4 will be measured poorly."


def descent_ratio(settings: Settings) -> float:
    """The ratio at which descent runs step by step: the one below 1 nearest to 1/2, so that directions are frozen."""
    return min((ratio for ratio in settings.ratios if ratio < 1), key=lambda ratio: abs(ratio - 0.5))


def input_files(settings: Settings) -> list[Path]:
    """Files whose content determines the run."""
    from separatrix.datasets.regression import source_files

    return [] if settings.data == "gaussian" else source_files(settings.data)
