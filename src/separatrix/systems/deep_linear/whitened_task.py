"""A regression data set as a deep linear network sees it best: whitened inputs, in the frame of its own teacher.

With ``X^T X / N = I``, the least-squares map from inputs to outputs is the correlation ``Y^T X / N``, and its singular
modes are learned one after the other (Saxe, McClelland, Ganguli 2014, arXiv 1312.6120; Corlouer et al. 2026, arXiv
2604.06366, section 2, take Gaussian inputs instead).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

#: Two singular values closer than this, relative to the larger, have no modes of their own.
SMALLEST_GAP = 1e-3
# Relative to the largest; below lies rounding.
_CORRELATION_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class WhitenedTask:
    """A data set with ``inputs.T @ inputs / N = I`` and ``outputs.T @ inputs / N = diag(singular_values)``, centred.

    New raw data become ``(x - input_mean) @ input_frame`` and ``scale * (y - output_mean) @ output_frame``. A network
    that computes ``W`` here predicts ``output_mean + output_frame @ W @ input_frame.T @ (x - input_mean) / scale``.

    Attributes
    ----------
    inputs
        ``(N, d_0)``, whitened; column a is the right singular direction of mode a.
    outputs
        ``(N, d_L)``, scaled; column a is the left singular direction of mode a.
    clean_outputs
        ``(N, d_L)``: the teacher applied to the inputs, so that ``outputs - clean_outputs`` is uncorrelated with them.
    singular_values
        ``(min(d_0, d_L),)``, the diagonal of the teacher, decreasing from 1; zero beyond the correlation's rank.
    modes
        Number of leading modes to follow.
    residual_noise
        ``(d_L,)``, root mean square of ``outputs - clean_outputs``: the effective label noise of each direction.
    kurtosis
        ``E|x|^4 / (d_0 (d_0 + 2))`` of the inputs, 1 for a Gaussian.
    scale
        Factor applied to the outputs.
    components
        ``d_0``, the principal components kept; below the number asked for where the inputs have no more.
    explained_variance
        Share of the variance of the raw inputs in these components.
    input_mean, input_frame
        ``(d,)`` and ``(d, d_0)``.
    output_mean, output_frame
        ``(k,)`` and ``(k, d_L)`` with ``d_L = k`` and orthonormal columns.
    """

    inputs: Float[np.ndarray, "N d_0"]
    outputs: Float[np.ndarray, "N d_L"]
    clean_outputs: Float[np.ndarray, "N d_L"]
    singular_values: Float[np.ndarray, " k"]
    modes: int
    residual_noise: Float[np.ndarray, " d_L"]
    kurtosis: float
    scale: float
    components: int
    explained_variance: float
    input_mean: Float[np.ndarray, " d"]
    input_frame: Float[np.ndarray, "d d_0"]
    output_mean: Float[np.ndarray, " k"]
    output_frame: Float[np.ndarray, "k d_L"]

    @property
    def teacher(self) -> Float[np.ndarray, "d_L d_0"]:
        """The least-squares map, ``(d_L, d_0)``, diagonal."""
        return _rectangular_diagonal(self.singular_values, self.outputs.shape[1], self.inputs.shape[1])


def whitened_task(
    inputs: Float[np.ndarray, "N d"], outputs: Float[np.ndarray, "N k"], *, components: int, modes: int
) -> WhitenedTask:
    """Centre and whiten the leading principal components, turn to the teacher's frame, scale its first mode to 1.

    Parameters
    ----------
    inputs, outputs
        ``(N, d)`` and ``(N, k)``, raw.
    components
        Principal components of the inputs to keep; all that vary, where there are fewer. They are always fewer than
        the samples.
    modes
        Leading modes that will be followed: they must exist and be distinct.

    Raises
    ------
    ValueError
        If the shapes do not match, a value is not finite, the inputs are constant or uncorrelated with the outputs,
        there are fewer than ``modes`` modes, or one of those is degenerate: one sentence.
    """
    inputs, outputs = np.asarray(inputs, np.float64), np.asarray(outputs, np.float64)
    if inputs.ndim != 2 or outputs.ndim != 2 or len(inputs) != len(outputs) or 0 in (*inputs.shape, *outputs.shape):
        raise ValueError(
            f"inputs and outputs must have shapes (samples, inputs) and (samples, outputs), got {inputs.shape} and "
            f"{outputs.shape}"
        )
    for name, values in (("inputs", inputs), ("outputs", outputs)):
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{name} must be finite")
    for name, value in (("components", components), ("modes", modes)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    input_mean, x, input_unit = _centred(inputs)
    output_mean, y, output_unit = _centred(outputs)
    if input_unit == 0:
        raise ValueError("the inputs are constant, so that nothing can be learned from them")
    white, input_frame, explained_variance = _whitened(x, components)
    left, s, right = _modes(y.T @ white / len(x), float(np.sqrt(np.mean(y**2))))
    leading, s = s[0], s / s[0]
    _check_modes(s, modes)
    white, rotated = white @ right, y @ (left / leading)
    clean = white @ _rectangular_diagonal(s, left.shape[0], right.shape[0]).T
    d = white.shape[1]
    return WhitenedTask(
        inputs=white,
        outputs=rotated,
        clean_outputs=clean,
        singular_values=s,
        modes=modes,
        residual_noise=np.sqrt(np.mean((rotated - clean) ** 2, axis=0)),
        kurtosis=float(np.mean(np.sum(white**2, axis=1) ** 2) / (d * (d + 2))),
        scale=float(1 / leading / output_unit),
        components=d,
        explained_variance=explained_variance,
        input_mean=input_mean,
        input_frame=input_frame @ right / input_unit,
        output_mean=output_mean,
        output_frame=left,
    )


def _centred(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean, deviations from it in units of the largest, and that unit: squares neither overflow nor underflow."""
    centred = values - values[0]  # so that the deviations of a constant column are zero, not rounding
    shift = centred.mean(axis=0)
    centred -= shift
    unit = float(max(centred.max(), -centred.min()))
    centred /= unit or 1.0
    return values[0] + shift, centred, unit


