"""Data sets of real vectors ``x`` and ``y`` to regress one on the other; classes become centred one-hot vectors."""

import gzip
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

#: Folder of the IDX files, where the Debian package puts them; the environment variable overrides it.
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_VARIABLE = "SEPARATRIX_FASHION_MNIST"
#: Data sets known by name.
NAMES = ("digits", "fashion-mnist")

_IDX_IMAGES, _IDX_LABELS = 0x803, 0x801  # unsigned bytes in three dimensions, in one


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


def source_files(source: str) -> list[Path]:
    """Files whose content is the data of ``source``; none for what comes inside a package."""
    if source == "fashion-mnist":
        folder = Path(os.environ.get(FASHION_MNIST_VARIABLE) or FASHION_MNIST_FOLDER)
        return [folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"]
    return [Path(source)] if source.endswith(".npz") else []


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
        data = _fashion_mnist(*source_files(source))
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
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install separatrix[data]") from error
    pixels, labels = load_digits(return_X_y=True)
    return RegressionData(
        "digits",
        np.asarray(pixels, np.float64),
        _centred_one_hot(np.asarray(labels), 10),
        "1797 handwritten digits of 8 x 8 pixels and their ten classes, centred one-hot (test part of the UCI data "
        "set Optical Recognition of Handwritten Digits, as distributed with scikit-learn).",
    )


def _centred_one_hot(labels: np.ndarray, classes: int) -> Float[np.ndarray, "N k"]:
    one_hot = np.eye(classes)[labels]
    return one_hot - one_hot.mean(axis=0)


# -- Fashion-MNIST ------------------------------------------------------------------------------------------------


def _fashion_mnist(image_file: Path, label_file: Path) -> RegressionData:
    images, labels = _read_idx(image_file, _IDX_IMAGES), _read_idx(label_file, _IDX_LABELS)
    folder = image_file.parent
    if len(images) != len(labels):
        raise ValueError(f"{folder} has {len(images)} images but {len(labels)} labels")
    if np.any(labels > 9):
        raise ValueError(f"{folder} has a label {labels.max()}, but the labels must lie between 0 and 9")
    return RegressionData(
        "fashion-mnist",
        images.reshape(len(images), -1) / 255.0,
        _centred_one_hot(labels, 10),
        f"{len(images)} training images of {images.shape[1]} x {images.shape[2]} pixels between 0 and 1 and their ten "
        "classes, centred one-hot (Fashion-MNIST, Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747, Debian package "
        "dataset-fashion-mnist).",
    )


def _read_idx(path: Path, magic: int) -> UInt8[np.ndarray, "..."]:
    """Array of an IDX file: magic number (its last byte counts the dimensions), sizes, bytes."""
    try:
        with gzip.open(path) as stream:
            content = stream.read()
    except FileNotFoundError:
        raise ValueError(
            f"there is no file {path}, install the Debian package dataset-fashion-mnist or name the folder of its "
            f"files in the environment variable {FASHION_MNIST_VARIABLE}"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a gzip file ({error})") from None
    header = 4 + 4 * (magic & 0xFF)
    found, *sizes = (int.from_bytes(content[i : i + 4], "big") for i in range(0, header, 4))
    if len(content) < header or found != magic:
        raise ValueError(f"{path} is not an IDX file with magic number {magic}, its magic number is {found}")
    if len(content) - header != np.prod(sizes, dtype=object) or 0 in sizes:
        raise ValueError(
            f"{path} announces {' x '.join(map(str, sizes))} values, but {len(content) - header} follow its header"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)


# -- files --------------------------------------------------------------------------------------------------------


def _npz(path: Path) -> RegressionData:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an npz file, write it with numpy.savez(FILE, x=..., y=...)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in ("x", "y") if name not in archive.files]
            if missing:
                present = " and ".join(archive.files) or "no array at all"
                raise ValueError(f"{path} has no array {' and no array '.join(missing)}, it has {present}")
            x, y = (_real_array(name, _stored_array(archive, name)) for name in ("x", "y"))
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as an npz file ({error})") from None
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"x must have shape (samples, inputs), got {x.shape}")
    if y.ndim == 1:
        y = y[:, None]
    if y.ndim != 2 or y.shape[1] == 0:
        raise ValueError(f"y must have shape (samples, outputs) or (samples,), got {y.shape}")
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} samples but y has {len(y)}")
    for name, values in (("x", x), ("y", y)):
        count = int(np.sum(~np.isfinite(values)))
        if count:
            raise ValueError(f"{name} has {count} value{'s that are' if count > 1 else ' that is'} not finite")
    return RegressionData(
        path.stem, x, y, f"{len(x)} samples of {x.shape[1]} inputs and {y.shape[1]} outputs (the file {path.name})."
    )


def _stored_array(archive: "np.lib.npyio.NpzFile", name: str) -> np.ndarray:
    try:
        values = archive[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):  # NumPy's own advice is to unpickle, which runs code from the file
            raise ValueError(f"{name} holds Python objects, but it must hold real numbers") from None
        raise ValueError(f"{name} is damaged and cannot be read ({error})") from None
    if not isinstance(values, np.ndarray):  # a member of the archive that was not written by NumPy comes as bytes
        raise ValueError(f"{name} is not a NumPy array")
    return values


def _real_array(name: str, values: np.ndarray) -> Float[np.ndarray, "..."]:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, got {values.dtype}")
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes infinite, and is refused as such
        return np.asarray(values, np.float64)
