"""Classification problems with any number of classes, from images on this machine or a file, split for training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from separatrix.datasets.images import NAMES, read_digits, read_fashion_mnist, source_files
from separatrix.datasets.npz_arrays import read_npz, refuse_unfinite

__all__ = ["NAMES", "ClassData", "ClassSplit", "load_classes", "source_files", "split_classes"]


@dataclass(frozen=True, eq=False)
class ClassData:
    """Inputs and the class of each.

    Attributes
    ----------
    name
        Short name of the data set.
    inputs
        ``(N, d)``: pixels of the named data sets lie between 0 and 1, numbers of a file are as stored.
    labels
        ``(N,)``: 0 .. C - 1.
    classes
        C.
    image_shape
        Of an input, ``(height, width)`` or ``(height, width, channels)``; None where it is no image.
    description
        One sentence: what the data are and where they come from.
    """

    name: str
    inputs: Float[np.ndarray, "N d"]
    labels: Int[np.ndarray, " N"]
    classes: int
    image_shape: tuple[int, ...] | None
    description: str


@dataclass(frozen=True, eq=False)
class ClassSplit:
    """Disjoint training and test samples; inputs have mean 0 and variance 1 over the training set as a whole."""

    inputs: Float[np.ndarray, "N d"]
    labels: Int[np.ndarray, " N"]
    test_inputs: Float[np.ndarray, "M d"]
    test_labels: Int[np.ndarray, " M"]


def load_classes(source: str) -> ClassData:
    """Read a data set that is on this machine.

    Parameters
    ----------
    source
        ``digits`` (inside scikit-learn), ``fashion-mnist`` (the 60 000 training images; the folder can be given in the
        environment variable ``SEPARATRIX_FASHION_MNIST``), or a path ending in ``.npz`` with arrays ``x`` ``(n, d)``,
        ``(n, height, width)`` or ``(n, height, width, channels)`` and ``y`` ``(n,)`` of class numbers; these are
        renumbered from 0 in increasing order.

    Raises
    ------
    ValueError
        If the source is unknown or missing, or its content is not a problem of two or more classes with finite
        numbers: one sentence.
    ImportError
        If ``digits`` is asked for without scikit-learn.
    """
    if source == "digits":
        pixels, labels = read_digits()
        text = (
            f"{len(pixels)} handwritten digits of 8 x 8 pixels and their ten classes, as distributed with scikit-learn."
        )
        return ClassData("digits", pixels / 16.0, labels, 10, (8, 8), text)
    if source == "fashion-mnist":
        images, labels = read_fashion_mnist()
        shape = (images.shape[1], images.shape[2])
        text = (
            f"{len(images)} training images of Fashion-MNIST of {shape[0]} x {shape[1]} pixels and their ten classes."
        )
        return ClassData(source, images.reshape(len(images), -1) / 255.0, labels.astype(np.int64), 10, shape, text)
    if source.endswith(".npz"):
        return _npz(*source_files(source))
    raise ValueError(f"unknown data set {source!r}, choose digits, fashion-mnist or a FILE.npz with arrays x and y")


def split_classes(data: ClassData, test_share: float, seed: int, most: int | None = None) -> ClassSplit:
    """Split at random, then shift and scale all inputs by the mean and the spread of the training pixels together.

    Parameters
    ----------
    data
        What to split.
    test_share
        Share of the samples to test on, in (0, 1); at least one sample falls on either side.
    seed
        Seed of the split.
    most
        Samples to use at most, of the random order; all by default.

    Raises
    ------
    ValueError
        If the share is not in (0, 1), a side would be empty, or the training inputs are constant.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must lie in (0, 1), got {test_share}")
    order = np.random.default_rng([seed, 0x5B117]).permutation(len(data.labels))[:most]
    tested = max(1, round(test_share * order.size))
    test, train = order[:tested], order[tested:]
    if train.size == 0:
        raise ValueError(f"the data set has {order.size} samples, which are too few to train and to test on")
    inputs = data.inputs[train]
    mean, spread = inputs.mean(), inputs.std()
    if spread == 0:
        raise ValueError("the inputs are constant, so that there is nothing to learn")
    return ClassSplit(
        (inputs - mean) / spread, data.labels[train], (data.inputs[test] - mean) / spread, data.labels[test]
    )


def _npz(path: Path) -> ClassData:
    arrays = read_npz(path, ("x", "y"))
    x, y = arrays["x"], arrays["y"]
    if x.ndim not in (2, 3, 4) or 0 in x.shape[1:]:
        raise ValueError(
            "x must have shape (samples, inputs), (samples, height, width) or (samples, height, width, channels), got "
            f"{x.shape}"
        )
    if y.ndim != 1:
        raise ValueError(f"y must have shape (samples,) and hold class numbers, got {y.shape}")
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} samples but y has {len(y)}")
    for name, values in (("x", x), ("y", y)):
        refuse_unfinite(name, values)
    if np.any(y != np.rint(y)):
        raise ValueError(f"y must hold class numbers, but it holds {y[y != np.rint(y)][0]:g}")
    found, labels = np.unique(y, return_inverse=True)
    if found.size < 2:
        raise ValueError("y is constant, so that there is nothing to learn")
    if found.size > len(y) // 2:
        raise ValueError(f"y has {found.size} classes in {len(y)} samples, but a class needs two on average")
    samples = x.reshape(len(x), -1)
    return ClassData(
        path.stem, samples, labels.astype(np.int64), int(found.size), x.shape[1:] if x.ndim > 2 else None,
        f"{len(x)} samples of {samples.shape[1]} inputs in {found.size} classes (the file {path.name}).",
    )  # fmt: skip
