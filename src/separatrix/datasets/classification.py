"""Two-class problems with labels -1 and +1, from images on this machine or a file; balanced training and test sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from separatrix.datasets.images import (
    FASHION_CLASSES,
    FASHION_MNIST_VARIABLE,
    NAMES,
    read_digits,
    read_fashion_mnist,
    source_files,
)
from separatrix.datasets.npz_arrays import read_npz, refuse_unfinite

__all__ = ["FASHION_MNIST_VARIABLE", "NAMES", "TwoClassData", "balanced_split", "load_two_classes", "source_files"]


@dataclass(frozen=True, eq=False)
class TwoClassData:
    """Inputs and the class of each.

    Attributes
    ----------
    name
        Short name of the data set.
    inputs
        ``(N, d)``; pixels of the named data sets lie between 0 and 1, numbers of a file are as stored.
    labels
        ``(N,)``, -1 or +1.
    class_names
        What the labels -1 and +1 stand for.
    image_shape
        ``(height, width)`` where the inputs are images, else None.
    true_labels
        ``(N,)`` where the labels themselves may be wrong: the right ones, and 0 where they are not known. None where
        all labels are taken to be right.
    description
        One sentence: what the data are and where they come from.
    """

    name: str
    inputs: Float[np.ndarray, "N d"]
    labels: Int[np.ndarray, " N"]
    class_names: tuple[str, str]
    image_shape: tuple[int, int] | None
    true_labels: Int[np.ndarray, " N"] | None
    description: str


def load_two_classes(source: str, classes: tuple[int, int] | None = None) -> TwoClassData:
    """Read a data set that is on this machine as a problem of two classes.

    Parameters
    ----------
    source
        ``digits`` (inside scikit-learn), ``fashion-mnist`` (the 60 000 training images; the folder can be given in the
        environment variable ``SEPARATRIX_FASHION_MNIST``), or a path ending in ``.npz`` with arrays ``x`` ``(n, d)`` or
        ``(n, height, width)`` and ``y`` ``(n,)`` of two distinct numbers, the smaller of which becomes -1. If the
        labels of a file may be wrong, ``clean`` ``(n,)`` marks those known to be right, or ``y_clean`` ``(n,)`` gives
        the right ones, NaN where not known.
    classes
        The class numbers that become -1 and +1, other samples are left out; None for odd (-1) against even (+1)
        numbers, or for both numbers of a file.

    Raises
    ------
    ValueError
        If the source is unknown or missing, or its content is not a problem of two classes with finite numbers and at
        least two samples of each class: one sentence.
    ImportError
        If ``digits`` is asked for without scikit-learn.
    """
    if source in NAMES:
        data = _images(source, classes)
    elif source.endswith(".npz"):
        data = _npz(Path(source), classes)
    else:
        raise ValueError(f"unknown data set {source!r}, choose digits, fashion-mnist or a FILE.npz with arrays x and y")
    for label, name in zip((-1, 1), data.class_names, strict=True):
        count = int(np.sum(data.labels == label))
        if count < 2:
            raise ValueError(f"class {name} has {count} sample{'s' * (count != 1)}, but each class needs at least 2")
    return data


def balanced_split(
    labels: Int[np.ndarray, " N"], train: int, test: int, seed: int | Sequence[int],
    testable: Bool[np.ndarray, " N"] | None = None,
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:  # fmt: skip
    """Indices of disjoint training and test sets, each with equally many samples of both classes, in random order.

    Parameters
    ----------
    labels
        -1 or +1 for each sample.
    train, test
        Sizes of the two sets, even numbers.
    seed
        Seed of the choice, as of ``numpy.random.default_rng``.
    testable
        Samples that may be tested on, for example those with a label known to be right; all by default.

    Raises
    ------
    ValueError
        If a size is negative or odd, or there are too few samples of a class.
    """
    for name, size in (("train", train), ("test", test)):
        if size < 0 or size % 2:
            raise ValueError(f"{name} must be an even number and not negative, got {size}")
    rng = np.random.default_rng(seed)
    allowed = np.ones(labels.shape, bool) if testable is None else testable
    chosen: list[np.ndarray] = []
    for label in (-1, 1):
        order = rng.permutation(np.flatnonzero(labels == label))
        held_out = order[allowed[order]][: test // 2]
        rest = order[~np.isin(order, held_out)][: train // 2]
        for name, found, size in (("test on", held_out, test), ("train on", rest, train)):
            if found.size < size // 2:
                raise ValueError(f"there are {found.size} samples of class {label:+d} to {name}, not {size // 2}")
        chosen += [rest, held_out]
    return rng.permutation(np.concatenate(chosen[0::2])), rng.permutation(np.concatenate(chosen[1::2]))


def _images(source: str, classes: tuple[int, int] | None) -> TwoClassData:
    if source == "digits":
        pixels, numbers = read_digits()
        images, names = pixels.reshape(-1, 8, 8) / 16.0, tuple(str(digit) for digit in range(10))
        origin = "handwritten digits of 8 x 8 pixels, as distributed with scikit-learn"
    else:
        pixels, numbers = read_fashion_mnist()
        images, names = pixels, FASHION_CLASSES  # divided only after the choice: all of them as floats take 376 MB
        origin = f"training images of Fashion-MNIST of {pixels.shape[1]} x {pixels.shape[2]} pixels"
    numbers = np.asarray(numbers, np.int64)
    if classes is None:
        kept, labels, class_names = np.arange(numbers.size), np.where(numbers % 2, -1, 1), ("odd", "even")
    else:
        _refuse_classes(classes, set(range(10)))
        kept = np.flatnonzero(np.isin(numbers, classes))
        labels, class_names = np.where(numbers[kept] == classes[0], -1, 1), (names[classes[0]], names[classes[1]])
    chosen = images[kept] if source == "digits" else images[kept] / 255.0
    return TwoClassData(
        source, chosen.reshape(len(kept), -1), labels, class_names, (images.shape[1], images.shape[2]), None,
        f"{len(kept)} {origin}: {class_names[0]} against {class_names[1]}, pixels between 0 and 1.",
    )  # fmt: skip


def _npz(path: Path, classes: tuple[int, int] | None) -> TwoClassData:
    arrays = read_npz(path, ("x", "y"), ("clean", "y_clean"))
    x, y = arrays["x"], arrays["y"]
    if x.ndim not in (2, 3) or 0 in x.shape[1:]:
        raise ValueError(f"x must have shape (samples, inputs) or (samples, height, width), got {x.shape}")
    if y.ndim != 1:
        raise ValueError(f"y must have shape (samples,), got {y.shape}")
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} samples but y has {len(y)}")
    for name, values in (("x", x), ("y", y)):
        refuse_unfinite(name, values)
    found = np.unique(y)
    if classes is None:
        if found.size != 2:
            raise ValueError(f"y must hold two distinct labels, it holds {found.size}")
        low, high = found
    else:
        _refuse_classes(classes, set(found.tolist()))
        low, high = map(float, classes)
    signs = lambda values: np.where(values == low, -1, np.where(values == high, 1, 0))  # noqa: E731
    kept = np.flatnonzero(signs(y))
    truth = _true_labels(arrays, y, (low, high), signs)
    samples, shape = x[kept].reshape(kept.size, -1), x.shape[1:] if x.ndim == 3 else None
    return TwoClassData(
        path.stem, samples, signs(y)[kept], (f"{low:g}", f"{high:g}"), shape, None if truth is None else truth[kept],
        f"{kept.size} samples of {samples.shape[1]} inputs: {low:g} against {high:g} (the file {path.name}).",
    )  # fmt: skip


def _true_labels(arrays: dict[str, np.ndarray], y: np.ndarray, pair: tuple[float, float], signs):
    """True labels of a file as signs, 0 where not known; None if the file says nothing of them."""
    if "y_clean" in arrays:
        right = arrays["y_clean"]
        if right.shape != y.shape:
            raise ValueError(f"y_clean must have the shape of y, {y.shape}, got {right.shape}")
        if np.any(np.isinf(right)):
            raise ValueError("y_clean must hold labels, or NaN where the right one is not known, but it is infinite")
        chosen = np.isin(y, pair) & ~np.isnan(right)
        strange = right[chosen & ~np.isin(right, pair)]
        if strange.size:
            raise ValueError(f"y_clean must hold the labels of y, {pair[0]:g} and {pair[1]:g}, it holds {strange[0]:g}")
        return signs(right)
    if "clean" in arrays:
        flags = arrays["clean"]
        if flags.shape != y.shape:
            raise ValueError(f"clean must have the shape of y, {y.shape}, got {flags.shape}")
        if not np.all(np.isin(flags, (0, 1))):
            raise ValueError("clean must be true where a label is known to be right and false elsewhere")
        return np.where(flags == 1, signs(y), 0)
    return None


def _refuse_classes(classes: tuple[int, int], known: set) -> None:
    if classes[0] == classes[1]:
        raise ValueError(f"the two classes must differ, got {classes[0]} twice")
    for one in classes:
        if one not in known:
            shown = ", ".join(f"{value:g}" for value in sorted(known)[:10])
            raise ValueError(f"there is no class {one}, the classes are {shown}{', ...' if len(known) > 10 else ''}")
