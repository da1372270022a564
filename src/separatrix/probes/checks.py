"""What is asked of the loss of a model of either framework before it is differentiated."""

from collections.abc import Sequence

import numpy as np

from separatrix.probes.operators import ProbeError


def check_reduction(reduction: str) -> None:
    """Raise ProbeError unless it is a mean or a sum."""
    if reduction not in ("mean", "sum"):
        raise ProbeError(f"reduction must be 'mean' or 'sum', got {reduction!r}")


def check_values(first: float, second: float, dtype: np.dtype, advice: str) -> None:
    """That the loss is finite and the same in two calls.

    Parameters
    ----------
    first, second
        Of the same batch.
    dtype
        Of the parameters.
    advice
        What to do if it changes, the end of the sentence.

    Raises
    ------
    ProbeError
        If not.
    """
    if not np.isfinite(first):
        raise ProbeError(f"the loss is {first} at these parameters: it has no derivatives to measure")
    if abs(first - second) > 100 * np.finfo(dtype).eps * abs(first):
        raise ProbeError(f"the loss changes from call to call{advice}")


def check_separable(whole: float, single: Sequence[float], reduction: str, what: str) -> None:
    """That the loss of a batch is the mean (or sum) of the losses of its examples.

    Parameters
    ----------
    whole, single
        Loss of a batch, and of each of its examples alone.
    reduction
        ``"mean"`` or ``"sum"``.
    what
        What is wanted of single examples, the beginning of the sentence.

    Raises
    ------
    ProbeError
        If not.
    """
    expected = float(np.mean(single)) if reduction == "mean" else float(np.sum(single))
    if not abs(whole - expected) <= 1e-3 * max(abs(whole), float(np.mean(np.abs(single)))):
        raise ProbeError(
            f"{what} cannot be taken: the loss of a batch is not the {reduction} of the losses of its examples "
            f"({whole:.6g} and {expected:.6g}), as with batch statistics or another reduction"
        )
