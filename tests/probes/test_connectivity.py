"""Barriers of functions that are known on the segment, disagreement, and the turning of a path."""

import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.probes.connectivity import direction_dissimilarity, disagreement, interpolated, loss_barrier
from separatrix.probes.operators import ProbeError


def double_well(x):
    return (x[0] ** 2 - 1) ** 2 + 0.3 * x[0]


def test_the_barrier_of_a_double_well_is_found_between_grid_points():
    found = loss_barrier(double_well, np.array([-1.0]), np.array([1.0]), points=6)
    # On the segment x in [-1, 1] the line is 0.3 x, so that the excess is (x^2 - 1)^2 with its maximum 1 at x = 0.
    assert found.height == pytest.approx(1.0, abs=1e-5)
    assert found.place == pytest.approx(0.5, abs=1e-3)
    assert found.uncertainty <= 1e-3


def test_convex_losses_have_no_barrier_and_it_is_never_negative():
    assert loss_barrier(lambda x: jnp.sum(x**2), np.array([1.0, 2.0]), np.array([-3.0, 1.0])).height == 0


def test_an_infinite_loss_on_the_way_is_an_infinite_barrier_and_at_an_end_none():
    wall = lambda x: np.inf if abs(x[0]) < 0.2 else 0.0  # noqa: E731
    assert loss_barrier(wall, np.array([-1.0]), np.array([1.0])).height == np.inf
    with pytest.raises(ProbeError, match="ends must be finite"):
        loss_barrier(wall, np.array([0.0]), np.array([1.0]))


@pytest.mark.parametrize(("points", "tolerance"), [(2, 1e-3), (15, 0.0)])
def test_too_coarse_a_search_is_refused(points, tolerance):
    with pytest.raises(ProbeError, match="points must be"):
        loss_barrier(double_well, np.array([-1.0]), np.array([1.0]), points, tolerance)


def test_interpolation_is_exact_at_both_ends():
    a, b = [np.array([0.1, 0.7])], [np.array([0.3, -0.2])]
    np.testing.assert_array_equal(interpolated(a, b, 0.0)[0], a[0])
    np.testing.assert_array_equal(interpolated(a, b, 1.0)[0], b[0])


def test_integers_are_not_interpolated_and_tensors_are():
    torch = pytest.importorskip("torch")
    first, second = (
        {"w": torch.tensor([value]), "batches": torch.tensor(count)} for value, count in ((1.0, 3), (2.0, 9))
    )
    middle = interpolated(first, second, 0.5)
    assert (middle["w"].item(), middle["batches"].item(), middle["batches"].dtype) == (1.5, 3, torch.int64)


def test_disagreement_counts_different_predictions_whatever_their_confidence():
    first = jnp.asarray([[3.0, 1.0], [0.0, 1.0], [5.0, 4.9], [0.0, 9.0]])
    second = jnp.asarray([[1.0, 0.9], [2.0, 1.0], [0.0, 4.9], [0.0, 1.0]])
    assert float(disagreement(first, second)) == 0.5


def test_a_path_that_turns_by_a_right_angle_has_two_blocks():
    path = np.array([[1.0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 1, 0]])
    expected = np.kron([[0, 1], [1, 0]], np.ones((2, 2)))
    np.testing.assert_allclose(direction_dissimilarity(path), expected, atol=1e-15)