def _whitened(x: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Leading components of centred data whitened, the matrix that does it, and their share of the variance."""
    # The eigenvectors of the covariance choose the subspace cheaply; a singular value decomposition inside it, which
    # does not square the condition number, makes the components white to rounding.
    variances, axes = np.linalg.eigh(x.T @ x / len(x))
    variances, axes = variances[::-1], axes[:, ::-1]
    rounding = 10 * len(variances) * np.finfo(np.float64).eps * variances[0]
    kept = min(components, int(np.sum(variances > rounding)))
    axes = axes[:, :kept]
    white, deviations, turn = np.linalg.svd(x @ axes, full_matrices=False)
    frame = axes @ (turn.T / deviations)
    signs = _signs(frame)
    root = np.sqrt(len(x))
    share = float(np.sum(variances[:kept]) / np.sum(np.maximum(variances, 0)))
    return white * (signs * root), frame * (signs * root), share


def _modes(correlation: np.ndarray, output_size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Complete left frame, singular values (zero below rounding), complete right frame."""
    left, s, right = np.linalg.svd(correlation, full_matrices=False)
    if s[0] <= _CORRELATION_ROUNDING * output_size:
        raise ValueError("the inputs and the outputs are uncorrelated, so that a linear network has nothing to learn")
    rank = int(np.sum(s > _CORRELATION_ROUNDING * s[0]))
    left, right = left[:, :rank], right[:rank].T
    signs = _signs(left)
    return _completed(left * signs), np.where(np.arange(s.size) < rank, s, 0.0), _completed(right * signs)


def _signs(vectors: np.ndarray) -> np.ndarray:
    """Signs that make the first large entry of each column positive: a decomposition leaves them to the library."""
    size = np.abs(vectors)
    first = np.argmax(size > size.max(axis=0) / 2, axis=0)
    return np.sign(vectors[first, np.arange(vectors.shape[1])])


def _completed(vectors: np.ndarray) -> np.ndarray:
    """Square orthogonal matrix that begins with these columns; Gram-Schmidt of the axes, the same on every machine."""
    frame, triangle = np.linalg.qr(np.concatenate([vectors, np.eye(len(vectors))], axis=1))
    return frame * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)


def _check_modes(s: np.ndarray, modes: int) -> None:
    rank = int(np.sum(s > 0))
    if modes > rank:
        raise ValueError(f"modes must be at most {rank}, the rank of the input-output correlation, got {modes}")
    for mode, (this, following) in enumerate(pairwise([*s, 0.0][: modes + 1]), start=1):
        if this - following < SMALLEST_GAP * this:
            raise ValueError(
                f"modes {mode} and {mode + 1} are degenerate (relative singular values {this:.6g} and "
                f"{following:.6g}), so that their directions are not determined"
            )


def _rectangular_diagonal(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    matrix = np.zeros((rows, columns))
    np.fill_diagonal(matrix, values)
    return matrix
