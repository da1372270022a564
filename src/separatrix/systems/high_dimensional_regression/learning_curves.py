"""Test and training error of a linear student as functions of gradient-flow time, averaged over teacher and noise.

With the eigenvalues ``l`` of ``X X^T`` the mode of each decays as ``exp(-l t)``; label noise grows in as
``(1 - exp(-l t))``. Frozen directions neither learn nor overfit: they keep the error of the start for ever.
Source: Advani, Saxe 2017 (arXiv 1710.03667); conventions in :mod:`.task`, derivations in the study's page.
"""

import math

import numpy as np
from jaxtyping import Float

from separatrix.systems.high_dimensional_regression.spectrum import Spectrum, check_ratio, edges
from separatrix.systems.high_dimensional_regression.task import LinearTask

Values = Float[np.ndarray, "..."] | float


def _times(time: Values) -> Float[np.ndarray, "... 1"]:
    values = np.asarray(time, np.float64)
    if np.any(np.isnan(values)) or np.any(values < 0):
        raise ValueError("time must not be negative")
    return values[..., None]


def learned(time: Values, eigenvalues: Float[np.ndarray, " k"]) -> Float[np.ndarray, "... k"]:
    """Share ``1 - exp(-l t)`` of each mode that is learned, ``(..., k)``; accurate where it is tiny."""
    return -np.expm1(-_times(time) * eigenvalues)


def _start_power(spectrum: Spectrum, task: LinearTask) -> Float[np.ndarray, " k"]:
    """Mean squared distance of the start from the teacher, mode by mode."""
    return task.signal_variance * spectrum.teacher_power + task.initial_variance


def _frozen_error(spectrum: Spectrum, task: LinearTask) -> float:
    return spectrum.frozen * (task.signal_variance * spectrum.frozen_power + task.initial_variance)


def generalization_error(time: Values, spectrum: Spectrum, task: LinearTask) -> Float[np.ndarray, "..."]:
    """Test error ``E|w* - w|^2 / N + sigma_eps^2`` at gradient-flow time ``time``.

    Infinite times are allowed, but at ``alpha = 1``, where the error is infinite, the nodes of a quadrature give a
    large number instead: see :func:`final_generalization_error`.

    ``int rho [(sigma_w^2 + sigma_w0^2) e^{-2lt} + (sigma_eps^2/l)(1 - e^{-lt})^2]`` over the positive eigenvalues, plus
    what is frozen, plus the noise of the test labels.

    Raises
    ------
    ValueError
        If a time is negative.
    """
    gained = learned(time, spectrum.eigenvalues)
    remaining = np.exp(-2 * _times(time) * spectrum.eigenvalues)
    modes = _start_power(spectrum, task) * remaining + task.noise_variance * gained**2 / spectrum.eigenvalues
    return spectrum.average(modes) + _frozen_error(spectrum, task) + task.noise_variance


def training_error(time: Values, spectrum: Spectrum, task: LinearTask) -> Float[np.ndarray, "..."]:
    """Training error ``E|y - w X|^2 / P``: never increases; ends at the noise that no parameter can fit.

    Holds for inputs of any covariance, since only the eigenvalues of the sample enter.

    Raises
    ------
    ValueError
        If a time is negative.
    """
    remaining = np.exp(-2 * _times(time) * spectrum.eigenvalues)
    modes = (spectrum.eigenvalues * _start_power(spectrum, task) + task.noise_variance) * remaining
    unfitted = max(0.0, 1 - spectrum.rank / spectrum.ratio)
    return spectrum.average(modes) / spectrum.ratio + unfitted * task.noise_variance


def squared_norm(time: Values, spectrum: Spectrum, task: LinearTask) -> Float[np.ndarray, "..."]:
    """Mean square of a parameter, ``E|w(t)|^2 / N``: the norm that complexity bounds look at.

    Raises
    ------
    ValueError
        If a time is negative.
    """
    gained = learned(time, spectrum.eigenvalues)
    signal = task.signal_variance * spectrum.teacher_power + task.noise_variance / spectrum.eigenvalues
    start = task.initial_variance * np.exp(-2 * _times(time) * spectrum.eigenvalues)
    return spectrum.average(gained**2 * signal + start) + spectrum.frozen * task.initial_variance


def effective_rank(time: Values, spectrum: Spectrum) -> Float[np.ndarray, "..."]:
    """Share of the N directions that is fitted by time ``time``: the trace of ``1 - exp(-X X^T t)`` over N.

    Raises
    ------
    ValueError
        If a time is negative.
    """
    return spectrum.average(learned(time, spectrum.eigenvalues))


def final_generalization_error(ratio: float, task: LinearTask) -> float:
    """Test error of Gaussian data at the end of training; infinite at ``alpha = 1`` with noise.

    ``sigma_eps^2 alpha / (alpha - 1)`` with more samples than parameters,
    ``(1 - alpha)(sigma_w^2 + sigma_w0^2) + sigma_eps^2 / (1 - alpha)`` with fewer.

    Raises
    ------
    ValueError
        If the ratio is not positive.
    """
    check_ratio(ratio)
    if ratio == 1:
        return math.inf if task.noise_variance > 0 else 0.0
    if ratio > 1:
        return task.noise_variance * ratio / (ratio - 1)
    return (1 - ratio) * (task.signal_variance + task.initial_variance) + task.noise_variance / (1 - ratio)


def final_training_error(ratio: float, task: LinearTask) -> float:
    """Training error of Gaussian data at the end of training, ``sigma_eps^2 (1 - 1/alpha)`` or zero.

    Raises
    ------
    ValueError
        If the ratio is not positive.
    """
    check_ratio(ratio)
    return task.noise_variance * max(0.0, 1 - 1 / ratio)


def growth_at_equality(time: Values, noise_variance: float) -> Float[np.ndarray, "..."]:
    """Late test error at ``alpha = 1``: ``sigma_eps^2 [1/2 + 2 (2 - sqrt 2) sqrt(t / pi)]``, up to ``O(1/sqrt t)``.

    The square root comes from the density ``1 / (pi sqrt(l))`` at zero, the constant from the rest of the law, which
    takes 1/2 from the 1 of the test labels' own noise. Derived here.

    Raises
    ------
    ValueError
        If a time or the noise is negative.
    """
    t = _times(time)[..., 0]
    if noise_variance < 0:
        raise ValueError(f"noise_variance must not be negative, got {noise_variance}")
    return noise_variance * (0.5 + 2 * (2 - math.sqrt(2)) * np.sqrt(t / np.pi))


def slowest_time(ratio: float) -> float:
    """Time ``1 / (1 - sqrt(alpha))^2`` in which the slowest mode that moves at all learns, and overfits.

    Infinite at ``alpha = 1``; the typical mode needs ``1 / max(alpha, 1)`` (:func:`typical_time`). Where the two are
    close there is no time left for overtraining.

    Raises
    ------
    ValueError
        If the ratio is not positive.
    """
    low, _ = edges(ratio)
    return math.inf if low == 0 else 1 / low


def typical_time(ratio: float) -> float:
    """Inverse mean of the positive eigenvalues, ``1 / max(alpha, 1)``.

    Raises
    ------
    ValueError
        If the ratio is not positive.
    """
    check_ratio(ratio)
    return 1 / max(ratio, 1.0)


def largest_stable_step(ratio: float) -> float:
    """Step of gradient descent at and above which the fastest mode diverges, ``2 / (1 + sqrt(alpha))^2``.

    Raises
    ------
    ValueError
        If the ratio is not positive.
    """
    return 2 / edges(ratio)[1]
