from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from separatrix.systems.deep_linear.gradient_noise import layer_product
from separatrix.systems.deep_linear.teacher import Teacher, aligned_balanced_weights, layer_widths, random_weights


def random_teacher(rng, d_in, d_out, singular_values):
    frame = lambda d: np.linalg.qr(rng.normal(size=(d, d)))[0][:, : len(singular_values)]  # noqa: E731
    return Teacher(frame(d_out), np.asarray(singular_values, float), frame(d_in))


def test_the_matrix_of_a_diagonal_teacher_is_diagonal():
    teacher = Teacher.diagonal((3.0, 1.0), d_in=4, d_out=2)
    np.testing.assert_array_equal(teacher.matrix, [[3, 0, 0, 0], [0, 1, 0, 0]])
    assert teacher.modes == 2


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_a_matrix_is_the_sum_of_its_modes(seed, shape):
    matrix = np.random.default_rng(seed).normal(size=shape)
    teacher = Teacher.from_matrix(matrix)
    np.testing.assert_allclose(teacher.matrix, matrix, atol=1e-12)
    np.testing.assert_allclose(teacher.singular_values, np.linalg.svd(matrix, compute_uv=False), rtol=1e-12)


def test_the_leading_modes_are_the_best_approximation():
    matrix = np.random.default_rng(0).normal(size=(5, 4))
    s = np.linalg.svd(matrix, compute_uv=False)
    assert np.linalg.norm(matrix - Teacher.from_matrix(matrix, modes=2).matrix) == pytest.approx(np.hypot(*s[2:]))


def test_a_rank_deficient_matrix_has_as_many_modes_as_its_rank():
    u, v = np.random.default_rng(1).normal(size=(2, 5, 2))
    assert Teacher.from_matrix(u @ v.T).modes == 2
    with pytest.raises(ValueError, match="between 1 and the rank 2"):
        Teacher.from_matrix(u @ v.T, modes=3)
    with pytest.raises(ValueError, match="the rank 0"):
        Teacher.from_matrix(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("singular_values", "message"),
    [
        ([1.0, 1.0], "strictly decreasing"),
        ([1.0, 2.0], "strictly decreasing"),
        ([1.0, 0.0], "finite and positive"),
        ([1.0, -1.0], "finite and positive"),
        ([np.nan], "finite and positive"),
        ([np.inf], "finite and positive"),
        ([], "finite and positive"),
    ],
)
def test_singular_values_without_modes_of_their_own_are_refused(singular_values, message):
    with pytest.raises(ValueError, match=message):
        Teacher.diagonal(singular_values)


def test_vectors_must_be_orthonormal_and_as_many_as_the_singular_values():
    with pytest.raises(ValueError, match="left singular vectors must be orthonormal"):
        Teacher(np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([2.0, 1.0]), np.eye(2))
    with pytest.raises(ValueError, match="right singular vectors must be orthonormal"):
        Teacher(np.eye(2), np.array([2.0, 1.0]), np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match=r"right must have shape \(d, 1\)"):
        Teacher(np.eye(2, 1), np.array([1.0]), np.eye(2))
    with pytest.raises(ValueError, match="at least as many inputs and outputs"):
        Teacher.diagonal((2.0, 1.0), d_in=1)


@pytest.mark.parametrize("matrix", [np.eye(2), np.diag([2.0, 1.0, 1.0]), np.diag([1.0, 1.0 - 1e-12])])
def test_degenerate_modes_of_a_matrix_are_refused(matrix):
    with pytest.raises(ValueError, match="degenerate"):
        Teacher.from_matrix(matrix)


def test_degeneracy_matters_only_among_the_modes_kept_and_the_next():
    matrix = np.diag([3.0, 2.0, 1.0, 1.0])
    assert Teacher.from_matrix(matrix, modes=2).modes == 2
    with pytest.raises(ValueError, match="modes 3 and 4 are degenerate"):
        Teacher.from_matrix(matrix, modes=3)


@pytest.mark.parametrize("matrix", [np.array([[np.nan, 1.0], [0.0, 1.0]]), np.ones(3)])
def test_what_is_not_a_finite_matrix_is_refused(matrix):
    with pytest.raises(ValueError, match="two-dimensional and finite"):
        Teacher.from_matrix(matrix)


@pytest.mark.parametrize("widths", [(4, 3, 5), (4, 6, 3, 5), (4, 3, 8, 4, 5)])
def test_aligned_balanced_weights_have_the_strengths_asked_for_and_no_imbalance(widths):
    teacher = random_teacher(np.random.default_rng(2), 4, 5, [3.0, 2.0, 0.5])
    strengths = np.array([0.1, 2.0, 0.03])
    weights = aligned_balanced_weights(teacher, widths, strengths)
    assert [w.shape for w in weights] == list(zip(widths[1:], widths[:-1], strict=True))
    product = layer_product(weights)
    np.testing.assert_allclose(teacher.left.T @ product @ teacher.right, np.diag(strengths), atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(product), np.linalg.norm(strengths))
    for before, after in pairwise(weights):
        np.testing.assert_allclose(after.T @ after, before @ before.T, atol=1e-14)


def test_one_strength_serves_all_modes():
    weights = aligned_balanced_weights(Teacher.diagonal((2.0, 1.0)), (2, 2, 2), 0.25)
    np.testing.assert_allclose(layer_product(weights), 0.25 * np.eye(2))


@pytest.mark.parametrize(
    ("widths", "strengths", "message"),
    [
        ((2, 2, 2), 0.0, "strengths must be positive"),
        ((2, 2, 2), [1.0, np.nan], "strengths must be positive"),
        ((2, 1, 2), 0.1, "at least the number of modes"),
        ((3, 3, 2), 0.1, "must begin with 2 and end with 2"),
    ],
)
def test_starts_that_cannot_be_aligned_are_refused(widths, strengths, message):
    with pytest.raises(ValueError, match=message):
        aligned_balanced_weights(Teacher.diagonal((2.0, 1.0)), widths, strengths)


def test_layer_widths_and_random_weights_have_the_shapes_and_variance_asked_for():
    widths = layer_widths(5, 3, depth=3, hidden=100)
    assert widths == (5, 100, 100, 3)
    weights = random_weights(np.random.default_rng(3), widths, exponent=1.5)
    assert [w.shape for w in weights] == [(100, 5), (100, 100), (3, 100)]
    z = np.concatenate([w.ravel() for w in weights]) * 100**0.75
    assert abs(np.sum(z**2 - 1)) / np.sqrt(2 * z.size) < 4.9
    with pytest.raises(ValueError, match="depth must be at least 2"):
        layer_widths(5, 3, depth=1, hidden=4)
