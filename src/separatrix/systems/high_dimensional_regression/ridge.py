"""Ridge regression, the best that a linear method can do: minimiser of sum of squares plus ``penalty |w|^2``.

Source: Advani, Saxe 2017 (arXiv 1710.03667), closed forms derived here. The start of training does not matter.
"""

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from separatrix.systems.high_dimensional_regression.spectrum import Spectrum, check_ratio
from separatrix.systems.high_dimensional_regression.task import LinearTask

Values = Float[np.ndarray, "..."] | float


def ridge_error(penalty: Values, spectrum: Spectrum, task: LinearTask) -> Float[np.ndarray, "..."]:
    """Test error of ridge regression, ``int rho [g^2 sigma_w^2 + l sigma_eps^2] / (l + g)^2`` + frozen + noise.

    Raises
    ------
    ValueError
        If a penalty is negative.
    """
    g = np.asarray(penalty, np.float64)[..., None]
    if np.any(~(g >= 0)):
        raise ValueError("penalty must not be negative")
    power = task.signal_variance * spectrum.teacher_power
    modes = (g**2 * power + spectrum.eigenvalues * task.noise_variance) / (spectrum.eigenvalues + g) ** 2
    frozen = spectrum.frozen * task.signal_variance * spectrum.frozen_power
    return spectrum.average(modes) + frozen + task.noise_variance


def resolvent_moment(ratio: float, penalty: float) -> float:
    """``m = int rho / (l + g)`` over the whole Marchenko-Pastur law, its mass at zero included.

    Positive root of ``g m^2 + (g + alpha - 1) m - 1 = 0``, written without cancellation.

    Raises
    ------
    ValueError
        If the ratio or the penalty is not positive.
    """
    check_ratio(ratio)
    if not penalty > 0:
        raise ValueError(f"penalty must be positive, got {penalty}")
    linear = penalty + ratio - 1
    root = np.sqrt(linear**2 + 4 * penalty)
    return float(2 / (linear + root) if linear >= 0 else (root - linear) / (2 * penalty))


def best_penalty(spectrum: Spectrum, task: LinearTask) -> float:
    """Penalty with the smallest test error: ``INR`` for a teacher without preferred direction, else by search.

    Infinite where there is no teacher.
    """
    if task.signal_variance == 0 or task.noise_variance == 0 or np.all(spectrum.teacher_power == 1):
        return task.inverse_snr
    objective = lambda log_penalty: float(ridge_error(np.exp(log_penalty), spectrum, task))  # noqa: E731
    grid = np.log(task.inverse_snr) + np.linspace(-12, 12, 97)
    place = int(np.argmin([objective(x) for x in grid]))
    ends = grid[max(place - 1, 0)], grid[min(place + 1, grid.size - 1)]
    found = minimize_scalar(objective, bounds=ends, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def best_ridge_error(ratio: float, task: LinearTask) -> float:
    """Smallest test error of ridge regression on Gaussian data, ``sigma_eps^2 (m + 1)`` with ``m`` at ``g = INR``.

    No linear estimator, early stopping included, is better on average over teachers.

    Raises
    ------
    ValueError
        If the ratio is not positive.
    """
    check_ratio(ratio)
    if task.signal_variance == 0:
        return task.noise_variance
    if task.noise_variance == 0:
        return max(0.0, 1 - ratio) * task.signal_variance
    return task.noise_variance * (resolvent_moment(ratio, task.inverse_snr) + 1)
