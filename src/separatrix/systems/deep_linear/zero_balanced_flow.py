"""Exact gradient flow of a two-layer linear network from any zero-balanced start, aligned with the teacher or not.

If ``W_1 W_1^T = W_2^T W_2``, then ``Q = [W_1^T; W_2]`` obeys the matrix Riccati equation ``d(QQ^T)/dt = F QQ^T +
QQ^T F - (QQ^T)^2`` with ``F = [[0, M^T], [M, 0]]``, whose solution after a time t from ``Q_0`` is

    QQ^T = e^{Ft} Q_0 [I + Q_0^T Phi Q_0]^{-1} Q_0^T e^{Ft},   Phi = (e^{2Ft} - I) F^{-1} / 2   (t on the null space).

Evaluated as it stands this loses all digits once ``s_1 t`` exceeds about 8: growing and decaying directions meet in
one inverse. Here each step takes ``Q <- e^{Ft} Phi^{-1/2} K`` in the eigenbasis of F, K the upper block of an
orthonormal factor of ``[Phi^{1/2} Q; I]``, whose rows are sorted by size so that the decomposition keeps small rows
exact; the factor before K is bounded. Steps are composed, so that none of them overflows. Source: the equation and its
solution are those of Fukumizu 1998 and of Braun, Domine, Fitzgerald, Saxe 2022 for the setting of Saxe, McClelland,
Ganguli 2014 (arXiv 1312.6120); the stable form is derived here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import qr

from separatrix.systems.deep_linear.domain import check_nonnegative

#: Largest ``s_1`` times step: ``e^{2 * 300}`` is still a number.
_LARGEST_EXPONENT = 300.0
#: Every component that float64 can hold has grown to order one after this many growth times.
_ALL_GROWN = 1600.0


@dataclass(frozen=True, eq=False)
class ZeroBalancedFlow:
    """The network along gradient flow; the hidden units are determined only up to a rotation.

    Attributes
    ----------
    product
        ``W_2 W_1`` at each time, ``(t, d_2, d_0)``.
    input_similarity
        ``W_1^T W_1``, ``(t, d_0, d_0)``: how alike the hidden layer represents two inputs.
    output_similarity
        ``W_2 W_2^T``, ``(t, d_2, d_2)``.
    """

    product: Float[np.ndarray, "t d_2 d_0"]
    input_similarity: Float[np.ndarray, "t d_0 d_0"]
    output_similarity: Float[np.ndarray, "t d_2 d_2"]


def zero_balanced_flow(
    first: Float[np.ndarray, "h d_0"],
    second: Float[np.ndarray, "d_2 h"],
    teacher: Float[np.ndarray, "d_2 d_0"],
    times: Sequence[float] | Float[np.ndarray, " t"],
    tolerance: float = 1e-8,
) -> ZeroBalancedFlow:
    """Exact solution at ``times`` (learning rate times steps, any order) from the weights ``first``, ``second``.

    Parameters
    ----------
    first, second
        ``W_1`` and ``W_2`` at time 0, zero-balanced.
    teacher
        M, the input-output correlation for white inputs.
    times
        Nonnegative.
    tolerance
        Allowed imbalance ``|W_1 W_1^T - W_2^T W_2|`` relative to ``|W_1 W_1^T|``.

    Raises
    ------
    ValueError
        If the shapes do not match, a value is not finite, a time is negative, or the start is not zero-balanced.
    """
    first, second, teacher = (np.asarray(one, np.float64) for one in (first, second, teacher))
    times = np.asarray(times, np.float64)
    check_nonnegative(times=times)
    _check_start(first, second, teacher, tolerance)
    d_in = first.shape[1]
    rate, frame = _eigenbasis(teacher)
    state, now = frame.T @ np.concatenate([first.T, second]), 0.0
    grown = _ALL_GROWN / float(np.min(np.where(rate > 0, rate, np.inf), initial=np.inf))
    squares = np.empty((times.size, len(rate), len(rate)))
    for place in np.argsort(times, kind="stable"):
        state = _advance(state, rate, now, float(times[place]), grown)
        now = float(times[place])
        root = frame @ state
        squares[place] = root @ root.T
    return ZeroBalancedFlow(squares[:, d_in:, :d_in], squares[:, :d_in, :d_in], squares[:, d_in:, d_in:])


def _check_start(first: np.ndarray, second: np.ndarray, teacher: np.ndarray, tolerance: float) -> None:
    if first.ndim != 2 or second.ndim != 2 or len(first) != second.shape[1]:
        raise ValueError(f"the weights must have shapes (h, d_0) and (d_2, h), got {first.shape} and {second.shape}")
    if teacher.shape != (len(second), first.shape[1]):
        raise ValueError(f"teacher must have shape {(len(second), first.shape[1])}, got {teacher.shape}")
    if not all(np.all(np.isfinite(one)) for one in (first, second, teacher)):
        raise ValueError("weights and teacher must be finite")
    below = first @ first.T
    size, gap = np.linalg.norm(below), np.linalg.norm(below - second.T @ second)
    if gap > tolerance * max(size, np.finfo(np.float64).tiny):
        raise ValueError(
            f"the start must be zero-balanced, W_1 W_1^T = W_2^T W_2 within {tolerance:g} of its size, but the "
            f"difference is {gap / size if size else np.inf:.2g} of it"
        )


def _eigenbasis(teacher: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of F, ``s_a``, ``-s_a`` and zeros, and its orthonormal eigenvectors, from the singular frame of M."""
    d_out, d_in = teacher.shape
    left, s, right = np.linalg.svd(teacher)
    k = s.size
    both = np.sqrt(0.5) * right[:k].T, np.sqrt(0.5) * left[:, :k]
    top = np.concatenate([both[0], both[0], right[k:].T, np.zeros((d_in, d_out - k))], axis=1)
    bottom = np.concatenate([both[1], -both[1], np.zeros((d_out, d_in - k)), left[:, k:]], axis=1)
    s = np.where(s > np.finfo(np.float64).eps * s[0] * max(teacher.shape), s, 0.0)
    return np.concatenate([s, -s, np.zeros(d_in + d_out - 2 * k)]), np.concatenate([top, bottom])


