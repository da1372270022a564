"""What the exact kernels of both frameworks share: the checks of a model, and putting a kernel together from blocks."""

from collections.abc import Callable
from typing import Any

import numpy as np

from separatrix.probes.operators import ProbeError
from separatrix.probes.tangent_kernel.contraction import CONTRACTIONS


def refuse_unknown(contraction: str) -> None:
    """Raise ProbeError unless it is a contraction."""
    if contraction not in CONTRACTIONS:
        raise ProbeError(f"contraction = {contraction!r} is not allowed: it must be one of {', '.join(CONTRACTIONS)}")


def checked_shape(whole: Any, again: Any, part: Any) -> tuple[int, int]:
    """Number of examples and of outputs of a model that has a tangent kernel.

    Parameters
    ----------
    whole, again, part
        Outputs of all examples, the same once more, and those of the first few alone.

    Raises
    ------
    ProbeError
        If they are not ``(N, C)`` with N at least 2, not finite, not reproducible, or not independent.
    """
    if len(whole.shape) != 2 or whole.shape[1] == 0:
        raise ProbeError(f"outputs must have shape (examples, classes), got {tuple(whole.shape)}")
    if whole.shape[0] < 2:
        raise ProbeError(f"a kernel needs two or more examples, got {whole.shape[0]}")
    first, second, few = (np.asarray(a).astype(np.float64) for a in (whole, again, part))
    if not np.all(np.isfinite(first)):
        raise ProbeError("the outputs are not finite")
    # batches of another size may be computed in another order: rounding is no dependence
    rounding = 1e-3 if whole.dtype.itemsize < 8 else 1e-9
    size = np.abs(first).max() or 1.0
    if np.abs(first - second).max() > rounding * size:
        raise ProbeError("the outputs differ from one call to the next: switch dropout and other randomness off")
    if few.shape != (few.shape[0], first.shape[1]) or np.abs(first[: len(few)] - few).max() > rounding * size:
        raise ProbeError(
            "the outputs of an example depend on the others, so that it has no tangent kernel: put batch norm into "
            "evaluation mode"
        )
    return first.shape


def from_blocks(
    samples: int, block: int, jacobian: Callable[[int], Any], kernel: Callable[[Any, Any], np.ndarray]
) -> np.ndarray:
    """Symmetric kernel from those of pairs of blocks of examples; of Jacobians two are held at a time.

    Parameters
    ----------
    samples, block
        Number of examples, and of examples in a block; the last may be smaller.
    jacobian
        ``start -> Jacobian`` of the block that starts at this example.
    kernel
        Kernel between two blocks.
    """
    starts = range(0, samples, block)
    whole, rows = np.empty((0, 0)), 0
    for row in starts:
        first = jacobian(row)
        for column in range(row, samples, block):
            part = kernel(first, first if column == row else jacobian(column))
            if rows == 0:
                rows = part.shape[0] // block  # rows of one example
                whole = np.empty((samples * rows,) * 2, part.dtype)
            at = slice(row * rows, row * rows + part.shape[0]), slice(column * rows, column * rows + part.shape[1])
            whole[at] = part
            whole[at[::-1]] = part.T
    return whole
