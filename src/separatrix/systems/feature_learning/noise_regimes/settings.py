"""Settings of the study `sgd-noise-regimes` and their checks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from separatrix.lab import SettingError, setting
from separatrix.systems.feature_learning.noise_regimes.data import TaskError, image_shape, largest_training_set
from separatrix.systems.feature_learning.perceptron_theory import crossover_temperature, stopping_time


@dataclass(frozen=True)
class Settings:
    """Every experiment of the study is a function of these values."""

    seed: int = setting(0, "seed of everything random", low=0, high=2**53)
    chi: float = setting(
        1.0, "exponent of the depletion of data at the boundary (0: Gaussian)", low=-1, low_open=True, high=20
    )
    dimension: int = setting(32, "inputs d of the perceptron", low=4, high=4096)
    large_dimension: int = setting(128, "inputs of the perceptron in the check of large d", low=4, high=10**6)
    batch_size: int = setting(4, "samples per step of the perceptron, B", low=1, high=4096)
    temperature_over_margin: float = setting(
        100.0, "temperature T of the perceptron in the noisy regime, in units of the margin", low=1, high=1e4
    )
    online_steps: int = setting(40_000, "steps of the perceptron on fresh samples", low=1000, high=10**8)
    online_runs: int = setting(1000, "perceptrons on fresh samples", low=10, high=10**6)
    samples: tuple[int, ...] = setting(
        (1024, 2048, 4096, 8192, 16384), "training samples P of the perceptron, increasing", low=2, high=2**23
    )
    gaussian_samples: tuple[int, ...] = setting(
        (512, 1024, 2048), "the same on Gaussian data, chi = 0, increasing", low=2, high=2**23
    )
    depleted_samples: tuple[int, ...] = setting(
        (1024, 2048, 4096, 8192, 16384), "the same on strongly depleted data, chi = 3, increasing", low=2, high=2**23
    )
    stopped_runs: int = setting(
        24, "perceptrons at each P and at each temperature (half at other densities)", low=4, high=10**6
    )
    crossover_samples: int = setting(512, "training samples of the perceptron in the sweep of T", low=2, high=2**23)
    crossover_dimension: int = setting(64, "inputs of the perceptron in the sweep of T", low=4, high=4096)
    temperatures: tuple[float, ...] = setting(
        (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
        "temperatures in units of 1/alpha (the perceptron's margin), increasing", low=0, low_open=True, high=1e6,
    )  # fmt: skip
    most_steps: int = setting(
        5_000_000, "steps after which a perceptron that is not fitted counts as censored", low=100, high=2**31 - 1
    )
    network_dimension: int = setting(10, "inputs of the networks on the depleted-sign task", low=2, high=10**4)
    network_batch: int = setting(8, "samples per step of the networks, B", low=1, high=4096)
    lazy_alpha: float = setting(1000.0, "output scale alpha of the lazy networks", low=1, high=1e6)
    lazy_width: int = setting(128, "hidden units h of the lazy networks", low=2, high=2**14)
    lazy_samples: tuple[int, ...] = setting(
        (128, 256, 512, 1024), "training samples P of the lazy networks, increasing", low=2, high=2**20
    )
    lazy_runs: int = setting(24, "lazy networks at each P and temperature", low=4, high=10**5)
    depths: tuple[int, ...] = setting((1, 2, 3), "hidden layers D in the feature regime", low=1, high=8)
    feature_alphas: tuple[float, ...] = setting(
        (1e-4, 1e-3), "output scales in the feature regime, increasing", low=1e-12, high=0.1
    )
    feature_width: int = setting(64, "hidden units in the feature regime", low=2, high=2**14)
    feature_samples: int = setting(128, "training samples in the feature regime", low=2, high=2**20)
    feature_runs: int = setting(
        10, "networks at each D, alpha and temperature in the feature regime", low=4, high=10**5
    )
    data: str = setting(
        "sign", "data of the phase diagram: sign (the depleted-sign task), digits, fashion-mnist or a FILE.npz"
    )
    network: Literal["dense", "convolutional"] = setting("dense", "architecture in the phase diagram")
    hidden_layers: int = setting(1, "hidden layers in the phase diagram (0: a perceptron)", low=0, high=32)
    width: int = setting(64, "hidden units or channels in the phase diagram", low=1, high=2**14)
    network_samples: int = setting(256, "training samples in the phase diagram", low=2, high=2**20)
    test_samples: int = setting(1000, "test samples of every network", low=10, high=10**6)
    phase_alphas: int = setting(8, "values of alpha in the phase diagram, 1e-3 to 100", low=2, high=200)
    phase_temperatures: int = setting(10, "values of T in the phase diagram, 0.003 to 30", low=2, high=200)
    phase_runs: int = setting(8, "networks at each point of the phase diagram", low=4, high=10**5)
    network_most_steps: int = setting(
        50_000, "steps after which a network that is not fitted counts as censored", low=100, high=2**31 - 1
    )
    alpha: float = setting(1.0, "alpha of the single point that sweeps map", low=0, low_open=True, high=1e9)
    temperature: float = setting(0.1, "temperature of the single point that sweeps map", low=0, low_open=True, high=1e9)
    replacement: bool = setting(True, "draw batches with replacement")


def check(settings: Settings) -> Sequence[str]:
    """Refuse settings that contradict each other; warn where a claim cannot be tested.

    Raises
    ------
    SettingError
        One sentence naming the setting, the value and what is allowed.
    """
    for name in ("samples", "gaussian_samples", "depleted_samples", "temperatures", "lazy_samples", "depths",
                 "feature_alphas"):  # fmt: skip
        values = getattr(settings, name)
        if any(later <= earlier for earlier, later in pairwise(values)):
            raise SettingError(f"{name} = {values} is not allowed: the values must be strictly increasing.")
        if len(values) < 2 and name != "depths":
            raise SettingError(f"{name} = {values} is not allowed: it must be at least two values.")
    if not settings.replacement:
        smallest = min(
            settings.samples[0], settings.gaussian_samples[0], settings.depleted_samples[0], settings.crossover_samples
        )
        networks = min(settings.lazy_samples[0], settings.feature_samples, settings.network_samples)
        for name, limit in (("batch_size", smallest), ("network_batch", networks)):
            # One claim doubles the batch.
            if 2 * getattr(settings, name) > limit:
                raise SettingError(
                    f"{name} = {getattr(settings, name)} is not allowed: without replacement it must be at most half "
                    f"of the smallest training set, {limit} samples."
                )
    try:
        largest = largest_training_set(settings)
        shape = image_shape(settings)
    except TaskError as error:
        raise SettingError(f"data = {settings.data!r} cannot be used: {str(error).rstrip('.')}.") from None
    if largest is not None:
        if settings.network_samples % 2 or settings.test_samples % 2:
            raise SettingError(
                f"network_samples = {settings.network_samples} and test_samples = {settings.test_samples} are not "
                "allowed: on a data set both must be even, since training and test sets are balanced."
            )
        if settings.network_samples > largest:
            raise SettingError(
                f"network_samples = {settings.network_samples} is not allowed: with {settings.test_samples} test "
                f"samples the data leave at most {largest}."
            )
    if settings.network == "convolutional" and shape is None:
        raise SettingError("network = 'convolutional' is not allowed: it needs images, and data has none.")
    if settings.network == "convolutional" and settings.hidden_layers < 1:
        raise SettingError("hidden_layers = 0 is not allowed: a convolutional network needs at least one.")
    return list(_warnings(settings))


def _warnings(settings: Settings):
    crossover = crossover_temperature(settings.dimension, settings.chi)
    if settings.temperature_over_margin < 10 * crossover:
        yield (
            f"The asymptotic claims K1, K2 and K4 speak of temperatures far above the crossover at {crossover:.3g}: "
            "temperature_over_margin should be at least ten times that."
        )
    for chi, sizes in densities(settings):
        steps = stopping_time(sizes[-1], settings.temperature_over_margin, settings.dimension, chi, 8.0)
        steps /= settings.temperature_over_margin * settings.batch_size
        if steps > settings.most_steps / 4:
            yield (
                f"At chi = {chi:g} and P = {sizes[-1]} a run takes about {steps:.2g} steps: many will be censored at "
                f"most_steps = {settings.most_steps}."
            )
        if sizes[0] < 16 * settings.dimension:
            yield f"At chi = {chi:g} the smallest P is below 16 d: exponents there are not asymptotic yet."
    hot = [t for t in settings.temperatures if t >= 10]
    cold = [t for t in settings.temperatures if t <= 0.1]
    if len(hot) < 2 or len(cold) < 2:
        yield "Claims K3 and K5 need at least two of the temperatures above 10 and two below 0.1."


def densities(settings: Settings) -> list[tuple[float, tuple[int, ...]]]:
    """Exponents chi of the stopped perceptrons with their numbers of samples, the main one first."""
    others = ((0.0, settings.gaussian_samples), (3.0, settings.depleted_samples))
    return [(settings.chi, settings.samples), *(one for one in others if one[0] != settings.chi)]


def density_runs(settings: Settings, chi: float) -> int:
    """Stopped perceptrons at each P: half as many at the densities that are there for comparison."""
    return settings.stopped_runs if chi == settings.chi else max(settings.stopped_runs // 2, 2)


def input_files(settings: Settings) -> list[Path]:
    """Files whose content determines the run."""
    from separatrix.datasets.classification import source_files

    return [] if settings.data == "sign" else source_files(settings.data)