def _advance(state: np.ndarray, rate: np.ndarray, now: float, end: float, grown: float) -> np.ndarray:
    """``Q`` in the eigenbasis at time ``end``."""
    until = min(end, max(now, grown))
    steps = int(np.ceil(rate.max() * (until - now) / _LARGEST_EXPONENT))
    for _ in range(steps):
        state = _step(state, rate, (until - now) / steps)
    if not steps and until > now:  # M = 0
        state = _step(state, rate, until - now)
    # From here on the growing directions rest, and only the null space of F moves on.
    return _step(state, rate, end - until) if end > until else state


def _step(state: np.ndarray, rate: np.ndarray, time: float) -> np.ndarray:
    if time * (rate.max() + np.sum(state**2)) < 1e-17:  # below rounding
        return state
    exponent = np.minimum(rate * time, _LARGEST_EXPONENT)
    safe = np.where(rate == 0, 1.0, rate)
    phi = np.where(rate == 0, time, np.expm1(2 * exponent) / (2 * safe))
    # e^{rate time} / sqrt(phi), where both are large for growing directions
    bound = np.sqrt(2 * np.abs(safe) / -np.expm1(-2 * np.abs(exponent) - (rate == 0)))
    factor = np.where(rate == 0, 1 / np.sqrt(time), np.where(rate > 0, bound, bound * np.exp(exponent)))
    rows = np.concatenate([np.sqrt(phi)[:, None] * state, np.eye(state.shape[1])])
    order = np.argsort(-np.max(np.abs(rows), axis=1), kind="stable")
    orthonormal = np.empty_like(rows)
    orthonormal[order] = qr(rows[order], mode="economic", pivoting=True)[0]
    return factor[:, None] * orthonormal[: len(state)]
