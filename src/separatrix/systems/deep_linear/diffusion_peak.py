"""Where along its rise the diffusion of a mode is largest, and when label noise hides that peak.

The diffusion is ``w^c ((3 rho - 1)(s - w)^2 + sigma^2)`` up to a constant, with ``c = 4 - 4/L`` for the mode strength
and ``c = 2 - 2/L`` for the noise in weight space. With ``u = w/s`` and ``tau = 2 sigma^2 / ((3 rho - 1) s^2)`` its
stationary points are ``u = [(c + 1) -+ sqrt(1 - c (c + 2) tau / 2)] / (c + 2)``: the smaller a local maximum, the
larger a local minimum. They exist for ``tau <= tau_c = 2 / (c (c + 2))``. A peak and a condition on the label noise
are stated in Corlouer et al. 2026, arXiv 2604.06366; the constants are derived here. Label noises are in units of the
singular value.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar

from separatrix.systems.deep_linear.domain import check_depth, check_kurtosis, check_nonnegative

Observable = Literal["strength", "weights"]


def diffusion_exponent(depth: float, observable: Observable = "strength") -> float:
    """Power c of the strength in the diffusion; ``depth`` may be infinite."""
    check_depth(depth)
    if observable not in ("strength", "weights"):
        raise ValueError(f"observable must be 'strength' or 'weights', got {observable!r}")
    return (4 if observable == "strength" else 2) * (1 - 1 / depth)


def stationary_progress(
    depth: float,
    label_noise: Float[np.ndarray, "..."] | float,
    observable: Observable = "strength",
    kurtosis: float = 1.0,
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Progress ``w/s`` at the local maximum and minimum of the diffusion; NaN above critical label noise."""
    check_nonnegative(label_noise=label_noise)
    check_kurtosis(kurtosis)
    c = diffusion_exponent(depth, observable)
    tau = 2 * np.asarray(label_noise, np.float64) ** 2 / (3 * kurtosis - 1)
    with np.errstate(invalid="ignore"):
        root = np.sqrt(1 - c * (c + 2) * tau / 2)
    return (c + 1 - root) / (c + 2), (c + 1 + root) / (c + 2)


def peak_progress(
    depth: float,
    label_noise: Float[np.ndarray, "..."] | float,
    observable: Observable = "strength",
    kurtosis: float = 1.0,
) -> Float[np.ndarray, "..."]:
    """Progress ``w/s`` at the local maximum of the diffusion; ``c / (c + 2)`` without label noise."""
    return stationary_progress(depth, label_noise, observable, kurtosis)[0]


def critical_label_noise(depth: float, observable: Observable = "strength", kurtosis: float = 1.0) -> float:
    """Label noise over singular value above which the diffusion has no interior maximum, ``sqrt(tau_c)``."""
    check_kurtosis(kurtosis)
    c = diffusion_exponent(depth, observable)
    return float(np.sqrt((3 * kurtosis - 1) / (c * (c + 2))))


def dominant_label_noise(depth: float, observable: Observable = "strength", kurtosis: float = 1.0) -> float:
    """Label noise over singular value below which the peak exceeds the diffusion of a learned mode, ``sqrt(tau_g)``."""
    check_kurtosis(kurtosis)
    c = diffusion_exponent(depth, observable)
    excess = 3 * kurtosis - 1

    def gap(noise: float) -> float:
        u = float(peak_progress(depth, noise, observable, kurtosis))
        return u**c * (excess * (1 - u) ** 2 + noise**2) - noise**2

    critical = critical_label_noise(depth, observable, kurtosis)
    return root_scalar(gap, bracket=(0.1 * critical, critical * (1 - 1e-12)), xtol=1e-15).root


def peak_regime(
    depth: float, label_noise: float, observable: Observable = "strength", kurtosis: float = 1.0
) -> Literal["peak", "local peak", "none"]:
    """Whether the diffusion's interior maximum is the largest value of the rise, only a local one, or absent."""
    check_nonnegative(label_noise=label_noise)
    if label_noise < dominant_label_noise(depth, observable, kurtosis):
        return "peak"
    return "local peak" if label_noise <= critical_label_noise(depth, observable, kurtosis) else "none"
