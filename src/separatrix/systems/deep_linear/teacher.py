"""The teacher matrix, its modes, and networks at the starts the theory speaks of."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Teacher:
    """A linear map ``M = left @ diag(singular_values) @ right.T`` to be learned, mode by mode.

    Attributes
    ----------
    left
        ``(d_L, r)``, orthonormal columns ``u_a``.
    singular_values
        ``(r,)``, positive and strictly decreasing: the modes are identifiable.
    right
        ``(d_0, r)``, orthonormal columns ``v_a``.

    Raises
    ------
    ValueError
        If the singular values are not finite, positive and strictly decreasing, or the vectors are not orthonormal.
    """

    left: Float[np.ndarray, "d_L r"]
    singular_values: Float[np.ndarray, " r"]
    right: Float[np.ndarray, "d_0 r"]

    def __post_init__(self) -> None:
        s = np.asarray(self.singular_values)
        if s.ndim != 1 or s.size == 0 or not np.all(np.isfinite(s)) or np.any(s <= 0):
            raise ValueError(f"singular_values must be finite and positive, got {s.tolist()}")
        if np.any(np.diff(s) >= 0):
            raise ValueError(
                f"singular_values must be strictly decreasing (equal ones have no modes of their own), got {s.tolist()}"
            )
        for name, vectors in (("left", self.left), ("right", self.right)):
            if vectors.ndim != 2 or vectors.shape[1] != s.size:
                raise ValueError(f"{name} must have shape (d, {s.size}), got {vectors.shape}")
            if not np.allclose(vectors.T @ vectors, np.eye(s.size), atol=1e-8):
                raise ValueError(f"{name} singular vectors must be orthonormal")

    @classmethod
    def diagonal(
        cls,
        singular_values: Sequence[float] | Float[np.ndarray, " r"],
        d_in: int | None = None,
        d_out: int | None = None,
    ) -> "Teacher":
        """Teacher in its own frame: ``M`` is ``(d_out, d_in)`` with the singular values on its diagonal."""
        s = np.asarray(singular_values, dtype=np.float64)
        d_in, d_out = d_in or s.size, d_out or s.size
        if min(d_in, d_out) < s.size:
            raise ValueError(f"{s.size} modes need at least as many inputs and outputs, got {d_in} and {d_out}")
        return cls(np.eye(d_out, s.size), s, np.eye(d_in, s.size))

    @classmethod
    def from_matrix(
        cls, matrix: Float[np.ndarray, "d_L d_0"], modes: int | None = None, gap: float = 1e-9
    ) -> "Teacher":
        """The leading ``modes`` singular modes of a matrix (all non-zero ones by default).

        Raises
        ------
        ValueError
            If the matrix is not finite, or two of the kept singular values (or the last kept and the first left out)
            differ by less than ``gap`` relative to the largest: their vectors are then not determined.
        """
        matrix = np.asarray(matrix, np.float64)
        if matrix.ndim != 2 or not np.all(np.isfinite(matrix)):
            raise ValueError(f"matrix must be two-dimensional and finite, got shape {matrix.shape}")
        left, s, right = np.linalg.svd(matrix, full_matrices=False)
        rank = int(np.sum(s > 1e-12 * max(s[0], np.finfo(float).tiny)))
        modes = rank if modes is None else modes
        if not 1 <= modes <= rank:
            raise ValueError(f"modes must lie between 1 and the rank {rank} of the teacher, got {modes}")
        gaps = -np.diff(np.append(s, 0.0))[:modes]
        if np.any(gaps <= gap * s[0]):
            worst = int(np.argmin(gaps))
            raise ValueError(
                f"modes {worst + 1} and {worst + 2} are degenerate (singular values {s[worst]:.6g} and "
                f"{np.append(s, 0.0)[worst + 1]:.6g}): their vectors are not determined"
            )
        return cls(left[:, :modes], s[:modes], right[:modes].T)

    @property
    def matrix(self) -> Float[np.ndarray, "d_L d_0"]:
        """The map itself, ``(d_L, d_0)``."""
        return (self.left * self.singular_values) @ self.right.T

    @property
    def modes(self) -> int:
        """Number of modes ``r``."""
        return self.singular_values.size


def layer_widths(d_in: int, d_out: int, depth: int, hidden: int) -> tuple[int, ...]:
    """Widths ``(d_0, ..., d_L)`` of a network of ``depth`` layers with equal hidden widths."""
    if depth < 2:
        raise ValueError(f"depth must be at least 2, got {depth}")
    return (d_in, *(hidden,) * (depth - 1), d_out)


def aligned_balanced_weights(
    teacher: Teacher, widths: Sequence[int], strengths: Float[np.ndarray, " r"]
) -> list[Float[np.ndarray, "d_l d_k"]]:
    """Weights ``W_1..W_L`` with mode strengths ``strengths``, aligned with the teacher and balanced.

    ``W_1 = D V^T``, ``W_L = U D``, hidden layers ``D = diag(w_a^{1/L})`` in the leading corner.

    Raises
    ------
    ValueError
        If a strength is not positive, a hidden width is below the number of modes, or the outer widths are not the
        teacher's.
    """
    strengths = np.broadcast_to(np.asarray(strengths, np.float64), (teacher.modes,))
    if np.any(strengths <= 0) or not np.all(np.isfinite(strengths)):
        raise ValueError(f"strengths must be positive, got {strengths.tolist()}")
    if min(widths) < teacher.modes:
        raise ValueError(f"every width must be at least the number of modes {teacher.modes}, got {tuple(widths)}")
    if (widths[0], widths[-1]) != (teacher.right.shape[0], teacher.left.shape[0]):
        raise ValueError(
            f"widths must begin with {teacher.right.shape[0]} and end with {teacher.left.shape[0]}, the teacher's "
            f"inputs and outputs, got {tuple(widths)}"
        )
    depth = len(widths) - 1
    root = strengths ** (1 / depth)
    frames = [teacher.right, *(np.eye(d, teacher.modes) for d in widths[1:-1]), teacher.left]
    return [(after * root) @ before.T for before, after in pairwise(frames)]


def random_weights(
    rng: np.random.Generator, widths: Sequence[int], exponent: float
) -> list[Float[np.ndarray, "d_l d_k"]]:
    """Weights with independent entries ``N(0, width**-exponent)``, ``width`` the largest hidden width.

    ``exponent > 1`` is the saddle-to-saddle regime, ``exponent = 1`` the usual variance-preserving start.
    """
    width = max(widths[1:-1])
    return [rng.normal(0.0, width ** (-exponent / 2), (after, before))
            for before, after in pairwise(widths)]  # fmt: skip
