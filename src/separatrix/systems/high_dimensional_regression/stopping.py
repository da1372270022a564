"""When to stop: the best time of one mode and of all together.

The error of a mode is a parabola in ``exp(-l t)``, so that it falls until its best time and rises afterwards; the best
time of all modes together lies between those of the fastest and the slowest. Source: Advani, Saxe 2017 (arXiv
1710.03667).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from separatrix.systems.high_dimensional_regression.learning_curves import generalization_error
from separatrix.systems.high_dimensional_regression.spectrum import Spectrum
from separatrix.systems.high_dimensional_regression.task import LinearTask

Values = Float[np.ndarray, "..."] | float

_GRID = 200  # times searched before the minimum is refined; spectra with gaps have several minima


@dataclass(frozen=True)
class Stopping:
    """Best time to stop and the test error then."""

    time: float
    error: float


def mode_stopping_time(eigenvalue: Values, task: LinearTask, teacher_power: Values = 1.0) -> Float[np.ndarray, "..."]:
    """Best time of one mode, ``(1/l) ln(1 + l (sigma_w^2 + sigma_w0^2) / sigma_eps^2)``; infinite without noise.

    Raises
    ------
    ValueError
        If an eigenvalue is not positive.
    """
    values = np.asarray(eigenvalue, np.float64)
    if np.any(~(values > 0)):
        raise ValueError("eigenvalue must be positive: a frozen direction has no time of its own")
    start = task.signal_variance * np.asarray(teacher_power) + task.initial_variance
    if task.noise_variance == 0:
        return np.where(np.broadcast_to(start, np.broadcast(values, start).shape) > 0, np.inf, 0.0)
    return np.log1p(values * start / task.noise_variance) / values


def optimal_stopping(spectrum: Spectrum, task: LinearTask) -> Stopping:
    """Time that minimises the test error of :func:`.generalization_error`, and its value.

    Without label noise nothing overfits and the time is infinite.
    """
    times = mode_stopping_time(spectrum.eigenvalues, task, spectrum.teacher_power)
    low, high = float(times.min()), float(times.max())
    if high == low or not np.isfinite(high):
        return Stopping(high, float(generalization_error(high, spectrum, task)))
    # a mode without a teacher is best left alone: its best time is zero, and has no logarithm
    grid = np.geomspace(max(low, 1e-9 * high), high, _GRID)
    place = int(np.argmin(generalization_error(grid, spectrum, task)))
    ends = np.log(grid[[max(place - 1, 0), min(place + 1, _GRID - 1)]])
    found = minimize_scalar(
        lambda log_time: float(generalization_error(np.exp(log_time), spectrum, task)),
        bounds=(ends[0], ends[1]),
        method="bounded",
        options={"xatol": 1e-8},
    )
    time = float(np.exp(found.x))
    return Stopping(time, float(generalization_error(time, spectrum, task)))
