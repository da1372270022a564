"""Ensembles of linear students on Gaussian data, and what is claimed of their courses (B1, B4, B5, B7)."""

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from separatrix.engines.intervals import bonferroni, bootstrap, mean_interval
from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.high_dimensional_regression.generalization.settings import Settings
from separatrix.systems.high_dimensional_regression.learning_curves import (
    generalization_error,
    growth_at_equality,
    training_error,
)
from separatrix.systems.high_dimensional_regression.mode_dynamics import (
    decompose,
    flow_courses,
    frozen_distance,
    ridge_distance,
)
from separatrix.systems.high_dimensional_regression.ridge import best_ridge_error
from separatrix.systems.high_dimensional_regression.spectrum import Spectrum, marchenko_pastur
from separatrix.systems.high_dimensional_regression.stopping import optimal_stopping
from separatrix.systems.high_dimensional_regression.task import LinearTask

#: Recorded gradient-flow times.
TIME = np.geomspace(0.1, 1e3, 41)
#: Teachers, starts and label noises drawn for each data set: a decomposition costs more than what follows it.
REALISATIONS = 8
#: Factor by which the control of B5 stops too late.
LATE = 4.0


def finite_size_time(settings: Settings) -> float:
    """Latest time at which a student of N parameters follows the theory of infinitely many, ``N^2 / 200``.

    The smallest eigenvalue at ``alpha = 1`` is of order ``1/N^2``, so that errors stop growing at times of order N^2.
    """
    return settings.dimension**2 / 200


@lru_cache(maxsize=256)
def stopping_time(ratio: float, noise_variance: float) -> float:
    """Best time to stop a student that starts at zero."""
    return optimal_stopping(marchenko_pastur(ratio), LinearTask(noise_variance)).time


# -- experiments ------------------------------------------------------------------------------------------------------


def gaussian_inputs(rng: np.random.Generator, dimension: int, samples: int) -> Float[np.ndarray, "N P"]:
    """Data set of inputs with variance ``1/N``, one sample in each column."""
    return rng.normal(size=(dimension, samples)) / np.sqrt(dimension)


@jax.jit
def _measure(
    inputs: Array, teacher: Array, start: Array, noise: Array, time: Array, stops: Array, noise_scale: Array,
    start_scale: Array,
) -> dict[str, Array]:  # fmt: skip
    """Everything recorded of the members; ``stops`` are the best and the late time for each noise, ``(2, A)``."""

    def one(member: tuple[Array, ...]) -> dict[str, Array]:
        X, w, w0, e = member
        N, P = X.shape
        modes = decompose(X, w, w0, e)
        b, a = noise_scale[:, None], start_scale
        course = flow_courses(modes, time, b[:, None], a[None, :, None])
        stopped = flow_courses(modes, stops, noise_scale, jnp.zeros(()))
        noise_fitted = b**2 * jnp.mean(jnp.sum(modes.noise**2, -1))
        shares = -jnp.expm1(-time[:, None] * modes.eigenvalues)
        return {
            "test_error": course.distance / N + b[:, None] ** 2,
            "training_error": course.training / P,
            "squared_norm": course.norm / N,
            "effective_rank": jnp.sum(shares, axis=1) / N,
            "final_error": (noise_fitted + frozen_distance(modes, a)) / N + b**2,
            "spanned_final_error": (noise_fitted + frozen_distance(modes, 0 * a)) / N + b**2,
            "stopped_error": stopped.distance[0] / N + noise_scale**2,
            "late_error": stopped.distance[1] / N + noise_scale**2,
            "ridge_error": ridge_distance(modes, noise_scale**2, noise_scale) / N + noise_scale**2,
            "eigenvalue": modes.eigenvalues,
        }

    return jax.lax.map(one, (inputs, teacher, start, noise))


_DIMENSIONS = {
    "test_error": ("noise", "start", "time"),
    "training_error": ("noise", "start", "time"),
    "squared_norm": ("noise", "start", "time"),
    "effective_rank": ("time",),
    "final_error": ("noise", "start"),
    "spanned_final_error": ("noise", "start"),
    "stopped_error": ("noise",),
    "late_error": ("noise",),
    "ridge_error": ("noise",),
    "eigenvalue": ("mode",),
}


