"""Small-loss sample selection: keep the samples whose labels the network believes, in one's own training.

Arrays may be of NumPy, JAX (inside ``jit`` too) or PyTorch, results are of the same kind. The threshold log 2 is from
Han et al. (ICML 2025, arXiv 2505.18909): the logistic loss on the decision boundary, so that a sample is kept if the
network gives it its observed label. It tells right labels from wrong ones in Stage I of training only, before the
wrong ones are memorised: see :mod:`separatrix.optimizers.early_stopping` for when that is.
"""

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from array_api_compat import array_namespace

#: Loss on the boundary between two classes.
LOG_TWO = log(2.0)


def logistic_losses(outputs: Any, labels: Any) -> Any:
    """``log(1 + exp(-label * output))`` of each sample, without overflow.

    Parameters
    ----------
    outputs
        ``(n,)``: logits of one output, positive for the class +1.
    labels
        ``(n,)``: +1 and -1, of the dtype of the outputs.
    """
    margins = outputs * labels
    xp = array_namespace(margins)
    return xp.logaddexp(xp.zeros_like(margins), -margins)


def cross_entropy_losses(logits: Any, labels: Any) -> Any:
    """Cross entropy of each sample, ``(n,)``; above log 2 if the observed class has less than half the probability.

    Parameters
    ----------
    logits
        ``(n, K)``.
    labels
        ``(n,)``: class numbers from 0 to K - 1.
    """
    xp = array_namespace(logits)
    shifted = logits - xp.max(logits, axis=1, keepdims=True)
    observed = xp.arange(logits.shape[1], dtype=labels.dtype)[None, :] == labels[:, None]
    chosen = xp.sum(xp.where(observed, shifted, xp.zeros_like(shifted)), axis=1)
    return xp.log(xp.sum(xp.exp(shifted), axis=1)) - chosen


def small_loss(losses: Any, threshold: float = LOG_TWO) -> Any:
    """Which samples have a loss below the threshold, ``(n,)`` booleans; one on the boundary is not kept."""
    return losses < threshold


def smallest_share(losses: Any, share: float) -> Any:
    """Which samples are among the ``share`` of smallest losses, ``(n,)`` booleans; ties with the last are too.

    For a known share of right labels, ``share = 1 - noise rate`` (as co-teaching does).

    Raises
    ------
    ValueError
        If ``share`` is not in ``(0, 1]``.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    xp = array_namespace(losses)
    count = max(round(share * losses.shape[0]), 1)
    return losses <= xp.sort(losses)[count - 1]


def kept_mean(losses: Any, kept: Any) -> Any:
    """Mean loss of the kept samples, 0 if none is kept: what to differentiate in the training step."""
    xp = array_namespace(losses)
    count = xp.sum(xp.where(kept, xp.ones_like(losses), xp.zeros_like(losses)))
    return xp.sum(xp.where(kept, losses, xp.zeros_like(losses))) / xp.maximum(count, xp.ones_like(count))


@dataclass(frozen=True)
class SelectionQuality:
    """How well a selection tells right labels from wrong ones.

    Attributes
    ----------
    accuracy
        Share of the samples that are kept with a right or dropped with a wrong label.
    precision
        Share of wrong labels among those dropped; NaN if none is dropped.
    recall
        Share of those dropped among the wrong labels; NaN if no label is wrong.
    """

    accuracy: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing is found, NaN if there is nothing to find."""
        if np.isnan(self.recall):
            return float("nan")
        return 2 * self.precision * self.recall / (self.precision + self.recall) if self.recall > 0 else 0.0


def selection_quality(kept: Any, right: Any) -> SelectionQuality:
    """Compare a selection with the truth.

    Parameters
    ----------
    kept, right
        ``(n,)`` booleans of NumPy, or what converts to them: which samples are kept, and which have a right label.

    Raises
    ------
    ValueError
        If there is no sample or the two differ in number.
    """
    kept, right = np.asarray(kept, bool), np.asarray(right, bool)
    if kept.shape != right.shape or kept.size == 0:
        raise ValueError(f"a selection needs one truth for each sample, got {kept.shape} and {right.shape}")
    dropped, wrong = ~kept, ~right
    found = float(np.sum(dropped & wrong))
    return SelectionQuality(
        float(np.mean(kept == right)),
        found / float(dropped.sum()) if dropped.any() else float("nan"),
        found / float(wrong.sum()) if wrong.any() else float("nan"),
    )
