"""Starts of deep linear networks whose learning time does, or does not, depend on depth.

Source: Saxe, McClelland, Ganguli 2014, arXiv 1312.6120, sections 2 and 3: decoupled starts, random orthogonal and
scaled Gaussian weights, and greedy unsupervised pretraining, which leads to a decoupled start where the principal
directions of the inputs are the right singular vectors of the task. Beside
:mod:`separatrix.systems.deep_linear.teacher`.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from separatrix.systems.deep_linear.domain import check_positive
from separatrix.systems.deep_linear.teacher import Teacher


def random_frame(rng: np.random.Generator, dimension: int, columns: int) -> Float[np.ndarray, "d k"]:
    """``(dimension, columns)`` with orthonormal columns (rows, if there are more columns), uniform over all such."""
    tall = rng.normal(size=(max(dimension, columns), min(dimension, columns)))
    frame, triangle = np.linalg.qr(tall)
    frame = frame * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)
    return frame if dimension >= columns else frame.T


def decoupled_weights(
    rng: np.random.Generator, teacher: Teacher, widths: Sequence[int], strengths: Float[np.ndarray, " r"]
) -> list[Float[np.ndarray, "d_l d_k"]]:
    """``W_l = R_{l+1} D R_l^T`` with random hidden frames, ``R_1 = V``, ``R_{L+1} = U``, balanced: ``D = u^{1/L}``.

    Parameters
    ----------
    rng
        Draws the hidden frames.
    teacher, widths
        The map to learn and ``(d_0, ..., d_L)``; every width is at least the number of modes.
    strengths
        ``(r,)`` or one for all modes, positive.

    Raises
    ------
    ValueError
        If a strength is not positive, a width is below the number of modes, or the outer widths are not the teacher's.
    """
    check_positive(strengths=strengths)
    if min(widths) < teacher.modes:
        raise ValueError(f"every width must be at least the number of modes {teacher.modes}, got {tuple(widths)}")
    if (widths[0], widths[-1]) != (teacher.right.shape[0], teacher.left.shape[0]):
        raise ValueError(
            f"widths must begin with {teacher.right.shape[0]} and end with {teacher.left.shape[0]}, the teacher's "
            f"inputs and outputs, got {tuple(widths)}"
        )
    root = np.broadcast_to(np.asarray(strengths, np.float64), (teacher.modes,)) ** (1 / (len(widths) - 1))
    frames = [teacher.right, *(random_frame(rng, d, teacher.modes) for d in widths[1:-1]), teacher.left]
    return [(after * root) @ before.T for before, after in pairwise(frames)]


def orthogonal_weights(
    rng: np.random.Generator, widths: Sequence[int], gain: float = 1.0
) -> list[Float[np.ndarray, "d_l d_k"]]:
    """Random orthogonal layers (semi-orthogonal where two widths differ) times ``gain``.

    Every singular value of a product of D square layers is ``gain^D``.
    """
    return [gain * random_frame(rng, after, before) for before, after in pairwise(widths)]


def gaussian_weights(
    rng: np.random.Generator, widths: Sequence[int], gain: float = 1.0
) -> list[Float[np.ndarray, "d_l d_k"]]:
    """Independent entries ``N(0, gain^2 / fan_in)``: with gain 1 a layer keeps the squared norm on average."""
    return [rng.normal(0.0, gain / np.sqrt(before), (after, before)) for before, after in pairwise(widths)]


def zero_balanced_weights(
    rng: np.random.Generator, widths: Sequence[int], singular_values: Float[np.ndarray, " k"]
) -> list[Float[np.ndarray, "d_l d_k"]]:
    """Two layers with ``W_1 W_1^T = W_2^T W_2``, of random singular vectors and the given singular values.

    Raises
    ------
    ValueError
        If ``widths`` are not three, or fewer than the singular values.
    """
    s = np.asarray(singular_values, np.float64)
    if len(widths) != 3 or min(widths) < s.size:
        raise ValueError(f"widths must be three, each at least the {s.size} singular values, got {tuple(widths)}")
    right, hidden, left = (random_frame(rng, d, s.size) for d in widths)
    return [(hidden * s) @ right.T, (left * s) @ hidden.T]


def pretrained_weights(
    rng: np.random.Generator,
    input_covariance: Float[np.ndarray, "d_0 d_0"],
    widths: Sequence[int],
    output_frame: Float[np.ndarray, "d_L r"],
    strengths: Float[np.ndarray, " r"],
) -> list[Float[np.ndarray, "d_l d_k"]]:
    """Hidden layers as greedy linear autoencoders leave them, and a last layer of modes ``strengths`` on top.

    A linear autoencoder that has learned from a small start projects on the leading principal directions of its
    input: its encoder is ``R V_h^T`` with orthonormal R. Stacked, ``W_l = R_{l+1} R_l^T`` with ``R_1 = V``, and the
    last layer is ``output_frame @ diag(strengths) @ R_L^T`` for the leading r directions. The start is decoupled for
    a task whose right singular vectors are the principal directions, in the same order, and for no other.

    Parameters
    ----------
    rng
        Draws the hidden frames.
    input_covariance
        Positive definite, with distinct eigenvalues.
    widths
        ``(d_0, ..., d_L)`` with hidden widths at least r and not increasing beyond ``d_0``.
    output_frame, strengths
        ``(d_L, r)`` with orthonormal columns, and ``(r,)``.

    Raises
    ------
    ValueError
        If a hidden width is below r or above the width before it.
    """
    covariance = np.asarray(input_covariance, np.float64)
    modes = output_frame.shape[1]
    if min(widths[1:-1]) < modes or any(after > before for before, after in pairwise(widths[:-1])):
        raise ValueError(
            f"hidden widths must be at least the {modes} modes and never larger than the width before, got "
            f"{tuple(widths)}"
        )
    values, directions = np.linalg.eigh(covariance)
    frame, weights = directions[:, np.argsort(-values)], []
    for width in widths[1:-1]:
        rotation = random_frame(rng, width, width)
        weights.append(rotation @ frame[:, :width].T)
        frame = rotation
    weights.append((output_frame * strengths) @ frame[:, :modes].T)
    return weights
