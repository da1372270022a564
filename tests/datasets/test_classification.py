import gzip
import sys

import numpy as np
import pytest

from separatrix.datasets.classification import FASHION_MNIST_VARIABLE, balanced_split, load_two_classes, source_files

PIXELS = np.arange(24.0).reshape(6, 2, 2) ** 2
LABELS = np.array([3.0, 7, 7, 3, 3, 7])
SIGNS = [-1, 1, 1, -1, -1, 1]


def refusal(source, **options):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the callers compare the sentence)
        load_two_classes(str(source), **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def saved(tmp_path):
    def path(**arrays):
        np.savez(tmp_path / "my data.npz", **arrays)
        return str(tmp_path / "my data.npz")

    return path


# -- files ------------------------------------------------------------------------------------------------------------


def test_the_smaller_of_two_labels_becomes_minus_one(saved):
    data = load_two_classes(saved(x=PIXELS.reshape(6, 4), y=LABELS))
    np.testing.assert_array_equal(data.inputs, PIXELS.reshape(6, 4))
    assert data.labels.tolist() == SIGNS
    assert (data.name, data.class_names, data.image_shape, data.true_labels) == ("my data", ("3", "7"), None, None)
    assert data.description == "6 samples of 4 inputs: 3 against 7 (the file my data.npz)."


def test_images_of_a_file_are_flattened_and_keep_their_shape(saved):
    data = load_two_classes(saved(x=PIXELS.astype(np.uint8), y=LABELS > 5))
    assert data.image_shape == (2, 2)
    np.testing.assert_array_equal(data.inputs, PIXELS.astype(np.uint8).reshape(6, 4))
    assert data.labels.tolist() == SIGNS


def test_chosen_classes_leave_the_others_out(saved):
    data = load_two_classes(saved(x=PIXELS, y=np.array([3, 7, 7, 3, 5, 5])), classes=(7, 3))
    assert data.labels.tolist() == [1, -1, -1, 1]
    assert data.class_names == ("7", "3")
    np.testing.assert_array_equal(data.inputs[:, 1], PIXELS[:4, 0, 1])


def test_a_clean_subset_gives_the_true_labels_where_they_are_known(saved):
    flags = np.array([1, 0, 1, 0, 1, 1], bool)
    assert load_two_classes(saved(x=PIXELS, y=LABELS, clean=flags)).true_labels.tolist() == [-1, 0, 1, 0, -1, 1]
    right = np.array([7, 7, np.nan, 3, 3, 3])
    assert load_two_classes(saved(x=PIXELS, y=LABELS, y_clean=right)).true_labels.tolist() == [1, 1, 0, -1, -1, -1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x": PIXELS[..., 0, 0]}, "x must have shape (samples, inputs) or (samples, height, width), got (6,)"),
        ({"x": PIXELS[:, :0]}, "x must have shape (samples, inputs) or (samples, height, width), got (6, 0, 2)"),
        ({"y": LABELS[:, None]}, "y must have shape (samples,), got (6, 1)"),
        ({"y": LABELS[:5]}, "x has 6 samples but y has 5"),
        ({"x": np.where(PIXELS == 4, np.nan, PIXELS)}, "x has 1 value that is not finite"),
        ({"y": np.where(LABELS == 3, np.inf, LABELS)}, "y has 3 values that are not finite"),
        ({"y": np.arange(6)}, "y must hold two distinct labels, it holds 6"),
        ({"y": np.ones(6)}, "y must hold two distinct labels, it holds 1"),
        ({"y": np.arange(6) > 4}, "class 1 has 1 sample, but each class needs at least 2"),
        ({"y": LABELS.astype(str)}, "y must hold real numbers, got <U32"),
        ({"clean": np.ones(5)}, "clean must have the shape of y, (6,), got (5,)"),
        ({"clean": np.full(6, 0.5)}, "clean must be true where a label is known to be right and false elsewhere"),
        ({"y_clean": np.ones(5)}, "y_clean must have the shape of y, (6,), got (5,)"),
        ({"y_clean": np.full(6, 4)}, "y_clean must hold the labels of y, 3 and 7, it holds 4"),
        ({"y_clean": np.full(6, np.inf)},
         "y_clean must hold labels, or NaN where the right one is not known, but it is infinite"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_two_class_problem_is_refused_in_one_sentence(saved, changes, sentence):
    assert refusal(saved(**{"x": PIXELS, "y": LABELS, **changes})) == sentence


def test_sources_and_classes_that_do_not_exist_are_refused(saved, tmp_path):
    assert "has no array y, it has x" in refusal(saved(x=PIXELS))
    assert refusal(tmp_path / "none.npz") == f"there is no file {tmp_path / 'none.npz'}"
    assert refusal("mnist") == (
        "unknown data set 'mnist', choose digits, fashion-mnist or a FILE.npz with arrays x and y"
    )
    path = saved(x=PIXELS, y=LABELS)
    assert refusal(path, classes=(3, 4)) == "there is no class 4, the classes are 3, 7"
    assert refusal(path, classes=(3, 3)) == "the two classes must differ, got 3 twice"


# -- images -----------------------------------------------------------------------------------------------------------


def test_digits_are_odd_against_even_or_two_chosen_ones():
    original = pytest.importorskip("sklearn.datasets").load_digits()
    data = load_two_classes("digits")
    np.testing.assert_array_equal(data.inputs, original.data / 16)
    np.testing.assert_array_equal(data.labels, np.where(original.target % 2 == 0, 1, -1))
    assert (data.class_names, data.image_shape) == (("odd", "even"), (8, 8))
    pair = load_two_classes("digits", classes=(8, 3))
    np.testing.assert_array_equal(pair.inputs[pair.labels == 1], original.data[original.target == 3] / 16)
    assert pair.class_names == ("8", "3")
    assert refusal("digits", classes=(3, 10)) == "there is no class 10, the classes are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"


def test_without_scikit_learn_the_digits_name_what_to_install(monkeypatch):
    for module in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"^the digits come with scikit-learn: pip install separatrix\[data\]$"):
        load_two_classes("digits")


def test_fashion_mnist_is_read_by_class(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 2), np.uint8)
    numbers = np.array([2, 4, 9, 2, 4, 4, 0], np.uint8)
    monkeypatch.setenv(FASHION_MNIST_VARIABLE, str(tmp_path))
    for path, array in zip(source_files("fashion-mnist"), (images, numbers), strict=True):
        header = b"".join(number.to_bytes(4, "big") for number in (0x800 + array.ndim, *array.shape))
        path.write_bytes(gzip.compress(header + array.tobytes()))
    data = load_two_classes("fashion-mnist", classes=(2, 4))
    np.testing.assert_array_equal(data.inputs, images[[0, 1, 3, 4, 5]].reshape(5, 6) / 255)
    assert data.labels.tolist() == [-1, 1, -1, 1, 1]
    assert (data.class_names, data.image_shape) == (("pullover", "coat"), (3, 2))
    assert refusal("fashion-mnist") == "class odd has 1 sample, but each class needs at least 2"


# -- training and test sets -------------------------------------------------------------------------------------------


def test_splits_are_balanced_disjoint_and_a_function_of_the_seed():
    labels = np.where(np.random.default_rng(1).random(200) < 0.3, 1, -1)
    train, test = balanced_split(labels, 40, 60, seed=5)
    assert (train.size, test.size) == (40, 60)
    assert labels[train].sum() == labels[test].sum() == 0
    assert np.unique([*train, *test]).size == 100
    again, other = balanced_split(labels, 40, 60, seed=5)[0], balanced_split(labels, 40, 60, seed=6)[0]
    assert again.tolist() == train.tolist() != other.tolist()
    # the order is random too: the first half of a set is no class
    assert abs(labels[train[:20]].sum()) < 20


def test_tests_are_drawn_from_the_samples_that_may_be_tested_on():
    labels, testable = np.tile([1, -1], 50), np.arange(100) % 10 < 4
    train, test = balanced_split(labels, 60, 40, seed=0, testable=testable)
    assert testable[test].all()
    assert np.intersect1d(train, test).size == 0
    with pytest.raises(ValueError, match=r"^there are 20 samples of class -1 to test on, not 21$"):
        balanced_split(labels, 2, 42, seed=0, testable=testable)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((5, 2), "train must be an even number and not negative, got 5"),
        ((2, -2), "test must be an even number and not negative, got -2"),
        ((90, 20), "there are 40 samples of class -1 to train on, not 45"),
    ],
)
def test_impossible_splits_are_refused(sizes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        balanced_split(np.tile([1, -1], 50), *sizes, seed=0)
