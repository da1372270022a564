import gzip
import sys
import zipfile

import numpy as np
import pytest

from separatrix.datasets.regression import FASHION_MNIST_FOLDER, FASHION_MNIST_VARIABLE, load_regression

INPUTS = np.arange(12.0).reshape(6, 2) ** 2
OUTPUTS = np.array([0.0, 1, 0, 1, 1, 0])


@pytest.fixture
def refused(tmp_path):
    """Load the file ``data.npz`` made of these arrays and return the one sentence that refuses it."""

    def sentence(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return refusal(tmp_path / "data.npz")

    return sentence


def refusal(source):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the callers compare the sentence)
        load_regression(str(source))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("outputs", "columns"),
    [(OUTPUTS, 1), (OUTPUTS[:, None], 1), (INPUTS, 2), (OUTPUTS > 0, 1), (OUTPUTS.astype(int), 1)],
)
def test_a_file_gives_its_arrays_as_float64_columns(tmp_path, outputs, columns):
    np.savez(tmp_path / "my data.npz", x=INPUTS.astype(np.float32), y=outputs, other=np.array("of any kind"))
    data = load_regression(str(tmp_path / "my data.npz"))
    assert data.name == "my data"
    assert data.inputs.dtype == data.outputs.dtype == np.float64
    np.testing.assert_array_equal(data.inputs, INPUTS)
    np.testing.assert_array_equal(data.outputs, np.reshape(outputs, (6, columns)))
    assert data.description == f"6 samples of 2 inputs and {columns} outputs (the file my data.npz)."


def test_compressed_files_are_read_too(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", x=INPUTS, y=OUTPUTS)
    np.testing.assert_array_equal(load_regression(str(tmp_path / "data.npz")).inputs, INPUTS)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"y": OUTPUTS}, "has no array x, it has y"),
        ({"x": INPUTS}, "has no array y, it has x"),
        ({"a": INPUTS, "b": OUTPUTS}, "has no array x and no array y, it has a and b"),
        ({}, "has no array x and no array y, it has no array at all"),
        ({"x": INPUTS.astype(object), "y": OUTPUTS}, "x holds Python objects, but it must hold real numbers"),
        ({"x": INPUTS, "y": OUTPUTS * 1j}, "y must hold real numbers, got complex128"),
        ({"x": INPUTS, "y": OUTPUTS.astype(str)}, "y must hold real numbers, got <U32"),
        ({"x": INPUTS[:, 0], "y": OUTPUTS}, "x must have shape (samples, inputs), got (6,)"),
        ({"x": INPUTS[None], "y": OUTPUTS}, "x must have shape (samples, inputs), got (1, 6, 2)"),
        ({"x": INPUTS[:, :0], "y": OUTPUTS}, "x must have shape (samples, inputs), got (6, 0)"),
        ({"x": INPUTS, "y": np.array(1.0)}, "y must have shape (samples, outputs) or (samples,), got ()"),
        ({"x": INPUTS, "y": INPUTS[None]}, "y must have shape (samples, outputs) or (samples,), got (1, 6, 2)"),
        ({"x": INPUTS, "y": INPUTS[:, :0]}, "y must have shape (samples, outputs) or (samples,), got (6, 0)"),
        ({"x": INPUTS, "y": OUTPUTS[:5]}, "x has 6 samples but y has 5"),
        ({"x": np.where(INPUTS < 5, np.nan, INPUTS), "y": OUTPUTS}, "x has 3 values that are not finite"),
        ({"x": INPUTS, "y": np.where(np.arange(6) == 1, np.inf, OUTPUTS)},
         "y has 1 value that is not finite"),
        ({"x": INPUTS[:2], "y": OUTPUTS[:2]},
         "x has 2 samples of 2 inputs, but there must be more samples than inputs"),
        ({"x": INPUTS[:0], "y": OUTPUTS[:0]},
         "x has 0 samples of 2 inputs, but there must be more samples than inputs"),
        ({"x": INPUTS, "y": np.ones((6, 2)) * [1, 7]}, "y is constant, so that there is nothing to learn"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_regression_problem_is_refused_in_one_sentence(refused, arrays, sentence):
    assert refused(**arrays).endswith(sentence)


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(np.float64).max, reason="long double is float64 here")
def test_numbers_beyond_float64_are_not_finite(refused):
    huge = np.where(np.arange(6) == 0, np.longdouble(10) ** 400, OUTPUTS)
    assert refused(x=INPUTS, y=huge) == "y has 1 value that is not finite"


def test_a_file_that_is_missing_or_damaged_is_refused_in_one_sentence(tmp_path):
    assert refusal(tmp_path / "none.npz") == f"there is no file {tmp_path / 'none.npz'}"
    assert refusal(tmp_path / ".npz") == f"there is no file {tmp_path / '.npz'}"
    with open(tmp_path / "array.npz", "wb") as stream:
        np.save(stream, INPUTS)
    assert "array.npz is not an npz file, write it with numpy.savez" in refusal(tmp_path / "array.npz")

    np.savez(tmp_path / "data.npz", x=INPUTS, y=OUTPUTS)
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[content.index(INPUTS[-1].tobytes())] ^= 1
    (tmp_path / "data.npz").write_bytes(content)
    assert refusal(tmp_path / "data.npz").startswith("x is damaged and cannot be read (Bad CRC-32")

    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("x", "1 2 3")
        archive.writestr("y", "4 5 6")
    assert refusal(tmp_path / "text.npz") == "x is not a NumPy array"


