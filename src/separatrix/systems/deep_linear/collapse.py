"""Noise-induced collapse at depth 2: label noise that keeps a weak mode at zero for ever.

Near zero the root of a mode is multiplied at each step by ``1 + learning_rate (s m + n)``, m the batch mean of x^2
and n that of ``label_noise x z``; zero attracts when the mean logarithm of this factor is negative. In the SDE that
is ``noise_scale > 2 s / (2 s^2 + sigma^2)``. At depth 3 and more the drift w^{2-2/L} beats the noise at zero and no
mode collapses. Derived here.
"""

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import dawsn, digamma, roots_genlaguerre
from scipy.stats import chi2

from separatrix.systems.deep_linear.domain import check_depth, check_nonnegative, check_positive
from separatrix.systems.deep_linear.quadrature import legendre_rule

_EULER = -digamma(1.0)


def collapse_noise_scale(singular_value: float, label_noise: float) -> float:
    """Noise scale (learning rate / batch size) above which a mode collapses at depth 2, by the SDE."""
    check_positive(singular_value=singular_value)
    check_nonnegative(label_noise=label_noise)
    return 2 * singular_value / (2 * singular_value**2 + label_noise**2)


def root_growth(singular_value: float, label_noise: float, learning_rate: float, batch_size: int = 1) -> float:
    """Growth rate of ``ln |a|`` of SGD near zero at depth 2, ``E ln|1 + eta (s m + n)| / eta``, per unit time; exact.

    The strength ``w = a^2`` grows at twice this rate.
    """
    check_positive(singular_value=singular_value, learning_rate=learning_rate, batch_size=batch_size)
    check_nonnegative(label_noise=label_noise)
    # Given r = sum x^2 over the batch (chi-square), n is Gaussian with standard deviation sigma sqrt(r) / B.
    r, probability = _chi_square_rule(batch_size)
    centre = 1 + learning_rate * singular_value * r / batch_size
    spread = learning_rate * label_noise * np.sqrt(r) / batch_size
    if label_noise == 0:
        return float(np.sum(probability * np.log(centre)) / learning_rate)
    mean_log = np.log(spread) + mean_log_distance(centre / spread)
    return float(np.sum(probability * mean_log) / learning_rate)


def _chi_square_rule(degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and probabilities of a quadrature for the chi-square law."""
    if degrees <= 50:
        node, weight = roots_genlaguerre(120, degrees / 2 - 1)
        return 2 * node, weight / weight.sum()
    # Gauss-Laguerre weights overflow for many degrees of freedom; the law is near a Gaussian by then.
    node, weight = legendre_rule(200)
    low, high = chi2.ppf(1e-25, degrees), chi2.isf(1e-25, degrees)
    r = (low + high) / 2 + (high - low) / 2 * node
    probability = weight * chi2.pdf(r, degrees)
    return r, probability / probability.sum()


def mean_log_distance(mu: np.ndarray) -> np.ndarray:
    """``E ln|mu + xi|`` for a standard normal xi, elementwise: ``-(gamma + ln 2)/2 + 2 int_0^{mu/sqrt 2} Dawson``."""
    mu = np.abs(np.asarray(mu, np.float64))
    near = np.minimum(mu, 12.0)
    node, weight = legendre_rule(96)
    end = near[..., None] / np.sqrt(2)
    inner = -(_EULER + np.log(2)) / 2 + np.sum(weight * dawsn((node + 1) / 2 * end), axis=-1) * end[..., 0]
    far = np.maximum(mu, 12.0)
    series = (
        np.log(far)
        - 1 / (2 * far**2)
        - 3 / (4 * far**4)
        - 15 / (6 * far**6)
        - 105 / (8 * far**8)
        - 945 / (10 * far**10)
    )
    return np.where(mu < 12.0, inner, series)


def critical_learning_rate(singular_value: float, label_noise: float, batch_size: int = 1) -> float:
    """Learning rate above which SGD collapses the mode at depth 2: the zero of :func:`root_growth`.

    Raises
    ------
    ValueError
        If no learning rate up to ten times the SDE's threshold collapses the mode (label noise too weak).
    """
    check_positive(batch_size=batch_size)
    start = batch_size * collapse_noise_scale(singular_value, label_noise)
    growth = lambda rate: root_growth(singular_value, label_noise, rate, batch_size)  # noqa: E731
    rates = start * np.geomspace(0.1, 10, 41)
    signs = np.array([growth(rate) for rate in rates]) > 0
    change = np.flatnonzero(signs[:-1] & ~signs[1:])
    if change.size == 0:
        raise ValueError(
            f"label_noise = {label_noise} is too weak to collapse a mode of singular value {singular_value} at "
            "any learning rate"
        )
    first = change[0]
    return root_scalar(growth, bracket=(rates[first], rates[first + 1]), xtol=1e-14).root


def collapses(singular_value: float, label_noise: float, depth: int, noise_scale: float) -> bool:
    """Whether zero attracts the mode in the SDE; never at depth 3 and more."""
    check_depth(depth)
    check_nonnegative(noise_scale=noise_scale)
    return depth == 2 and noise_scale > collapse_noise_scale(singular_value, label_noise)
