"""Where SGD ends: the stationary law of a mode with label noise, its Boltzmann approximation, and convergence without.

The scalar equation's zero-current density is ``p(w) ~ w^{-3(L-1)/L} Qm(w)^{-1} exp((2 / (kappa L)) int^w (s - v)
v^{-(2-2/L)} / Qm(v) dv)``, ``Qm = (3 rho - 1)(s - w)^2 + sigma^2``; its tail falls as ``w^{-(5-3/L)}``. To first order
in the noise scale it is Gaussian with temperature ``T = kappa sigma^2 L s^{2-2/L} / 2`` (Boltzmann law of the mode's
loss ``(s - w)^2 / 2``). Source: Corlouer et al. 2026, arXiv 2604.06366, section 5; constants derived here.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.interpolate import CubicHermiteSpline
from scipy.stats import chi2

from separatrix.systems.deep_linear.domain import check_depth, check_kurtosis, check_nonnegative, check_positive
from separatrix.systems.deep_linear.quadrature import legendre_rule

Values = Float[np.ndarray, "..."] | float


def log_density(
    strength: Values, depth: int, singular_value: float, label_noise: float, noise_scale: float, kurtosis: float = 1.0
) -> Float[np.ndarray, "..."]:
    """Logarithm of the unnormalised stationary density, zero of the exponent's integral at ``w = s``.

    At depth 2 in closed form, otherwise by quadrature in ``ln w``; relative accuracy 1e-9 or better.
    """
    check_depth(depth)
    check_kurtosis(kurtosis)
    check_positive(strength=strength, singular_value=singular_value, label_noise=label_noise, noise_scale=noise_scale)
    w, s = np.asarray(strength, np.float64), singular_value
    excess = 3 * kurtosis - 1
    intensity = excess * (s - w) ** 2 + label_noise**2
    prefactor = -3 * (depth - 1) / depth * np.log(w) - np.log(intensity)
    if depth == 2:
        a = s / (excess * s**2 + label_noise**2)
        angle = np.arctan(np.sqrt(excess) * (w - s) / label_noise)
        at_peak = a * (np.log(s) - np.log(label_noise))
        integral = (
            a * np.log(w)
            - a / 2 * np.log(intensity)
            - label_noise / np.sqrt(excess) * angle / (excess * s**2 + label_noise**2)
            - at_peak
        )
        return prefactor + integral / noise_scale
    y = np.log(w / s)
    node, weight = legendre_rule(24)
    # Panels graded around ln s, where the integrand varies on the scale sigma / s.
    edges = np.unique(np.concatenate([y.ravel(), _graded(y.min(initial=0.0), y.max(initial=0.0), label_noise / s)]))
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    v = s * np.exp(middle[:, None] + half[:, None] * node)
    integrand = (s - v) * v ** (2 / depth - 1) / (excess * (s - v) ** 2 + label_noise**2)
    panels, origin = half * (integrand @ weight), np.searchsorted(edges, 0.0)
    # Outwards from w = s: far below it the integral is huge, and differences of it would forget what lies near s.
    below = -np.cumsum(panels[:origin][::-1])[::-1]
    cumulative = np.concatenate([below, [0.0], np.cumsum(panels[origin:])])
    return prefactor + 2 / (noise_scale * depth) * cumulative[np.searchsorted(edges, y)]


def _graded(low: float, high: float, scale: float) -> Float[np.ndarray, " k"]:
    """Panel edges between ``low <= 0 <= high``: fine on ``scale`` near 0, growing by 15 % and never above 1/4."""
    scale = min(scale, 1.0) / 8
    steps = [scale]
    while sum(steps) < max(-low, high):
        steps.append(min(steps[-1] * 1.15, 0.25))
    positive = np.cumsum(steps)
    return np.concatenate([[low], -positive[positive < -low][::-1], [0.0], positive[positive < high], [high]])


@dataclass(frozen=True)
class StationaryLaw:
    """Normalised stationary law of one mode with label noise, tabulated in ``ln w``.

    Attributes
    ----------
    depth, singular_value, label_noise, noise_scale, kurtosis
        As in :func:`log_density`.

    Raises
    ------
    ValueError
        If an argument is outside its domain, or at depth 2 the noise collapses the mode (no normalisable law).
    """

    depth: int
    singular_value: float
    label_noise: float
    noise_scale: float
    kurtosis: float = 1.0

    def __post_init__(self) -> None:
        check_depth(self.depth)
        check_kurtosis(self.kurtosis)
        check_positive(
            singular_value=self.singular_value, label_noise=self.label_noise, noise_scale=self.noise_scale
        )  # fmt: skip
        if self.depth == 2 and self._origin_power <= 0:
            raise ValueError(
                f"noise_scale must be below {2 * self.singular_value / self._saddle_noise:.6g}, or at depth 2 the mode "
                f"collapses and has no stationary law on w > 0; got {self.noise_scale}"
            )

    @property
    def _saddle_noise(self) -> float:
        return (3 * self.kurtosis - 1) * self.singular_value**2 + self.label_noise**2

    @property
    def _origin_power(self) -> float:
        """At depth 2 the density of ln w rises from minus infinity as this power of w."""
        return self.singular_value / (self.noise_scale * self._saddle_noise) - 0.5

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Nodes in ln(w/s), log density of ln w there, panel weights, and the normalising logarithm."""
        tail = 4 - 3 / self.depth
        if self.depth == 2:
            low = -80 / self._origin_power - 1
        else:
            # ln p ~ -c w^{2/L - 1} near zero: follow it down to where nothing is left.
            low = -1.0
            while self._log(np.array([low]))[0] > self._log(np.array([0.0]))[0] - 80 and low > -700:
                low *= 1.3
        low = max(low, -700.0)
        spread = np.sqrt(
            boltzmann_temperature(self.depth, self.singular_value, self.label_noise, self.noise_scale)
        ) / self.singular_value  # fmt: skip
        scale = min(self.label_noise / self.singular_value, float(spread), 1.0)
        edges = _graded(low, 60 / tail, scale)
        node, weight = legendre_rule(12)
        half = np.diff(edges)[:, None] / 2
        y = ((edges[1:] + edges[:-1])[:, None] / 2 + half * node).ravel()
        weights = (half * weight).ravel()
        logs = self._log(y)
        top = logs.max()
        total = top + np.log(np.sum(weights * np.exp(logs - top)))
        return y, logs, weights, np.asarray(total)

    def _log(self, y: np.ndarray) -> np.ndarray:
        """Unnormalised log density of ``ln(w/s)``."""
        w = self.singular_value * np.exp(y)
        return y + log_density(w, self.depth, self.singular_value, self.label_noise, self.noise_scale, self.kurtosis)

    def log_pdf(self, strength: Values) -> Float[np.ndarray, "..."]:
        """Log density of w, per unit of strength; -inf for w <= 0."""
        w = np.asarray(strength, np.float64)
        out = np.full(w.shape, -np.inf)
        inside = w > 0
        if inside.any():
            raw = log_density(
                w[inside], self.depth, self.singular_value, self.label_noise, self.noise_scale, self.kurtosis
            )
            out[inside] = raw - np.log(self.singular_value) - self._table[3]
        return out

    def pdf(self, strength: Values) -> Float[np.ndarray, "..."]:
        """Density of w, per unit of strength."""
        return np.exp(self.log_pdf(strength))

    @cached_property
    def _distribution(self) -> CubicHermiteSpline:
        y, _, _, total = self._table
        edges = np.concatenate([[y[0] - 1e-9], (y[1:] + y[:-1]) / 2, [y[-1] + 1e-9]])
        return CubicHermiteSpline(edges, self._mass_at(edges), np.exp(self._log(edges) - total), extrapolate=False)

    def _mass_at(self, edges: np.ndarray) -> np.ndarray:
        node, weight = legendre_rule(6)
        half = np.diff(edges)[:, None] / 2
        y = (edges[1:] + edges[:-1])[:, None] / 2 + half * node
        inside = np.sum(half * weight * np.exp(self._log(y.ravel()).reshape(y.shape) - self._table[3]), axis=1)
        cumulative = np.concatenate([[0.0], np.cumsum(inside)])
        return cumulative / cumulative[-1]

    def cdf(self, strength: Values) -> Float[np.ndarray, "..."]:
        """Distribution function of w; 0 for w <= 0, NaN stays NaN."""
        w = np.asarray(strength, np.float64)
        distribution = self._distribution
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.log(w / self.singular_value)
        value = distribution(np.clip(y, distribution.x[0], distribution.x[-1]))
        return np.where(w <= 0, 0.0, np.where(np.isnan(w), np.nan, value))

    def quantile(self, probability: Values) -> Float[np.ndarray, "..."]:
        """Strength at which the distribution function takes the given values.

        Raises
        ------
        ValueError
            If a probability does not lie strictly between 0 and 1.
        """
        probability = np.asarray(probability, np.float64)
        if not np.all((probability > 0) & (probability < 1)):
            raise ValueError(f"probability must lie strictly between 0 and 1, got {probability}")
        distribution = self._distribution
        # Bisection: in the far tails the slope underflows, where an interpolated inverse would overflow.
        index = np.clip(np.searchsorted(distribution(distribution.x), probability), 1, distribution.x.size - 1)
        low, high = distribution.x[index - 1], distribution.x[index]
        for _ in range(54):
            middle = (low + high) / 2
            under = distribution(middle) < probability
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return self.singular_value * np.exp((low + high) / 2)

    def moment(self, power: float) -> float:
        """``E w^power``; infinite from ``power >= 4 - 3/L`` on."""
        if power >= 4 - 3 / self.depth:
            return float("inf")
        y, logs, weights, total = self._table
        return float(self.singular_value**power * np.sum(weights * np.exp(logs - total + power * y)))

    @property
    def mean(self) -> float:
        """Mean strength."""
        return self.moment(1)

    @property
    def standard_deviation(self) -> float:
        """Standard deviation of the strength."""
        y, logs, weights, total = self._table
        deviation = np.expm1(y) - (self.mean / self.singular_value - 1)
        return float(self.singular_value * np.sqrt(np.sum(weights * np.exp(logs - total) * deviation**2)))


