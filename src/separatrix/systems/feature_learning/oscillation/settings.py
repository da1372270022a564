"""Settings of the study `benign-oscillation`, their checks, and the data set they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from separatrix.datasets.classification import NAMES, TwoClassData, load_two_classes, source_files
from separatrix.lab import SettingError, setting
from separatrix.systems.feature_learning.oscillation_map import STABILITY_LIMIT, SURVIVAL_LIMIT, learning_rate
from separatrix.systems.feature_learning.oscillation_window import OscillationWindow, oscillation_window
from separatrix.systems.feature_learning.two_feature_task import TwoFeatureTask

#: Strong steps up to the first are small ones, from the second on (up to the end of the window) large ones.
SMALL, LARGE = 0.8, 1.2
#: A fitted plain point's own background must be learned this many times faster than the weak feature (see O8).
MEMORISES = 2.0
#: Images held back for testing.
TEST_IMAGES = 500


@dataclass(frozen=True)
class Settings:
    """Every experiment of the study is a function of these values."""

    seed: int = setting(0, "seed of everything random", low=0, high=2**53)
    data: str = setting(
        "digits", "images for the experiment on real data: digits, fashion-mnist, a FILE.npz with arrays x and y of "
        "two classes, or none",
    )  # fmt: skip
    strong_steps: tuple[float, ...] = setting(
        (0.05, 0.2, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3), "effective steps 2 eta nv^2 / m of the strong feature, increasing",
        low=0, low_open=True, high=4,
    )  # fmt: skip
    weak_norm: float = setting(0.2, "norm nu of the weak feature, below that of the strong one", low=0, low_open=True)
    strong_norm: float = setting(1.0, "norm nv of the strong feature", low=0, low_open=True, high=1e6)
    strong_share: float = setting(0.9, "probability rho of the strong feature", low=0, low_open=True, high=1)
    noise_power: float = setting(0.4, "mean squared norm of the noise, sp^2 d", low=0, high=1e12)
    image_power: float = setting(
        0.2, "squared norm of each image, in the place of the noise", low=0, low_open=True, high=1e12
    )  # fmt: skip
    dimension: int = setting(400, "dimension d of a patch", low=3, high=10**6)
    samples: int = setting(40, "training points n", low=2, high=10**4)
    width: int = setting(10, "units m of each output sign", low=1, high=10**4)
    start_scale: float = setting(0.05, "standard deviation of a weight at the start", low=0, low_open=True, high=1e6)
    steps: int = setting(
        4000, "SGD steps at strong steps from 1 on; a smaller strong step s gets steps / s", low=200, high=10**8
    )
    most_steps: int = setting(30_000, "SGD steps at most", low=200, high=10**9)
    oscillation: float = setting(
        0.1, "delta: a visit oscillates if |residual| is at least this", low=0, low_open=True, high=1
    )  # fmt: skip
    runs: int = setting(32, "networks of each strong step", low=4, high=10**6)
    map_visits: int = setting(20_000, "visits of the two-feature map", low=2000, high=10**8)
    map_points: int = setting(48, "steps, and feature ratios, of the phase map", low=4, high=2000)
    dtype: Literal["float32", "float64"] = setting(
        "float32", "floating-point type of the networks; the map has float64"
    )

    @property
    def task(self) -> TwoFeatureTask:
        """The task with Gaussian noise."""
        return TwoFeatureTask(
            self.dimension, self.samples, self.weak_norm, self.strong_norm, self.strong_share, self.noise_power
        )

    @property
    def small(self) -> tuple[float, ...]:
        """Strong steps with which training is smooth."""
        return tuple(step for step in self.strong_steps if step <= SMALL)

    @property
    def large(self) -> tuple[float, ...]:
        """Strong steps well inside the window."""
        return tuple(step for step in self.strong_steps if LARGE <= step < SURVIVAL_LIMIT)

    @property
    def oscillating(self) -> tuple[float, ...]:
        """Strong steps beyond the limit of stability, inside the window."""
        return tuple(step for step in self.strong_steps if STABILITY_LIMIT * 1.05 <= step < SURVIVAL_LIMIT)

    def duration(self, step: float) -> int:
        """SGD steps at this strong step."""
        return min(round(self.steps * max(1.0, 1.0 / step)), self.most_steps)

    def window(self, step: float) -> OscillationWindow:
        """Diagnosis of a strong step for these features, noise and duration."""
        return oscillation_window(
            float(learning_rate(step, self.strong_norm, self.width)), strong_norm=self.strong_norm,
            weak_norm=self.weak_norm, width=self.width, noise_power=self.noise_power, start_scale=self.start_scale,
            horizon=self.duration(step) * self.strong_share / 2,
        )  # fmt: skip


def images(settings: Settings) -> TwoClassData | None:
    """The images of the settings; None if there are to be none.

    Raises
    ------
    SettingError
        If they cannot be read: one sentence.
    """
    return None if settings.data == "none" else _read(settings.data)


@cache
def _read(source: str) -> TwoClassData:
    if source not in NAMES and not source.endswith(".npz"):
        raise SettingError(
            f"data = {source!r} is not allowed: it must be none, {', '.join(NAMES)}, or a FILE.npz with arrays x and y."
        )
    try:
        return load_two_classes(source)
    except (ValueError, OSError, ImportError) as error:
        raise SettingError(f"data = {source!r} cannot be used: {str(error).rstrip('.')}.") from None


def check(settings: Settings) -> Sequence[str]:
    """Refuse settings that contradict each other; warn where a claim cannot be tested.

    Raises
    ------
    SettingError
        One sentence naming the setting, the value and what is allowed.
    """
    if any(later <= earlier for earlier, later in pairwise(settings.strong_steps)):
        raise SettingError(
            f"strong_steps = {settings.strong_steps} is not allowed: the values must be strictly increasing."
        )
    if settings.weak_norm >= settings.strong_norm:
        raise SettingError(
            f"weak_norm = {settings.weak_norm:g} is not allowed: it must be less than strong_norm = "
            f"{settings.strong_norm:g}, otherwise the features change their roles."
        )
    if settings.most_steps < settings.steps:
        raise SettingError(
            f"most_steps = {settings.most_steps} is not allowed: it must be at least steps = {settings.steps}."
        )
    data = images(settings)
    if data is not None:
        held_back = min(int((data.labels == label).sum()) for label in (-1, 1)) - -(-settings.samples // 2)
        if settings.samples % 2:
            raise SettingError(
                f"samples = {settings.samples} is not allowed: with images it must be even, half of each class."
            )
        if held_back < 1:
            raise SettingError(
                f"samples = {settings.samples} is not allowed: it must leave images of each class for testing, and "
                f"{settings.data} has {held_back + settings.samples // 2} of one class."
            )
    return list(_warnings(settings))


def _warnings(settings: Settings):
    for step in settings.strong_steps:
        found = settings.window(step)
        if step >= LARGE and not found.useful:
            yield f"strong_steps = {step:g}, {found.regime}: {found.reason[0].lower()}{found.reason[1:]}"
    if settings.task.memorisation_over_learning < MEMORISES:
        yield (
            f"noise_power is only {settings.task.memorisation_over_learning:.3g} times samples (1 - strong_share) "
            "weak_norm^2: points without the strong feature teach the weak one at any step."
        )
    missing = [name for name, steps in ((f"at most {SMALL:g}", settings.small), (f"from {LARGE:g} on", settings.large))
               if not steps]  # fmt: skip
    if missing:
        yield f"strong_steps has no value {' and none '.join(missing)}: claims that compare the two stay undecided."


def input_files(settings: Settings) -> list[Path]:
    """Files whose content determines the run."""
    return [] if settings.data == "none" else source_files(settings.data)
