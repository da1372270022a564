"""Distances, speeds, alignment and the transition of kernels, against their definitions."""

import numpy as np
import pytest

from separatrix.probes.tangent_kernel.distance import (
    distance_matrix,
    effective_rank,
    kernel_distance,
    kernel_velocity,
    label_alignment,
    rotation_angle,
    settling_time,
    top_eigenvalues,
)
from separatrix.probes.tangent_kernel.phases import transition


def random_kernel(rng, n=12, rank=20):
    factor = rng.normal(size=(n, rank))
    return factor @ factor.T


def test_the_distance_is_one_minus_the_cosine_and_ignores_scale():
    rng = np.random.default_rng(0)
    first, second = random_kernel(rng), random_kernel(rng)
    cosine = np.sum(first * second) / (np.linalg.norm(first) * np.linalg.norm(second))
    assert kernel_distance(first, second) == pytest.approx(1 - cosine, rel=1e-12)
    assert kernel_distance(first, 39 * first) < 4 * np.finfo(float).eps ** 2  # S is a squared rounding error
    assert kernel_distance(first, second) == kernel_distance(second, first)


def test_small_distances_keep_their_digits():
    rng = np.random.default_rng(1)
    kernel, change = random_kernel(rng), random_kernel(rng)
    change -= kernel * np.sum(kernel * change) / np.sum(kernel**2)
    change *= 1e-9 * np.linalg.norm(kernel) / np.linalg.norm(change)
    # rotation by the angle 1e-9: S = angle^2 / 2, far below the rounding of a cosine
    assert kernel_distance(kernel, kernel + change) == pytest.approx(0.5e-18, rel=1e-5)
    assert rotation_angle(0.5e-18) == pytest.approx(1e-9, rel=1e-9)


def test_the_speed_of_a_steady_rotation_does_not_depend_on_the_interval_but_the_velocity_does():
    for interval in (1.0, 4.0):
        time = np.arange(0, 20, interval)
        path = [np.array([[np.cos(0.01 * t), np.sin(0.01 * t)]]) for t in time]
        found = kernel_velocity(time, distance_matrix(path))
        np.testing.assert_allclose(found.angular_speed, 0.01, rtol=1e-9)
        np.testing.assert_allclose(found.velocity, (1 - np.cos(0.01 * interval)) / interval, rtol=1e-9)


def test_effective_rank_and_eigenvalues_of_a_kernel_with_known_spectrum():
    frame = np.linalg.qr(np.random.default_rng(2).normal(size=(9, 9)))[0]
    kernel = frame[:, :4] @ np.diag([3.0, 3, 3, 3]) @ frame[:, :4].T
    assert effective_rank(kernel) == pytest.approx(4)
    np.testing.assert_allclose(top_eigenvalues(kernel, 5), [3, 3, 3, 3, 0], atol=1e-12)


def test_alignment_is_one_for_the_kernel_of_the_labels_and_small_for_the_identity():
    targets = np.eye(3)[[0, 1, 2, 0, 1, 2, 2, 1]] - 1 / 3
    assert label_alignment(targets @ targets.T, targets) == pytest.approx(1)
    assert label_alignment(np.outer(targets, targets), targets) == pytest.approx(1)
    identity = np.sum(targets**2) / (np.sqrt(8) * np.linalg.norm(targets.T @ targets))
    assert label_alignment(np.eye(8), targets) == pytest.approx(identity)


def two_phases(n=20, cut=5, early=0.4, late=0.01):
    """Kernels before the cut far from each other and from all others, later ones close to each other."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(n, 4000)) * np.sqrt(late)
    vectors[:cut] += rng.normal(size=(cut, 4000)) * np.sqrt(early)
    vectors += rng.normal(size=4000)
    return distance_matrix(list(vectors))


def test_the_transition_is_found_where_it_was_put():
    time = 50.0 * np.arange(20)
    found = transition(time, two_phases())
    assert (found.index, found.time) == (5, 250.0)
    assert found.ratio > 10
    backwards = transition(time, two_phases()[::-1, ::-1])
    assert backwards.ratio < 1.5


def test_the_ratio_of_a_steady_rotation_is_known():
    time = np.linspace(0, 1, 401)
    apart = np.abs(time[:, None] - time)
    # cut in the middle: mean |t - t'| is 1/2 across and 1/6 within, mean squares are 7/24 and 1/24
    assert transition(time, apart).ratio == pytest.approx(3, rel=0.02)
    assert transition(time, apart**2).ratio == pytest.approx(7, rel=0.03)


def test_the_settling_time_is_the_last_time_of_fast_motion():
    time = np.array([0.0, 1, 2, 3, 4])
    assert settling_time(time, np.array([1.0, 0.2, 0.01, 0.01])) == 2.0
    assert settling_time(time, np.array([1.0, 0.2, 0.01, 0.2])) == np.inf


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (np.ones((3, 3)), "shape"),
        (np.full((2, 2), np.nan), "finite"),
        (np.zeros((2, 2)), "zero"),
        (np.ones((2, 2), int), "floating-point"),
    ],
    ids=["shape", "nan", "zero", "integers"],
)
def test_kernels_without_a_direction_are_refused(second, words):
    with pytest.raises(ValueError, match=words):
        kernel_distance(np.eye(2), second)


def test_series_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="two kernels"):
        distance_matrix([np.eye(2)])
    with pytest.raises(ValueError, match="increase"):
        kernel_velocity(np.array([0.0, 0.0]), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="do not go"):
        kernel_velocity(np.array([0.0, 1.0]), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="four or more"):
        transition(np.arange(3.0), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="does not go"):
        label_alignment(np.eye(5), np.ones((3, 2)))
