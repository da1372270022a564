"""Classification problems: digits, files, splits, and one sentence for what cannot be used."""

import numpy as np
import pytest

from separatrix.datasets.multiclass import load_classes, split_classes


def file(tmp_path, **arrays):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    return str(path)


def test_digits_are_images_between_zero_and_one_in_ten_classes():
    pytest.importorskip("sklearn")
    data = load_classes("digits")
    assert data.inputs.shape == (1797, 64)
    assert (data.inputs.min(), data.inputs.max()) == (0, 1)
    assert (data.classes, data.image_shape) == (10, (8, 8))
    np.testing.assert_array_equal(np.unique(data.labels), np.arange(10))


def test_class_numbers_of_a_file_are_renumbered_in_order(tmp_path):
    data = load_classes(file(tmp_path, x=np.ones((6, 2, 3)), y=np.array([7, -1, 7, 4, -1, 4])))
    np.testing.assert_array_equal(data.labels, [2, 0, 2, 1, 0, 1])
    assert data.image_shape == (2, 3)
    assert data.inputs.shape == (6, 6)


def test_a_split_is_disjoint_scaled_and_decided_by_the_seed(tmp_path):
    rng = np.random.default_rng(0)
    data = load_classes(file(tmp_path, x=rng.normal(3, 2, (100, 4)), y=rng.integers(0, 3, 100)))
    split, same, other = (split_classes(data, 0.2, seed) for seed in (0, 0, 1))
    assert (len(split.labels), len(split.test_labels)) == (80, 20)
    assert split.inputs.mean() == pytest.approx(0, abs=1e-12)
    assert split.inputs.std() == pytest.approx(1)
    rows = np.concatenate([split.inputs, split.test_inputs])[:, 0]
    assert len(np.unique(rows)) == 100
    np.testing.assert_array_equal(split.inputs, same.inputs)
    assert np.any(split.labels != other.labels)
    assert len(split_classes(data, 0.2, 0, most=50).labels) == 40


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": np.ones((4, 2))}, "no array y"),
        ({"x": np.ones(4), "y": np.arange(4)}, "x must have shape"),
        ({"x": np.ones((4, 2)), "y": np.ones((4, 2))}, "y must have shape"),
        ({"x": np.ones((4, 2)), "y": np.arange(3)}, "4 samples but y has 3"),
        ({"x": np.full((4, 2), np.nan), "y": np.array([0, 1, 0, 1])}, "not finite"),
        ({"x": np.ones((4, 2)), "y": np.array([0, 0.5, 0, 1])}, "class numbers, but it holds 0.5"),
        ({"x": np.ones((4, 2)), "y": np.zeros(4)}, "constant"),
        ({"x": np.ones((4, 2)), "y": np.arange(4)}, "4 classes in 4 samples"),
    ],
    ids=["missing", "flat", "matrix", "lengths", "nan", "fraction", "constant", "distinct"],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path, arrays, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_classes(file(tmp_path, **arrays))


def test_unknown_sources_and_constant_inputs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown data set"):
        load_classes("cifar")
    data = load_classes(file(tmp_path, x=np.ones((4, 2)), y=np.array([0, 1, 0, 1])))
    with pytest.raises(ValueError, match="constant"):
        split_classes(data, 0.5, 0)
    with pytest.raises(ValueError, match="test_share"):
        split_classes(data, 1.0, 0)