def stationary_law(
    depth: int, singular_value: float, label_noise: float, noise_scale: float, kurtosis: float = 1.0
) -> StationaryLaw:
    """The :class:`StationaryLaw` of these parameters."""
    return StationaryLaw(depth, float(singular_value), float(label_noise), float(noise_scale), kurtosis)


def relaxation_rate(depth: int, singular_value: Values) -> Float[np.ndarray, "..."]:
    """``lambda = L s^{2-2/L}``, the rate at which a mode approaches its singular value, per unit time."""
    check_depth(depth)
    check_positive(singular_value=singular_value)
    return depth * np.asarray(singular_value, np.float64) ** (2 - 2 / depth)


def boltzmann_temperature(
    depth: int, singular_value: Values, label_noise: Values, noise_scale: Values
) -> Float[np.ndarray, "..."]:
    """``T = kappa sigma^2 L s^{2-2/L} / 2``: the variance of the strength to first order in the noise scale."""
    check_nonnegative(label_noise=label_noise, noise_scale=noise_scale)
    return 0.5 * noise_scale * np.asarray(label_noise, np.float64) ** 2 * relaxation_rate(depth, singular_value)


def linearised_variance(
    depth: int,
    singular_value: Values,
    label_noise: Values,
    learning_rate: Values,
    batch_size: int = 1,
    discrete: bool = True,
) -> Float[np.ndarray, "..."]:
    """Variance of the linearised mode: ``kappa sigma^2 lambda / (2 - eta lambda (1 + 2/B))`` for SGD.

    With ``discrete=False`` that of the SDE, ``kappa sigma^2 lambda / (2 - 2 kappa lambda)``. Infinite where unstable.
    """
    check_positive(learning_rate=learning_rate, batch_size=batch_size)
    check_nonnegative(label_noise=label_noise)
    rate = relaxation_rate(depth, singular_value)
    kappa = np.asarray(learning_rate, np.float64) / batch_size
    margin = 2 - (learning_rate * rate * (1 + 2 / batch_size) if discrete else 2 * kappa * rate)
    numerator = kappa * np.asarray(label_noise, np.float64) ** 2 * rate
    with np.errstate(divide="ignore"):
        return np.where(margin > 0, numerator / np.maximum(margin, 1e-300), np.inf)


