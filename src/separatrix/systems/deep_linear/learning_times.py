"""How long gradient flow takes to learn a mode, how far ahead its noise peaks, and the escape time from the saddle.

All times are learning rate times steps. Derived here from ``dw/dt = L w^{2-2/L} (s - w)`` and, for depth 2, from the
Brownian motion with drift that ``ln w`` performs near zero.
"""

import numpy as np
from jaxtyping import Float

from separatrix.systems.deep_linear.diffusion_peak import peak_progress
from separatrix.systems.deep_linear.domain import check_depth, check_nonnegative, check_positive
from separatrix.systems.deep_linear.mode_solutions import scaled_time

Values = Float[np.ndarray, "..."] | float


def flow_time(initial: Values, final: Values, singular_value: Values, depth: int) -> Float[np.ndarray, "..."]:
    """Gradient-flow time from strength ``initial`` to ``final``, both in (0, s), at any depth from 1 on.

    ``s^{2/L-2} / L`` times the scaled time (:func:`separatrix.systems.deep_linear.mode_solutions.scaled_time`); depth 2
    gives ``ln[w_1 (s - w_0) / (w_0 (s - w_1))] / (2 s)``.

    Raises
    ------
    ValueError
        If a strength does not lie strictly between 0 and the singular value, or the depth is below 1 or infinite.
    """
    check_depth(depth, least=1)
    check_positive(initial=initial, final=final, singular_value=singular_value, depth=depth)
    s = np.asarray(singular_value, np.float64)
    u0, u1 = np.asarray(initial) / s, np.asarray(final) / s
    if np.any(u0 >= 1) or np.any(u1 >= 1):
        raise ValueError(f"initial and final strengths must lie below the singular value {singular_value}, got {initial} and {final}")  # fmt: skip  # noqa: E501
    return scaled_time(u0, u1, depth) * s ** (2 / depth - 2) / depth


def lead_time(
    singular_value: Values, depth: int, missing: float = 0.05, label_noise: Values = 0.0
) -> Float[np.ndarray, "..."]:
    """Gradient-flow time from the noise peak until the mode is learned up to the fraction ``missing``.

    ``label_noise`` is over the singular value; above its critical value there is no peak, and the time is NaN. Scales
    as ``s^{-(2-2/L)}``.

    Raises
    ------
    ValueError
        If an argument is outside its domain.
    """
    check_positive(singular_value=singular_value)
    if not 0 < missing < 1:
        raise ValueError(f"missing must lie strictly between 0 and 1, got {missing}")
    s, peak = np.asarray(singular_value, np.float64), peak_progress(depth, label_noise)
    present = np.isfinite(peak)
    time = flow_time(np.where(present, peak, 0.5) * s, (1 - missing) * s, s, depth)
    return np.where(present, time, np.nan)


def escape_drift(singular_value: Values, label_noise: Values, noise_scale: Values) -> Float[np.ndarray, "..."]:
    """Drift of ``ln w`` near zero at depth 2, ``2 s - kappa (2 s^2 + sigma^2)``: negative means collapse."""
    check_positive(singular_value=singular_value)
    check_nonnegative(label_noise=label_noise, noise_scale=noise_scale)
    s, sigma = np.asarray(singular_value, np.float64), np.asarray(label_noise, np.float64)
    return 2 * s - noise_scale * (2 * s**2 + sigma**2)


def passage_moments(
    initial: Values, final: Values, singular_value: Values, label_noise: Values, noise_scale: Values
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Mean and variance of the first-passage time from ``initial`` to ``final << s`` at depth 2 (inverse Gaussian).

    ``ln(w_1/w_0) / nu`` and ``4 kappa Q0 ln(w_1/w_0) / nu^3`` with ``Q0 = 2 s^2 + sigma^2``, ``nu = 2 s - kappa Q0``.

    Raises
    ------
    ValueError
        If the drift is not positive: the mode collapses and the passage is not certain.
    """
    drift, rate, distance = _passage_parameters(initial, final, singular_value, label_noise, noise_scale)
    return distance / drift, rate * distance / drift**3


def passage_density(
    time: Float[np.ndarray, " t"],
    initial: float,
    final: float,
    singular_value: float,
    label_noise: float,
    noise_scale: float,
) -> Float[np.ndarray, " t"]:
    """Inverse-Gaussian density of the first-passage time, per unit time."""
    drift, rate, distance = _passage_parameters(initial, final, singular_value, label_noise, noise_scale)
    check_positive(time=time)
    time = np.asarray(time, np.float64)
    return (
        distance / np.sqrt(2 * np.pi * rate * time**3) * np.exp(-((distance - drift * time) ** 2) / (2 * rate * time))
    )


def _passage_parameters(initial, final, singular_value, label_noise, noise_scale):
    check_positive(initial=initial, final=final, noise_scale=noise_scale)
    drift = escape_drift(singular_value, label_noise, noise_scale)
    if np.any(drift <= 0):
        raise ValueError(f"noise_scale must be below 2 s / (2 s^2 + sigma^2), or the mode collapses; got {noise_scale}")
    distance = np.log(np.asarray(final) / np.asarray(initial))
    if np.any(distance <= 0):
        raise ValueError(f"final must exceed initial, got {final} and {initial}")
    rate = 4 * noise_scale * (2 * np.asarray(singular_value) ** 2 + np.asarray(label_noise) ** 2)
    return drift, rate, distance
