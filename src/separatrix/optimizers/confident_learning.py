"""Confident learning: which labels are probably wrong, from predicted probabilities and observed labels.

Source: Northcutt, Jiang, Chuang (2021), Journal of Artificial Intelligence Research 70. A baseline for small-loss
selection: it estimates the joint distribution of observed and true labels and drops as many samples as that asks for.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int


def confident_joint(probabilities: Float[np.ndarray, "n K"], labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, "K K"]:
    """Number of samples with observed class i (row) that confidently belong to class j (column).

    A sample belongs to a class if its probability reaches the mean over the samples labelled so; to the most probable
    one if there are several, to none if there is none.

    Raises
    ------
    ValueError
        If shapes do not fit, a probability is not one, or a class has no sample.
    """
    _refuse(probabilities, labels)
    believed = _believed(probabilities, labels)
    joint = np.zeros((probabilities.shape[1],) * 2, np.int64)
    counted = believed >= 0
    np.add.at(joint, (labels[counted], believed[counted]), 1)
    return joint


def wrong_labels(
    probabilities: Float[np.ndarray, "n K"],
    labels: Int[np.ndarray, " n"],
    method: Literal["noise rate", "joint"] = "noise rate",
) -> Bool[np.ndarray, " n"]:
    """Which labels are taken for wrong.

    Parameters
    ----------
    probabilities
        Predicted probabilities of the classes, preferably out of sample.
    labels
        Observed classes, from 0 to K - 1.
    method
        ``noise rate``: for each pair of classes as many samples as the calibrated joint expects, those with the
        largest margin of the other class. ``joint``: the samples off the diagonal of the confident joint.

    Raises
    ------
    ValueError
        As of :func:`confident_joint`.
    """
    _refuse(probabilities, labels)
    if method == "joint":
        believed = _believed(probabilities, labels)
        return (believed >= 0) & (believed != labels)
    joint = confident_joint(probabilities, labels).astype(np.float64)
    classes = joint.shape[0]
    counts = np.bincount(labels, minlength=classes)
    rows = joint.sum(axis=1)
    # the rows of the calibrated joint add up to the observed counts; a class without confident samples is believed
    expected = np.where(rows[:, None] > 0, joint / np.maximum(rows, 1)[:, None] * counts[:, None], np.diag(counts))
    wrong = np.zeros(len(labels), bool)
    for i in range(classes):
        members = np.flatnonzero(labels == i)
        for j in range(classes):
            if i != j:
                margin = probabilities[members, j] - probabilities[members, i]
                wrong[members[np.argsort(-margin, kind="stable")[: round(expected[i, j])]]] = True
    return wrong


def _believed(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The class to which each sample confidently belongs, -1 if to none."""
    thresholds = np.array([probabilities[labels == j, j].mean() for j in range(probabilities.shape[1])])
    confident = probabilities >= thresholds
    return np.where(confident.any(axis=1), np.where(confident, probabilities, -1.0).argmax(axis=1), -1)


def _refuse(probabilities: np.ndarray, labels: np.ndarray) -> None:
    n, classes = probabilities.shape
    if labels.shape != (n,):
        raise ValueError(f"there must be one label for each of the {n} samples, got {labels.shape}")
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise ValueError("probabilities must lie between 0 and 1")
    if not np.array_equal(np.unique(labels), np.arange(classes)):
        raise ValueError(f"labels must be the numbers from 0 to {classes - 1}, each of them at least once")