def _simulate(settings: Settings, index: int, copies: int, start: int, stop: int) -> xr.Dataset:
    """Members of one ratio; with ``copies = 2`` only every second sample is new, the others repeat it."""
    ratio, N = settings.ratios[index], settings.dimension
    distinct = max(settings.samples(ratio) // copies, 1)
    drawn = []
    for member in range(start, stop):
        rng = np.random.default_rng([settings.seed, 1, index, copies, member])
        shapes = ((REALISATIONS, N), (REALISATIONS, N), (REALISATIONS, distinct))
        drawn.append((gaussian_inputs(rng, N, distinct), *(rng.normal(size=shape) for shape in shapes)))
    noise = np.asarray(settings.noise_ratios)
    best = np.array([stopping_time(ratio, float(variance)) for variance in noise])
    # repeating every sample doubles all eigenvalues, which is the same as doubling the time
    measured = _measure(
        *(np.stack(one) for one in zip(*drawn, strict=True)), copies * TIME, np.stack([best, LATE * best]),
        np.sqrt(noise), np.sqrt(np.asarray(settings.start_variances)),
    )  # fmt: skip
    kept = ("test_error",) if copies > 1 else tuple(_DIMENSIONS)
    coordinates = {
        "member": np.arange(start, stop),
        "noise": noise,
        "start": np.asarray(settings.start_variances),
        "time": ("time", TIME, {"unit": "gradient-flow time"}),
    }
    variables = {name: (("member", *_DIMENSIONS[name]), np.asarray(measured[name])) for name in kept}
    return xr.Dataset(variables, coordinates)


def linear_experiments(settings: Settings) -> list[Experiment]:
    """Every ratio, and for controls every ratio with each sample drawn twice."""
    experiments = []
    for index, ratio in enumerate(settings.ratios):
        N, P = settings.dimension, settings.samples(ratio)
        cost = {
            "members": settings.draws,
            "bytes_per_member": 8 * (3 * N * P + 60 * TIME.size + 40 * N),
            "seconds": 2.0 + settings.draws * (1e-9 * N**3 + 4e-8 * N * P),
        }
        for name, copies in (("linear", 1), ("repeated", 2)):
            experiments.append(
                Experiment(
                    f"{name}_ratio{index}", partial(_simulate, settings, index, copies), control=copies > 1, **cost
                )
            )
    return experiments


# -- B1: the curves ---------------------------------------------------------------------------------------------------


def mean_eigenvalue_spectrum(ratio: float) -> Spectrum:
    """The wrong theory of a well-conditioned data set: all positive eigenvalues at their mean."""
    rank = min(ratio, 1.0)
    return Spectrum(np.array([ratio / rank]), np.array([rank]), 1 - rank, ratio)


def curve_agreement(
    settings: Settings, results: Results, spectrum: Callable[[float], Spectrum] = marchenko_pastur
) -> list[Measurement]:
    """Largest deviation of the mean curves from theory over noises, starts and times, in units of the test error."""
    conditions = 2 * len(settings.ratios)
    measurements = []
    for index, ratio in enumerate(settings.ratios):
        data = results[f"linear_ratio{index}"].sel(time=slice(None, finite_size_time(settings)))
        time = data["time"].values
        # the curves are linear in the variances of teacher, start and noise
        power, noise = 1 + data["start"].values[:, None], data["noise"].values[:, None, None]
        test, training = (
            power * curve(time, spectrum(ratio), LinearTask(0.0))
            + noise * curve(time, spectrum(ratio), LinearTask(1.0, 0.0))
            for curve in (generalization_error, training_error)
        )
        for name, words, theory in (("test_error", "test", test), ("training_error", "training", training)):
            deviation = (data[name].values - theory) / test
            scatter = deviation.std(axis=0, ddof=1) / np.sqrt(len(deviation))
            place = np.unravel_index(np.argmax(np.abs(deviation.mean(axis=0)) + 4 * scatter), scatter.shape)
            estimate, interval = mean_interval(
                deviation[:, *place], confidence=bonferroni(conditions * scatter.size)
            )  # fmt: skip
            where = f"t = {time[place[2]]:.3g}, INR {settings.noise_ratios[place[0]]:g}"
            measurements.append(
                Measurement(
                    f"alpha {ratio:g}, {words} error minus theory over the test error, largest over t", estimate,
                    interval, (-0.05, 0.05), members=len(deviation),
                    note=f"at {where}, start {settings.start_variances[place[1]]:g}",
                )
            )  # fmt: skip
    return measurements


# -- B4: the start ----------------------------------------------------------------------------------------------------


def start_dependence(settings: Settings, results: Results, error: str = "final_error") -> list[Measurement]:
    """Slope of the final test error in the variance of the start: over ``1 - alpha``, or itself from 1 on."""
    variances = np.asarray(settings.start_variances)
    weights = (variances - variances.mean()) / np.sum((variances - variances.mean()) ** 2)
    measurements = []
    for index, ratio in enumerate(settings.ratios):
        if ratio == 1:
            continue
        slope = results[f"linear_ratio{index}"][error].values[:, 0] @ weights
        estimate, interval = mean_interval(slope, confidence=bonferroni(len(settings.ratios) - 1))
        label, unit, accepted = (
            (f"alpha {ratio:g}, slope over 1 - alpha", 1 - ratio, (0.95, 1.05))
            if ratio < 1
            else (f"alpha {ratio:g}, slope", 1.0, (-0.02, 0.02))
        )
        measurements.append(
            Measurement(label, estimate / unit, (interval[0] / unit, interval[1] / unit), accepted, members=slope.size)
        )
    return measurements


# -- B5: stopping and ridge -------------------------------------------------------------------------------------------


def _mean_ratio(values: Float[np.ndarray, "... 2"], axis: int) -> np.ndarray:
    means = values.mean(axis=axis)
    return means[..., 0] / means[..., 1]


def stopping_against_ridge(settings: Settings, results: Results, stopped: str = "stopped_error") -> list[Measurement]:
    """Test error at the best stopping time over that of the best ridge, measured and in theory."""
    conditions = len(settings.ratios) * len(settings.noise_ratios)
    measurements, theory = [], []
    for index, ratio in enumerate(settings.ratios):
        data = results[f"linear_ratio{index}"]
        for k, noise in enumerate(settings.noise_ratios):
            task = LinearTask(noise)
            time = stopping_time(ratio, noise) * (1 if stopped == "stopped_error" else LATE)
            error = float(generalization_error(time, marchenko_pastur(ratio), task))
            theory.append(error / best_ridge_error(ratio, task))
            pairs = np.stack([data[stopped].values[:, k], data["ridge_error"].values[:, k]], axis=1)
            estimate, interval = bootstrap(
                _mean_ratio, pairs, confidence=bonferroni(conditions), seed=settings.seed
            )  # fmt: skip
            measurements.append(
                Measurement(f"alpha {ratio:g}, INR {noise:g}, measured", estimate, interval, (0.995, 1.025),
                            members=len(pairs), note=f"theory {theory[-1]:.4f}")
            )  # fmt: skip
    for words, value, accepted in (
        ("smallest", min(theory), (1.0, np.inf)),
        ("largest", max(theory), (-np.inf, 1.025)),
    ):
        measurements.append(Measurement(f"theory, {words} over the grid", value, (value, value), accepted))
    return measurements


# -- B7: growth at equality -------------------------------------------------------------------------------------------


def square_root_growth(settings: Settings, results: Results, ratio: float = 1.0) -> list[Measurement]:
    """Power of time in the test error without its floor, in theory, and the measured growth over the predicted one.

    The growth is measured with the strongest noise, beside which what is left of the teacher counts least.
    """
    measurements = []
    time = np.geomspace(1e2, 1e4, 201)
    for noise in settings.noise_ratios:
        excess = generalization_error(time, marchenko_pastur(ratio), LinearTask(noise)) - noise
        power = np.diff(np.log(excess)) / np.diff(np.log(time))
        measurements.append(
            Measurement(f"INR {noise:g}, power of t in theory, 100 to 10000", float(np.median(power)),
                        (power.min(), power.max()), (0.45, 0.55))
        )  # fmt: skip
    data = results[f"linear_ratio{settings.ratios.index(ratio)}"]
    late = int(np.searchsorted(data["time"].values, finite_size_time(settings), side="right")) - 1
    moment, noise = float(data["time"].values[late]), settings.noise_ratios[-1]
    grown = data["test_error"].values[:, -1, 0, late] - noise
    estimate, interval = mean_interval(grown / (float(growth_at_equality(moment, noise)) - noise))
    label = f"INR {noise:g}, measured growth over predicted at t = {moment:.3g}"
    return [*measurements, Measurement(label, estimate, interval, (0.9, 1.1), members=grown.size)]
