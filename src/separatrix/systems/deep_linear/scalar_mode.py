"""One aligned, balanced mode of a deep linear network: its drift, its noise and its exact SGD chain.

A mode of singular value s and strength ``w = a^L`` moves, for whitened inputs and
``kappa = learning_rate / batch_size``, by the Ito equation ``da = a^{L-1} [(s - w) dt + sqrt(kappa Qm) dB]`` with
``Qm = (3 rho - 1)(s - w)^2 + label_noise^2`` (rho the input kurtosis, 1 for Gaussian inputs). The layers' noises
are driven by the same scalar, so they add up coherently: the strength's noise carries the factor L, not sqrt L.
Source: Corlouer et al. 2026, arXiv 2604.06366, prop. 3.5; constants derived here. Functions are plain arithmetic:
NumPy arrays and traced JAX arrays both pass through. Time is learning rate times steps.
"""

import math
from typing import Any

from array_api_compat import array_namespace, is_array_api_obj


def _sqrt(x: Any) -> Any:
    # Not x ** 0.5: that compiles to a power, and its derivative in Milstein's scheme to several.
    return array_namespace(x).sqrt(x) if is_array_api_obj(x) else math.sqrt(x)


def noise_intensity(strength: Any, singular_value: Any, label_noise: Any, kurtosis: float = 1.0) -> Any:
    """``Qm(w) = (3 rho - 1)(s - w)^2 + label_noise^2``."""
    return (3 * kurtosis - 1) * (singular_value - strength) ** 2 + label_noise**2


def flow_speed(strength: Any, singular_value: Any, depth: int) -> Any:
    """Gradient-flow speed of the strength, ``L w^{2-2/L} (s - w)``."""
    return depth * strength ** (2 - 2 / depth) * (singular_value - strength)


def strength_drift(
    strength: Any, singular_value: Any, depth: int, noise_scale: Any, label_noise: Any, kurtosis: float = 1.0
) -> Any:
    """Ito drift of the strength: gradient flow plus ``(kappa/2) L (L-1) w^{3-4/L} Qm``."""
    intensity = noise_intensity(strength, singular_value, label_noise, kurtosis)
    ito = 0.5 * noise_scale * depth * (depth - 1) * strength ** (3 - 4 / depth) * intensity
    return flow_speed(strength, singular_value, depth) + ito


def strength_diffusion(
    strength: Any, singular_value: Any, depth: int, noise_scale: Any, label_noise: Any, kurtosis: float = 1.0
) -> Any:
    """Diffusion ``D(w) = (kappa/2) L^2 w^{4-4/L} Qm(w)``; the variance of w grows at rate 2 D."""
    intensity = noise_intensity(strength, singular_value, label_noise, kurtosis)
    return 0.5 * noise_scale * depth**2 * strength ** (4 - 4 / depth) * intensity


def root_drift(root: Any, singular_value: Any, depth: int, learning_rate: Any = None) -> Any:
    """Ito drift of the root ``a = w^{1/L}``: ``b = a^{L-1} (s - a^L)``.

    With ``learning_rate`` the second-order term ``-(learning_rate / 2) b b'`` is added, which removes the O(learning
    rate) difference of the means of SGD and its SDE while the mode grows (backward error analysis).
    """
    drift = root ** (depth - 1) * (singular_value - root**depth)
    if learning_rate is None:
        return drift
    slope = (depth - 1) * root ** (depth - 2) * (singular_value - root**depth) - depth * root ** (2 * depth - 2)
    return drift - 0.5 * learning_rate * drift * slope


def root_noise(
    root: Any, singular_value: Any, depth: int, noise_scale: Any, label_noise: Any, kurtosis: float = 1.0
) -> Any:
    """Noise amplitude of the root, ``a^{L-1} sqrt(kappa Qm)``, per square root of time."""
    intensity = noise_intensity(root**depth, singular_value, label_noise, kurtosis)
    return root ** (depth - 1) * _sqrt(noise_scale * intensity)


def log_drift(
    strength: Any, singular_value: Any, depth: int, noise_scale: Any, label_noise: Any, kurtosis: float = 1.0
) -> Any:
    """Ito drift of ``y = ln w``: ``L w^{1-2/L} (s - w) - (L/2) kappa w^{2-4/L} Qm``."""
    intensity = noise_intensity(strength, singular_value, label_noise, kurtosis)
    flow = depth * strength ** (1 - 2 / depth) * (singular_value - strength)
    return flow - 0.5 * depth * noise_scale * strength ** (2 - 4 / depth) * intensity


def log_diffusion(
    strength: Any, singular_value: Any, depth: int, noise_scale: Any, label_noise: Any, kurtosis: float = 1.0
) -> Any:
    """Diffusion of ``y = ln w``, half its variance rate: ``(kappa/2) L^2 w^{2-4/L} Qm``."""
    intensity = noise_intensity(strength, singular_value, label_noise, kurtosis)
    return 0.5 * noise_scale * depth**2 * strength ** (2 - 4 / depth) * intensity


def chain_step(root: Any, square: Any, cross: Any, singular_value: Any, depth: int, learning_rate: Any) -> Any:
    """Exact SGD step of the root, ``a + learning_rate a^{L-1} ((s - a^L) square + cross)``.

    ``square`` is the batch mean of ``x^2`` and ``cross`` that of ``label_noise x z``.
    """
    return root + learning_rate * root ** (depth - 1) * ((singular_value - root**depth) * square + cross)


def drift_to_noise(
    strength: Any, singular_value: Any, noise_scale: Any, label_noise: Any, kurtosis: float = 1.0
) -> Any:
    """Gradient-flow speed over noise amplitude, ``(s - w) / sqrt(kappa Qm)``: the same at every depth."""
    intensity = noise_intensity(strength, singular_value, label_noise, kurtosis)
    return (singular_value - strength) / _sqrt(noise_scale * intensity)
