"""Eigenvalues of ``X X^T``: the Marchenko-Pastur law of Gaussian data, or whatever spectrum a data set has.

A spectrum is a list of positive eigenvalues with the share of the N directions that has each, and the share of *frozen*
directions, whose eigenvalue is exactly zero. The frozen directions stand apart because no learning and no noise
reaches them: they must not enter a sum over ``1 / eigenvalue``.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Float

Values = Float[np.ndarray, "..."] | float

#: Panels of the quadrature halve towards the lower edge of the law, down to 2^-45 of its range.
_PANELS, _POINTS = 60, 20
#: Eigenvalues below this share of the largest are zeros that were rounded.
ZERO = 1e-12


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Spectrum of ``X X^T``, discrete or as the nodes of a quadrature.

    Attributes
    ----------
    eigenvalues
        ``(k,)``, positive.
    weights
        ``(k,)``: share of the N directions that has this eigenvalue.
    frozen
        Share of directions with eigenvalue zero; together with the weights 1.
    ratio
        ``alpha = P / N``, samples over parameters.
    teacher_power
        ``(k,)``: squared component of the teacher along these directions over ``sigma_w^2``, ones for a teacher without
        preferred direction.
    frozen_power
        The same, averaged over the frozen directions.

    Raises
    ------
    ValueError
        If shapes differ, an entry is outside its domain, or the shares do not add to 1.
    """

    eigenvalues: Float[np.ndarray, " k"]
    weights: Float[np.ndarray, " k"]
    frozen: float
    ratio: float
    teacher_power: Float[np.ndarray, " k"] = field(default=None)  # type: ignore[assignment]
    frozen_power: float = 1.0

    def __post_init__(self) -> None:
        power = np.ones_like(self.eigenvalues) if self.teacher_power is None else self.teacher_power
        object.__setattr__(self, "teacher_power", power)
        check_ratio(self.ratio)
        arrays = {"eigenvalues": self.eigenvalues, "weights": self.weights, "teacher_power": self.teacher_power}
        for name, values in arrays.items():
            if values.ndim != 1 or values.shape != self.eigenvalues.shape or values.size == 0:
                raise ValueError(f"{name} must have one entry for each eigenvalue, got shape {values.shape}")
            if not np.all(np.isfinite(values)) or np.any(values < 0):
                raise ValueError(f"{name} must be finite and not negative")
        if np.any(self.eigenvalues == 0):
            raise ValueError("eigenvalues must be positive: directions with eigenvalue zero are counted in frozen")
        if self.frozen < 0 or self.frozen_power < 0:
            raise ValueError(f"frozen and frozen_power must not be negative, got {self.frozen}, {self.frozen_power}")
        total = float(self.weights.sum()) + self.frozen
        if abs(total - 1) > 1e-6:
            raise ValueError(f"weights and frozen must add to 1, their sum is {total}")

    def average(self, values: Float[np.ndarray, "... k"]) -> Float[np.ndarray, "..."]:
        """Sum over the positive eigenvalues, ``int rho(l) f(l) dl`` without the frozen directions."""
        return values @ self.weights

    @property
    def rank(self) -> float:
        """Share of directions that can be learned."""
        return 1 - self.frozen


def check_ratio(ratio: float) -> None:
    """Raise ValueError unless the ratio ``alpha = P / N`` is finite and positive."""
    if not (np.isfinite(ratio) and ratio > 0):
        raise ValueError(f"ratio must be finite and positive, got {ratio}")


def edges(ratio: float) -> tuple[float, float]:
    """Ends ``(1 -+ sqrt(alpha))^2`` of the Marchenko-Pastur law.

    Raises
    ------
    ValueError
        If the ratio is not positive.
    """
    check_ratio(ratio)
    root = np.sqrt(ratio)
    # (1 - root) as a quotient: near alpha = 1 the difference of the two would have no digits left.
    return float(((1 - ratio) / (1 + root)) ** 2), float((1 + root) ** 2)


