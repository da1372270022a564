"""Settings of the study `label-noise-two-stages`, their checks, and the image data set they name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Int

from separatrix.datasets.classification import NAMES, TwoClassData, load_two_classes, source_files
from separatrix.lab import SettingError, setting
from separatrix.systems.feature_learning.patch_network import time_per_step
from separatrix.systems.feature_learning.two_stage_theory import late_law, signal_strength, two_stages_exist

#: Stage I is looked for until then, on a grid of 0.04, in units of theta.
EARLY, EARLY_RECORDS, LATE_RECORDS = 2.0, 50, 40
#: Training counts as converged below this loss.
CONVERGED = 0.02


@dataclass(frozen=True)
class Settings:
    """Every experiment of the study is a function of these values."""

    seed: int = setting(0, "seed of everything random", low=0, high=2**53)
    data: str = setting("digits", "images: digits, fashion-mnist, a FILE.npz with arrays x and y, or none")
    negative_class: int | None = setting(None, "class number of the images labelled -1; none: the odd ones")
    positive_class: int | None = setting(None, "class number of the images labelled +1; none: the even ones")
    kappa: float = setting(8.0, "n SNR^2, SNR = |mu| / (sigma sqrt d), of the main network", low=0, low_open=True,
                           high=1e4)  # fmt: skip
    label_noise: float = setting(0.2, "share of flipped labels", low=0, high=0.5, high_open=True)
    negative_noise: float | None = setting(
        None, "share of flipped labels in the class -1 of the main network; none: the same as in the class +1", low=0,
        high=0.5, high_open=True,
    )  # fmt: skip
    strong_noise: float = setting(0.4, "share of flipped labels where overfitting is to be strong", low=0, high=0.5,
                                  low_open=True, high_open=True)  # fmt: skip
    samples: int = setting(100, "training samples n, an even number", low=4, high=10**5)
    dimension: int = setting(400, "dimension d of a patch", low=2, high=10**7)
    width: int = setting(10, "filters m per output", low=1, high=10**5)
    learning_rate: float = setting(0.1, "step size eta of the main network; all take steps of the same theta", low=0,
                                   low_open=True)  # fmt: skip
    start_scale: float = setting(1e-3, "standard deviation of the initial weights", low=0, low_open=True, high=10)
    duration: float = setting(100.0, "training time theta = step * learning_rate * d / (n m)", low=4, high=1e6)
    members: int = setting(48, "networks of each kind, each with data of its own", low=8, high=10**6)
    kappas: tuple[float, ...] = setting(
        (4.0, 8.0), "values of kappa of the grid for Stage I and selection", low=0, low_open=True, high=1e4
    )  # fmt: skip
    noises: tuple[float, ...] = setting(
        (0.2, 0.4), "shares of flipped labels of the grid", low=0, low_open=True, high=0.5, high_open=True
    )  # fmt: skip
    large_dimension: int = setting(1000, "dimension d of the grid", low=2, high=10**7)
    theory_kappa: float = setting(4.0, "kappa of the comparison with the reduced dynamics", low=0, low_open=True,
                                  high=1e4)  # fmt: skip
    theory_dimension: int = setting(6000, "dimension d of that comparison", low=2, high=10**7)
    theory_width: int = setting(20, "filters m per output of that comparison", low=2, high=10**5)
    theory_members: int = setting(24, "networks of that comparison", low=4, high=10**6)
    image_noise: float = setting(
        0.2, "share of flipped image labels; a FILE.npz with clean or y_clean keeps its own labels", low=0, high=0.5,
        low_open=True, high_open=True,
    )  # fmt: skip
    image_samples: int = setting(600, "images to train on, an even number", low=40, high=10**6)
    image_tests: int = setting(600, "images to test on, an even number", low=40, high=10**6)
    image_width: int = setting(100, "hidden units of the image classifier", low=1, high=10**6)
    image_rate: float = setting(1e-3, "learning rate of its Adam", low=0, low_open=True, high=1)
    image_steps: int = setting(600, "steps of its training, full batch", low=20, high=10**7)
    image_members: int = setting(10, "splits of the images, one classifier each", low=3, high=10**4)

    @property
    def rates(self) -> tuple[float, float]:
        """Shares of flipped labels of the main network in the classes +1 and -1."""
        return self.label_noise, self.label_noise if self.negative_noise is None else self.negative_noise

    @property
    def time_step(self) -> float:
        """What one step adds to theta, in every network of the study."""
        return time_per_step(self.learning_rate, self.samples, self.dimension, self.width)


def record_steps(duration: float, time_step: float) -> Int[np.ndarray, " t"]:
    """Steps to record at: theta = 0, 0.04, ..., 2, then evenly in the logarithm; fewer where steps are larger."""
    end = duration / time_step
    early = min(EARLY / time_step, end)
    steps = np.concatenate(
        [np.linspace(0, early, EARLY_RECORDS + 1), np.geomspace(max(early, 1), max(end, 1), LATE_RECORDS)]
    )
    return np.unique(steps.round().astype(np.int64))


def images(settings: Settings) -> TwoClassData | None:
    """The images of the settings; None without.

    Raises
    ------
    SettingError
        If they cannot be read or used: one sentence.
    """
    if settings.data == "none":
        return None
    return _read(settings.data, settings.negative_class, settings.positive_class)


@cache
def _read(source: str, negative: int | None, positive: int | None) -> TwoClassData:
    if source not in NAMES and not source.endswith(".npz"):
        raise SettingError(
            f"data = {source!r} is not allowed: it must be {', '.join(NAMES)}, a FILE.npz with arrays x and y, or none."
        )
    try:
        return load_two_classes(source, None if negative is None or positive is None else (negative, positive))
    except (ValueError, OSError, ImportError) as error:
        hint = ", or choose data = none" if isinstance(error, ImportError) else ""
        raise SettingError(f"data = {source!r} cannot be used: {str(error).rstrip('.')}{hint}.") from None


def input_files(settings: Settings) -> list[Path]:
    """Files whose content determines the run."""
    return source_files(settings.data)


def check(settings: Settings) -> Sequence[str]:
    """Refuse settings that contradict each other; warn where a claim cannot be tested.

    Raises
    ------
    SettingError
        One sentence naming the setting, the value and what is allowed.
    """
    for name in ("samples", "image_samples", "image_tests"):
        if getattr(settings, name) % 2:
            raise SettingError(f"{name} = {getattr(settings, name)} is not allowed: it must be an even number.")
    for name in ("kappas", "noises"):
        values = getattr(settings, name)
        if any(later <= earlier for earlier, later in pairwise(values)):
            raise SettingError(f"{name} = {values} is not allowed: the values must be strictly increasing.")
    half = settings.samples // 2
    for name, rate in _all_rates(settings):
        left = half - round(rate * half)
        if left < 4:
            raise SettingError(
                f"samples = {settings.samples} is not allowed: {name} = {rate:g} leaves {left} samples of a class with "
                "their label, and it must be at least 4."
            )
    if (settings.negative_class is None) != (settings.positive_class is None):
        raise SettingError(
            f"negative_class = {settings.negative_class} is not allowed with positive_class = "
            f"{settings.positive_class}: give both classes or none."
        )
    if settings.time_step * 2 > EARLY:
        raise SettingError(
            f"learning_rate = {settings.learning_rate:g} is not allowed: a step adds learning_rate * d / (n m) = "
            f"{settings.time_step:.3g} to theta, and it must be at most 1."
        )
    data = images(settings)
    if data is not None:
        _check_images(settings, data)
    return list(_warnings(settings))


def _all_rates(settings: Settings) -> Iterator[tuple[str, float]]:
    yield "label_noise", settings.label_noise
    if settings.negative_noise is not None:
        yield "negative_noise", settings.negative_noise
    yield "strong_noise", settings.strong_noise
    yield from (("noises", rate) for rate in settings.noises)


def _check_images(settings: Settings, data: TwoClassData) -> None:
    smaller = int(min(np.sum(data.labels == sign) for sign in (-1, 1)))
    wanted = settings.image_samples + settings.image_tests
    if wanted > 2 * smaller:
        raise SettingError(
            f"image_samples = {settings.image_samples} is not allowed: with image_tests = {settings.image_tests} it "
            f"needs {wanted // 2} images of each class, and the smaller class has {smaller}."
        )
    if data.true_labels is not None:
        known = int(min(np.sum((data.labels == sign) & (data.true_labels != 0)) for sign in (-1, 1)))
        if known < settings.image_tests // 2:
            raise SettingError(
                f"image_tests = {settings.image_tests} is not allowed: tests need known labels, and of the smaller "
                f"class there are {known}."
            )


def _warnings(settings: Settings) -> Iterator[str]:
    if settings.time_step > 0.5:
        yield (
            f"A step adds learning_rate * d / (n m) = {settings.time_step:.3g} to theta: the stages blur within one "
            "step above 0.5."
        )
    sizes = (settings.dimension, settings.large_dimension)
    if settings.start_scale * np.sqrt(max(sizes)) > 0.1:
        yield (
            f"The initial weights are large, start_scale * sqrt(d) = {settings.start_scale * np.sqrt(max(sizes)):.3g}: "
            "above 0.1 the theory of Stage I, which begins from zero, is off."
        )
    if any(round(rate * (settings.samples // 2)) == 0 for rate in settings.rates):
        yield "No label of a class is flipped in the main network: its share rounds to zero samples."
    for name, rate in (("label_noise", max(settings.rates)), ("strong_noise", settings.strong_noise)):
        if not two_stages_exist(settings.kappa, rate):
            yield (
                f"There is no Stage I at kappa = {settings.kappa:g} and {name} = {rate:g}, since kappa (1 - 2 tau) = "
                f"{signal_strength(settings.kappa, rate):.3g} is not above 1: what is measured at its end is missing."
            )
    if max(signal_strength(kappa, rate) for kappa in settings.kappas for rate in settings.noises) < 4:
        yield "Claims L2 and L3 speak of kappa (1 - 2 tau) of 4 and more: no cell of kappas and noises reaches that."
    end = max(late_law(k, rate).loss for k in settings.kappas for rate in settings.noises) / settings.duration
    if end > CONVERGED:
        yield (
            f"The duration is short for claim L4: at its end theory expects a loss of {end:.2g}, above {CONVERGED:g}."
        )
