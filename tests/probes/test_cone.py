"""Angles, dimensions and confinement of directions follow from their distances alone."""

import numpy as np
import pytest

from separatrix.probes.cone import (
    apex_angle,
    classical_scaling,
    cone,
    confinement,
    growing_windows,
    radius_growth,
    random_walk,
)


def directions(rng, n, spread, dimension=200):
    """Unit vectors around the first axis; ``spread`` is the length of the perpendicular part."""
    across = rng.normal(size=(n, dimension))
    across[:, 0] = 0
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    vectors = spread * across
    vectors[:, 0] = np.sqrt(1 - spread**2)
    return vectors


def distances(vectors):
    apart = vectors[:, None] - vectors[None]
    return np.sum(apart**2, axis=2) / 2


@pytest.mark.parametrize("spread", [0.3, 1e-7])
def test_angles_are_those_from_the_mean_direction(spread):
    vectors = directions(np.random.default_rng(0), 12, spread)
    mean = vectors.sum(axis=0)
    mean /= np.linalg.norm(mean)
    # by the half chord, which keeps its digits for narrow cones too
    expected = 2 * np.arcsin(np.linalg.norm(vectors - mean, axis=1) / 2)
    found = cone(distances(vectors))
    np.testing.assert_allclose(found.angles, expected, rtol=1e-6)
    assert found.radius == found.angles.max()
    assert found.median_radius == np.median(found.angles)


def test_the_angle_of_a_direction_outside_is_measured_from_the_axis():
    rng = np.random.default_rng(1)
    vectors = directions(rng, 9, 0.2)
    outside = rng.normal(size=200)
    outside /= np.linalg.norm(outside)
    mean = vectors.mean(axis=0)
    expected = np.arccos(outside @ mean / np.linalg.norm(mean))
    assert apex_angle(1 - vectors @ outside, distances(vectors)) == pytest.approx(expected, rel=1e-12)


def test_the_effective_dimension_counts_equal_principal_directions():
    on_a_line = cone(distances(np.array([[np.cos(a), np.sin(a)] for a in (-0.02, 0.0, 0.02)]))).effective_dimension
    assert on_a_line == pytest.approx(1, abs=1e-3)
    simplex = np.eye(6)
    assert cone(distances(simplex)).effective_dimension == pytest.approx(5)
    assert np.isnan(cone(np.zeros((4, 4))).effective_dimension)


def test_classical_scaling_restores_distances_that_fit_into_three_dimensions():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(10, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places, share = classical_scaling(distances(vectors))
    np.testing.assert_allclose(distances(places), distances(vectors), atol=1e-13)
    assert share.sum() == pytest.approx(1)
    assert np.all(np.diff(share) <= 0)


def test_confined_motion_and_steady_drift_are_told_apart():
    elapsed = np.arange(1, 25) * 50.0
    confined = confinement(elapsed, 0.05 * (1 - np.exp(-elapsed / 120)))
    assert confined.plateau == pytest.approx(0.05, rel=0.01)
    assert confined.relaxation == pytest.approx(120, rel=0.05)
    assert abs(confined.drift_share) < 0.01
    drifting = confinement(elapsed, 2e-5 * elapsed)
    assert drifting.drift == pytest.approx(2e-5, rel=0.01)
    assert drifting.drift_share > 0.95
    np.testing.assert_allclose(confined.at(elapsed), 0.05 * (1 - np.exp(-elapsed / 120)), rtol=0.02)


def test_noise_on_a_steady_drift_is_not_taken_for_a_plateau_far_away():
    rng, elapsed = np.random.default_rng(4), np.arange(1, 11) * 50.0
    shares = [confinement(elapsed, elapsed * (1 + 0.05 * rng.normal(size=10))).drift_share for _ in range(40)]
    assert np.quantile(shares, 0.05) > 0.5


def test_the_squared_radius_of_a_random_walk_grows_as_its_length_and_that_of_a_confined_one_does_not():
    rng = np.random.default_rng(3)
    walks, cones = [], []
    for _ in range(10):
        steps = rng.normal(size=(60, 400)) * 1e-3
        steps[0, 0] += 10
        walk = np.cumsum(steps, axis=0)
        walks.append(radius_growth(distances(walk / np.linalg.norm(walk, axis=1, keepdims=True))))
        cones.append(radius_growth(distances(directions(rng, 60, 0.1, 400))))
    assert np.mean(walks) == pytest.approx(1, abs=0.1)
    assert abs(np.mean(cones)) < 0.15


def test_the_radius_of_a_steady_rotation_grows_as_the_duration_however_few_the_directions():
    angle = 0.01 * np.arange(9)
    distance = 1 - np.cos(angle[:, None] - angle)
    np.fill_diagonal(distance, 0)
    assert radius_growth(distance) == pytest.approx(2, abs=1e-6)
    counts, radii = growing_windows(distance)
    np.testing.assert_allclose(radii, 0.01 * (counts - 1) / 2, rtol=1e-6)


def test_a_random_walk_of_given_steps_is_one_that_turns_into_a_new_dimension_each_time():
    turns = np.array([0.1, 0.3, 0.2, 0.05])
    walk = np.zeros((5, 5))
    walk[0, 0] = 1
    for step, turn in enumerate(turns):
        walk[step + 1] = np.cos(turn) * walk[step]
        walk[step + 1, step + 1] = np.sin(turn)
    np.testing.assert_allclose(random_walk(1 - np.cos(turns)), distances(walk), atol=1e-14)
    equal = random_walk(np.full(10, 1e-4))
    assert radius_growth(equal) == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        random_walk(np.array([0.5, 1.0]))


@pytest.mark.parametrize(
    ("distance", "words"),
    [
        (np.zeros((1, 1)), "at least two"),
        (np.full((3, 3), np.nan), "finite"),
        (np.ones((3, 3)), "zeros on the diagonal"),
        (5 * (1 - np.eye(3)), "between 0 and 2"),
        (2 * (1 - np.eye(2)), "no mean direction"),
    ],
    ids=["one", "nan", "diagonal", "range", "cancel"],
)
def test_what_is_no_matrix_of_distances_is_refused(distance, words):
    with pytest.raises(ValueError, match=words):
        cone(distance)


def test_short_curves_and_too_many_dimensions_are_refused():
    with pytest.raises(ValueError, match="four or more"):
        confinement(np.arange(1, 4), np.ones(3))
    with pytest.raises(ValueError, match="not zero"):
        confinement(np.arange(1, 6), np.zeros(5))
    with pytest.raises(ValueError, match="at most 2 dimensions"):
        classical_scaling(1 - np.eye(3), 3)
    with pytest.raises(ValueError, match="more than 4"):
        radius_growth(1 - np.eye(4))
    with pytest.raises(ValueError, match="one finite distance"):
        apex_angle(np.zeros(2), 1 - np.eye(3))