def density(eigenvalue: Values, ratio: float) -> Float[np.ndarray, "..."]:
    """Marchenko-Pastur density ``sqrt((l_+ - l)(l - l_-)) / (2 pi l)`` without its point mass at zero.

    Source: Advani, Saxe 2017 (arXiv 1710.03667); inputs of variance ``1/N``.
    """
    low, high = edges(ratio)
    value = np.asarray(eigenvalue, np.float64)
    inside = (value > low) & (value < high)
    safe = np.where(inside, value, 1.0)
    return np.where(inside, np.sqrt(np.maximum((high - safe) * (safe - low), 0)) / (2 * np.pi * safe), 0.0)


@lru_cache(maxsize=256)
def marchenko_pastur(ratio: float) -> Spectrum:
    """Marchenko-Pastur law of ``X X^T`` as the nodes of a quadrature; the same object for the same ratio.

    With ``l = l_- + 4 sqrt(alpha) sin^2(q/2)``, ``0 < q < pi``, the law is ``4 alpha sin^2(q) / (2 pi l) dq``: smooth,
    but near ``alpha = 1`` it has poles close to ``q = 0``, and there ``exp(-l t)`` varies on the scale ``1/sqrt(t)``.
    Gauss-Legendre panels that halve towards ``q = 0`` resolve both: averages of the learning curves have a relative
    accuracy of 1e-12 for any ratio and for times up to 1e20.

    Raises
    ------
    ValueError
        If the ratio is not finite and positive.
    """
    low, _ = edges(ratio)
    node, weight = np.polynomial.legendre.leggauss(_POINTS)
    ends = np.pi * 0.5 ** np.arange(_PANELS)[::-1]
    starts = np.concatenate([[0.0], ends[:-1]])
    half = (ends - starts)[:, None] / 2
    q = (starts[:, None] + half * (1 + node)).ravel()
    eigenvalues = low + 4 * np.sqrt(ratio) * np.sin(q / 2) ** 2
    weights = 4 * ratio * np.sin(q) ** 2 / (2 * np.pi * eigenvalues) * (half * weight).ravel()
    for array in (eigenvalues, weights):
        array.flags.writeable = False
    return Spectrum(eigenvalues, weights, max(0.0, 1.0 - ratio), float(ratio))


def discrete_spectrum(
    eigenvalues: Float[np.ndarray, " n"],
    samples: int,
    teacher_power: Float[np.ndarray, " n"] | None = None,
    zero: float = ZERO,
) -> Spectrum:
    """Spectrum of a data set from all N eigenvalues of ``X X^T``.

    Parameters
    ----------
    eigenvalues
        ``(N,)``, zeros included; N is the number of parameters.
    samples
        P.
    teacher_power
        ``(N,)``: squared component of the teacher along each eigenvector over ``sigma_w^2``; ones if left out.
    zero
        Eigenvalues at or below this share of the largest are frozen directions. A relative bound: an absolute one would
        remove the smallest eigenvalues at ``P = N``, which make the peak.

    Raises
    ------
    ValueError
        If an eigenvalue is negative beyond rounding, all are zero, or a shape is wrong.
    """
    values = np.asarray(eigenvalues, np.float64)
    power = np.ones_like(values) if teacher_power is None else np.asarray(teacher_power, np.float64)
    if values.ndim != 1 or values.size == 0 or power.shape != values.shape:
        raise ValueError(
            f"eigenvalues and teacher_power must be lists of one length, got {values.shape}, {power.shape}"
        )
    largest = float(values.max())
    if not np.all(np.isfinite(values)) or largest <= 0 or values.min() < -zero * largest:
        raise ValueError("eigenvalues must be finite and not negative, and not all zero")
    kept = values > zero * largest
    frozen_power = float(power[~kept].mean()) if not kept.all() else 1.0
    share = np.full(int(kept.sum()), 1 / values.size)
    return Spectrum(values[kept], share, float(np.mean(~kept)), samples / values.size, power[kept], frozen_power)