@pytest.mark.parametrize("source", ["mnist", "gaussian", "data.csv", "Digits", ""])
def test_an_unknown_source_is_answered_with_those_allowed(source):
    assert refusal(source) == (
        f"unknown data set {source!r}, choose digits, fashion-mnist or a FILE.npz with arrays x and y"
    )


def test_digits_are_pixels_and_centred_classes():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    data, original = load_regression("digits"), sklearn_datasets.load_digits()
    np.testing.assert_array_equal(data.inputs, original.data)
    np.testing.assert_array_equal(data.outputs.argmax(1), original.target)
    np.testing.assert_allclose(data.outputs.mean(0), 0, atol=1e-15)
    np.testing.assert_allclose(np.ptp(data.outputs, axis=0), 1)
    assert "scikit-learn" in data.description


def test_without_scikit_learn_the_digits_name_what_to_install(monkeypatch):
    for module in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"^the digits come with scikit-learn: pip install separatrix\[data\]$"):
        load_regression("digits")


# -- Fashion-MNIST ------------------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3, 2), np.uint8)
LABELS = np.array([3, 9, 0, 3, 1, 2, 2], np.uint8)
IMAGES_FILE, LABELS_FILE = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def packed(content):
    return gzip.compress(content, mtime=0)


def idx(array, magic=None):
    numbers = [0x800 + array.ndim if magic is None else magic, *array.shape]
    return packed(b"".join(n.to_bytes(4, "big") for n in numbers) + array.tobytes())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / IMAGES_FILE).write_bytes(idx(IMAGES))
    (tmp_path / LABELS_FILE).write_bytes(idx(LABELS))
    monkeypatch.setenv(FASHION_MNIST_VARIABLE, str(tmp_path))
    return tmp_path


def test_images_in_idx_files_are_read(folder):
    data = load_regression("fashion-mnist")
    np.testing.assert_array_equal(data.inputs, IMAGES.reshape(7, 6) / 255)
    np.testing.assert_allclose(data.outputs, np.eye(10)[LABELS] - np.eye(10)[LABELS].mean(0), atol=1e-15)
    assert data.name == "fashion-mnist"
    assert data.description.startswith("7 training images of 3 x 2 pixels")


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        (IMAGES_FILE, idx(IMAGES, 0x801), "is not an IDX file with magic number 2051, its magic number is 2049"),
        (LABELS_FILE, idx(LABELS, 7), "is not an IDX file with magic number 2049, its magic number is 7"),
        (IMAGES_FILE, packed(b""), "is not an IDX file with magic number 2051, its magic number is 0"),
        (IMAGES_FILE, idx(IMAGES[:-1]), " has 6 images but 7 labels"),
        (LABELS_FILE, idx(LABELS + 3), " has a label 12, but the labels must lie between 0 and 9"),
        (IMAGES_FILE, packed(gzip.decompress(idx(IMAGES))[:-1]), " announces 7 x 3 x 2 values, but 41 follow its header"),  # noqa: E501
        (IMAGES_FILE, idx(IMAGES[:0]), " announces 0 x 3 x 2 values, but 0 follow its header"),
        (IMAGES_FILE, b"plain text", " cannot be read as a gzip file (Not a gzipped file (b'pl'))"),
        (IMAGES_FILE, idx(IMAGES)[:-9], " cannot be read as a gzip file (Compressed file ended before"),
    ],
    ids=["images' magic", "labels' magic", "empty", "short", "label", "last byte", "no images", "plain", "cut"],
)  # fmt: skip
def test_damaged_idx_files_are_refused_in_one_sentence(folder, file, content, sentence):
    (folder / file).write_bytes(content)
    assert sentence in refusal("fashion-mnist")


def test_without_the_files_the_package_to_install_is_named(folder):
    (folder / LABELS_FILE).unlink()
    assert refusal("fashion-mnist") == (
        f"there is no file {folder / LABELS_FILE}, install the Debian package dataset-fashion-mnist or name the folder "
        f"of its files in the environment variable {FASHION_MNIST_VARIABLE}"
    )


@pytest.mark.skipif(not (FASHION_MNIST_FOLDER / IMAGES_FILE).exists(), reason="needs dataset-fashion-mnist")
def test_the_installed_fashion_mnist_is_the_published_one(monkeypatch):
    monkeypatch.delenv(FASHION_MNIST_VARIABLE, raising=False)
    data = load_regression("fashion-mnist")
    assert data.inputs.shape == (60_000, 784)
    assert data.outputs.shape == (60_000, 10)
    np.testing.assert_array_equal((data.outputs > 0).sum(0), 6000)
    assert data.inputs.mean() == pytest.approx(0.2860, abs=5e-5)
    assert data.inputs.std() == pytest.approx(0.3530, abs=5e-5)