def mean_shift(
    depth: int, singular_value: Values, label_noise: Values, noise_scale: Values
) -> Float[np.ndarray, "..."]:
    """Mean of ``w - s`` in the scalar equation to first order, ``-((L - 1)/L) T / s``."""
    temperature = boltzmann_temperature(depth, singular_value, label_noise, noise_scale)
    return -(1 - 1 / depth) * temperature / np.asarray(singular_value, np.float64)


def matrix_mean_shift(width: int, label_noise: Values, noise_scale: Values) -> Float[np.ndarray, "..."]:
    """Mean of ``w_aa - s_a`` in a full square two-layer network of ``width``: ``-kappa sigma^2 width / 2``."""
    check_nonnegative(label_noise=label_noise, noise_scale=noise_scale)
    return -0.5 * noise_scale * np.asarray(label_noise, np.float64) ** 2 * width


def coupling_rates(depth: int, strengths: Float[np.ndarray, " r"]) -> Float[np.ndarray, "r r"]:
    """``Theta_ab = sum_l w_a^{2(L-l)/L} w_b^{2(l-1)/L}``, the relaxation rate of the matrix entry ``w_ab``."""
    check_depth(depth)
    check_positive(strengths=strengths)
    w = np.asarray(strengths, np.float64)
    layer = np.arange(1, depth + 1)
    return np.einsum("al,bl->ab", w[:, None] ** (2 * (depth - layer) / depth), w[:, None] ** (2 * (layer - 1) / depth))


