"""Data sets of real vectors ``x`` and ``y`` to regress one on the other; classes become centred one-hot vectors."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from separatrix.datasets.images import (
    FASHION_MNIST_FOLDER,
    FASHION_MNIST_VARIABLE,
    NAMES,
    read_digits,
    read_fashion_mnist,
    source_files,
)
from separatrix.datasets.npz_arrays import read_npz, refuse_unfinite

__all__ = [
    "FASHION_MNIST_FOLDER",
    "FASHION_MNIST_VARIABLE",
    "NAMES",
    "RegressionData",
    "load_regression",
    "source_files",
]


@dataclass(frozen=True, eq=False)
class RegressionData:
    """Inputs and the outputs to predict from them.

    Attributes
    ----------
    name
        Short name of the data set.
    inputs
        ``(N, d)``, as stored, neither centred nor scaled.
    outputs
        ``(N, k)``.
    description
        One sentence: what the data are and where they come from.
    """

    name: str
    inputs: Float[np.ndarray, "N d"]
    outputs: Float[np.ndarray, "N k"]
    description: str


def load_regression(source: str) -> RegressionData:
    """Read a data set that is on this machine.

    Parameters
    ----------
    source
        ``digits`` (inside scikit-learn), ``fashion-mnist`` (the 60 000 training images; the folder can be given in the
        environment variable ``SEPARATRIX_FASHION_MNIST``), or a path ending in ``.npz`` with arrays ``x`` ``(n, d)``
        and ``y`` ``(n, k)`` or ``(n,)``. The ``y`` of a file are real numbers: class numbers are not made one-hot.

    Raises
    ------
    ValueError
        If the source is unknown or missing, or its content is not a regression problem with finite numbers, more
        samples than inputs, and outputs that vary: one sentence.
    ImportError
        If ``digits`` is asked for without scikit-learn.
    """
    if source == "digits":
        data = _digits()
    elif source == "fashion-mnist":
        data = _fashion_mnist()
    elif source.endswith(".npz"):
        data = _npz(*source_files(source))
    else:
        raise ValueError(f"unknown data set {source!r}, choose digits, fashion-mnist or a FILE.npz with arrays x and y")
    samples, d_in = data.inputs.shape
    if samples <= d_in:
        raise ValueError(f"x has {samples} samples of {d_in} inputs, but there must be more samples than inputs")
    if np.all(data.outputs == data.outputs[0]):
        raise ValueError("y is constant, so that there is nothing to learn")
    return data


def _digits() -> RegressionData:
    pixels, labels = read_digits()
    return RegressionData(
        "digits",
        pixels,
        _centred_one_hot(labels, 10),
        "1797 handwritten digits of 8 x 8 pixels and their ten classes, centred one-hot (test part of the UCI data "
        "set Optical Recognition of Handwritten Digits, as distributed with scikit-learn).",
    )


def _fashion_mnist() -> RegressionData:
    images, labels = read_fashion_mnist()
    return RegressionData(
        "fashion-mnist",
        images.reshape(len(images), -1) / 255.0,
        _centred_one_hot(labels, 10),
        f"{len(images)} training images of {images.shape[1]} x {images.shape[2]} pixels between 0 and 1 and their ten "
        "classes, centred one-hot (Fashion-MNIST, Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747, Debian package "
        "dataset-fashion-mnist).",
    )


def _centred_one_hot(labels: np.ndarray, classes: int) -> Float[np.ndarray, "N k"]:
    one_hot = np.eye(classes)[labels]
    return one_hot - one_hot.mean(axis=0)


def _npz(path: Path) -> RegressionData:
    arrays = read_npz(path, ("x", "y"))
    x, y = arrays["x"], arrays["y"]
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"x must have shape (samples, inputs), got {x.shape}")
    if y.ndim == 1:
        y = y[:, None]
    if y.ndim != 2 or y.shape[1] == 0:
        raise ValueError(f"y must have shape (samples, outputs) or (samples,), got {y.shape}")
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} samples but y has {len(y)}")
    for name, values in (("x", x), ("y", y)):
        refuse_unfinite(name, values)
    return RegressionData(
        path.stem, x, y, f"{len(x)} samples of {x.shape[1]} inputs and {y.shape[1]} outputs (the file {path.name})."
    )
