"""How far has a tangent kernel moved? Distance, velocity, alignment and spectrum of kernels at several times.

A kernel may be given as its matrix, or as its products with probe vectors that all kernels share
(:mod:`separatrix.probes.tangent_kernel.products`): distances, and everything computed from them, read both alike.
Inner products are taken in float64, whatever the dtype of the kernels.

Sources: Zhou, Yang, Ren, Sugiyama, Yan 2025 (arXiv 2503.16316 and 2505.13900) for distance and velocity; Cristianini,
Shawe-Taylor, Elisseeff, Kandola 2001 for alignment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import eigsh

#: Distances below this lose digits as one minus a cosine, and are computed from the difference of the kernels.
_NEARLY_PARALLEL = 1e-4
#: Entries of each kernel that are multiplied together.
_PIECE = 2**16


def kernel_distance(first: Any, second: Any) -> float:
    """``S = 1 - <K, K'> / (|K| |K'|)`` in the Frobenius inner product, between 0 and 2; 0 for ``K' = a K``, a > 0.

    Computed as ``|K/|K| - K'/|K'||^2 / 2``, which keeps its digits where the kernels are nearly parallel. Between two
    positive semidefinite kernels it is at most 1.

    Raises
    ------
    ValueError
        If the two differ in shape, are not finite, are zero, or hold integers.
    """
    return float(distance_matrix([first, second])[0, 1])


def distance_matrix(kernels: Sequence[Any]) -> Float[np.ndarray, "n n"]:
    """Kernel distances between all pairs of n kernels, in float64; symmetric with zeros on the diagonal.

    Raises
    ------
    ValueError
        If there are fewer than two kernels, or they are not as :func:`kernel_distance` asks.
    """
    if len(kernels) < 2:
        raise ValueError(f"a distance needs at least two kernels, got {len(kernels)}")
    flat = [_flat(kernel, number, np.shape(kernels[0])) for number, kernel in enumerate(kernels)]
    products = np.zeros((len(flat), len(flat)))
    for start in range(0, flat[0].size, _PIECE):  # never all kernels in float64 at once
        piece = np.stack([one[start : start + _PIECE].astype(np.float64) for one in flat])
        products += piece @ piece.T
    lengths = np.array([np.linalg.norm(one.astype(np.float64)) for one in flat])
    for number, length in enumerate(lengths):
        if not np.isfinite(length) or length == 0:
            raise ValueError(f"kernel {number} is {'zero and has no direction' if length == 0 else 'not finite'}")
    distance = np.clip(1 - products / np.outer(lengths, lengths), 0.0, 2.0)
    for a, b in zip(*np.nonzero(np.triu(distance < _NEARLY_PARALLEL, 1)), strict=True):
        apart = flat[a] / lengths[a] - flat[b] / lengths[b]
        distance[a, b] = apart @ apart / 2
    distance = np.triu(distance, 1)
    return distance + distance.T


def _flat(kernel: Any, number: int, shape: tuple[int, ...]) -> Float[np.ndarray, " d"]:
    values = np.asarray(kernel)
    if values.shape != shape:
        raise ValueError(
            f"kernel {number} has shape {values.shape} but the first has {shape}: examples and probes must be the same"
        )
    if values.dtype.name == "bfloat16":
        values = values.astype(np.float32)
    if values.dtype.kind != "f":
        raise ValueError(f"kernel {number} holds {values.dtype}, but kernels are floating-point numbers")
    return values.ravel()


def rotation_angle(distance: Any) -> Any:
    """Angle ``arccos(1 - S)`` between kernels at distance S, in radians; keeps its digits near 0."""
    return 2 * np.arcsin(np.sqrt(np.asarray(distance, np.float64) / 2))


@dataclass(frozen=True, eq=False)
class Velocity:
    """Motion from each time to the next.

    Attributes
    ----------
    distance
        ``S(t_k, t_k+1)``, ``(n - 1,)``.
    velocity
        ``S / dt``, the paper's kernel velocity; it depends on ``dt`` even for smooth motion, where S is quadratic.
    angular_speed
        ``arccos(1 - S) / dt`` in radians for each unit of time, which does not.
    """

    distance: Float[np.ndarray, " m"]
    velocity: Float[np.ndarray, " m"]
    angular_speed: Float[np.ndarray, " m"]


def kernel_velocity(time: Float[np.ndarray, " n"], distance: Float[np.ndarray, "n n"]) -> Velocity:
    """Velocity and angular speed from the distances between kernels at increasing times.

    Raises
    ------
    ValueError
        If there is not one time for each kernel, or times do not increase.
    """
    time, distance = np.asarray(time, np.float64), np.asarray(distance, np.float64)
    if time.ndim != 1 or distance.shape != (time.size, time.size) or time.size < 2:
        raise ValueError(f"{time.size} times do not go with distances of shape {distance.shape}")
    if np.any(np.diff(time) <= 0):
        raise ValueError("times must increase")
    moved = np.diagonal(distance, offset=1).copy()
    return Velocity(moved, moved / np.diff(time), rotation_angle(moved) / np.diff(time))


def settling_time(time: Float[np.ndarray, " n"], velocity: Float[np.ndarray, " m"], share: float = 0.05) -> float:
    """First time from which the velocity stays below ``share`` of its maximum; infinite if it never does.

    ``velocity`` has one entry for each interval between the times.

    Raises
    ------
    ValueError
        If the numbers of times and velocities do not match.
    """
    if len(velocity) != len(time) - 1:
        raise ValueError(f"{len(time)} times bound {len(time) - 1} velocities, got {len(velocity)}")
    above = np.flatnonzero(np.asarray(velocity) >= share * np.max(velocity))
    last = above[-1]
    return float(time[last + 1]) if last + 1 < len(velocity) else np.inf


def effective_rank(kernel: Float[Any, "n n"]) -> float:
    """``tr(K)^2 / |K|^2``: the number of equal eigenvalues with this trace and norm."""
    kernel = np.asarray(kernel, np.float64)
    return float(np.trace(kernel) ** 2 / np.sum(kernel**2))


def top_eigenvalues(kernel: Float[Any, "n n"], count: int) -> Float[np.ndarray, " k"]:
    """Largest eigenvalues in decreasing order."""
    kernel = np.asarray(kernel, np.float64)
    if count < len(kernel) // 4:
        values = eigsh(kernel, k=count, v0=np.ones(len(kernel)), return_eigenvectors=False)
        return np.sort(values)[::-1]
    return np.linalg.eigvalsh(kernel)[::-1][:count].copy()


def label_alignment(kernel: Float[Any, "n n"], targets: Float[Any, "m k"]) -> float:
    """Alignment ``<K, Y Y^T> / (|K| |Y Y^T|)`` of a kernel with the targets, between 0 and 1.

    Parameters
    ----------
    kernel
        ``(N, N)`` for one output or a kernel contracted over classes, or ``(N C, N C)``, rows ordered by example and
        then by class.
    targets
        ``(N, C)``: centred one-hot labels or real outputs. For a full kernel they are one vector of ``N C`` numbers.

    Raises
    ------
    ValueError
        If the numbers of rows do not match, or the targets are zero.
    """
    kernel, targets = np.asarray(kernel, np.float64), np.asarray(targets, np.float64)
    if len(kernel) == targets.size:
        targets = targets.reshape(-1, 1)
    if kernel.shape != (len(targets), len(targets)):
        raise ValueError(f"a kernel of shape {kernel.shape} does not go with {targets.shape} targets")
    outer = targets.T @ targets
    if not np.any(outer):
        raise ValueError("the targets are zero")
    return float(np.sum(targets * (kernel @ targets)) / (np.linalg.norm(kernel) * np.linalg.norm(outer)))