def entry_variances(
    depth: int, strengths: Float[np.ndarray, " r"], label_noise: float, noise_scale: float
) -> Float[np.ndarray, "r r"]:
    """Stationary variance of every ``w_ab``, ``kappa sigma^2 Theta_ab / 2``."""
    check_nonnegative(label_noise=label_noise, noise_scale=noise_scale)
    return 0.5 * noise_scale * label_noise**2 * coupling_rates(depth, strengths)


def excess_loss(depth: int, strengths: Float[np.ndarray, " r"], label_noise: float, noise_scale: float) -> float:
    """Mean stationary excess loss, ``kappa sigma^2 sum_ab Theta_ab / 4``."""
    return float(0.5 * entry_variances(depth, strengths, label_noise, noise_scale).sum())


def contraction_exponent(depth: int, singular_value: float, learning_rate: float, batch_size: int = 1) -> float:
    """Rate of change of ``E ln|s - w|`` under SGD without label noise near the solution, per unit time.

    ``E ln|1 - eta lambda m| / eta`` with m the mean of B squared normals; exact for the scalar chain.
    """
    check_positive(learning_rate=learning_rate, batch_size=batch_size)
    factor = learning_rate * float(relaxation_rate(depth, singular_value)) / batch_size

    def integrand(r: float) -> float:
        x = factor * r
        return float((np.log1p(-x) if x < 0.5 else np.log(np.abs(1 - x))) * chi2.pdf(r, batch_size))

    # End points of the pieces: the logarithm's singularity, and where the law of r has its mass, which adaptive
    # quadrature misses between far ends.
    pole, width, far = 1 / factor, np.sqrt(2 * batch_size), float(chi2.isf(1e-30, batch_size))
    marks = [1.0, pole / 2, pole, 1.5 * pole, 2 * pole, *(batch_size + width * np.array([-12, -4, -1, 0, 1, 4, 12]))]
    ends = sorted({0.0, far, *(float(mark) for mark in marks if 0 < mark < far)})
    pieces = [quad(integrand, a, b, limit=200, epsabs=1e-13)[0] for a, b in pairwise(ends)]
    return sum(pieces) / learning_rate


def sde_contraction_exponent(depth: int, singular_value: float, noise_scale: float) -> float:
    """The same for the SDE, ``-(lambda + kappa lambda^2)``."""
    check_nonnegative(noise_scale=noise_scale)
    rate = float(relaxation_rate(depth, singular_value))
    return -(rate + noise_scale * rate**2)


def stable_learning_rate(depth: int, singular_value: float, batch_size: int = 1, inputs: int = 1) -> float:
    """Largest learning rate with mean-square stability, ``2 B / ((B + d_0 + 1) lambda)``; scalar chain: d_0 = 1."""
    check_positive(batch_size=batch_size, inputs=inputs)
    return 2 * batch_size / ((batch_size + inputs + 1) * float(relaxation_rate(depth, singular_value)))
