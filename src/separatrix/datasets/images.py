"""Images with class numbers that are already on the machine: handwritten digits and Fashion-MNIST."""

import gzip
import os
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

#: Folder of the IDX files, where the Debian package puts them; the environment variable overrides it.
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_VARIABLE = "SEPARATRIX_FASHION_MNIST"
#: Data sets known by name.
NAMES = ("digits", "fashion-mnist")
#: What the ten classes of Fashion-MNIST show.
FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

_IDX_IMAGES, _IDX_LABELS = 0x803, 0x801  # unsigned bytes in three dimensions, in one


def source_files(source: str) -> list[Path]:
    """Files whose content is the data of ``source``; none for what comes inside a package."""
    if source == "fashion-mnist":
        folder = Path(os.environ.get(FASHION_MNIST_VARIABLE) or FASHION_MNIST_FOLDER)
        return [folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"]
    return [Path(source)] if source.endswith(".npz") else []


def read_digits() -> tuple[Float[np.ndarray, "N 64"], Int[np.ndarray, " N"]]:
    """Pixels of the 8 x 8 images, between 0 and 16, and the digits they show.

    Raises
    ------
    ImportError
        Without scikit-learn, inside which they come.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install separatrix[data]") from error
    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels, np.float64), np.asarray(labels, np.int64)


def read_fashion_mnist() -> tuple[UInt8[np.ndarray, "N h w"], UInt8[np.ndarray, " N"]]:
    """The training images of Fashion-MNIST, in bytes, and their class numbers from 0 to 9.

    Raises
    ------
    ValueError
        If a file is missing or not what it should be: one sentence.
    """
    image_file, label_file = source_files("fashion-mnist")
    images, labels = _read_idx(image_file, _IDX_IMAGES), _read_idx(label_file, _IDX_LABELS)
    folder = image_file.parent
    if len(images) != len(labels):
        raise ValueError(f"{folder} has {len(images)} images but {len(labels)} labels")
    if np.any(labels > 9):
        raise ValueError(f"{folder} has a label {labels.max()}, but the labels must lie between 0 and 9")
    return images, labels


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
