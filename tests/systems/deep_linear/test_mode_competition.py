"""Competition of modes: the velocity descends the energy, and is gradient flow in other letters."""

import numpy as np
import pytest

from separatrix.systems.deep_linear.gradient_noise import mean_gradient
from separatrix.systems.deep_linear.mode_competition import mode_competition_energy, mode_competition_velocity

S = np.array([3.0, 1.5, 0.0])


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 3)), rng.normal(size=(3, 5))


def test_the_velocity_is_the_sum_over_modes(vectors):
    a, b = vectors
    rise, gain = mode_competition_velocity(a, b, S)
    for k in range(3):
        expected_a = (S[k] - a[:, k] @ b[k]) * b[k] - sum(b[g] * (a[:, k] @ b[g]) for g in range(3) if g != k)
        expected_b = (S[k] - a[:, k] @ b[k]) * a[:, k] - sum(a[:, g] * (b[k] @ a[:, g]) for g in range(3) if g != k)
        np.testing.assert_allclose(rise[:, k], expected_a, rtol=1e-12)
        np.testing.assert_allclose(gain[k], expected_b, rtol=1e-12)


def test_the_velocity_descends_the_energy(vectors):
    a, b = vectors
    rise, gain = mode_competition_velocity(a, b, S)
    for which, speed in ((0, rise), (1, gain)):
        for place in np.ndindex(speed.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [a.copy(), b.copy()]
                moved[which][place] += step
                ends.append(mode_competition_energy(*moved, S))
            assert speed[place] == pytest.approx(-(ends[0] - ends[1]) / 2e-5, abs=1e-8)


def test_it_is_gradient_flow_in_the_singular_frame(vectors):
    a, b = vectors
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    gradients = mean_gradient([a @ right.T, left @ b], (left * S) @ right.T)
    rise, gain = mode_competition_velocity(a, b, S)
    np.testing.assert_allclose(-gradients[0] @ right, rise, rtol=1e-11)
    np.testing.assert_allclose(-left.T @ gradients[1], gain, rtol=1e-11)


def test_orthogonal_equal_vectors_do_not_compete():
    a = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 3)))[0] * [0.3, 0.2, 0.1]
    rise, _ = mode_competition_velocity(a, a.T, S)
    np.testing.assert_allclose(rise, a * (S - np.sum(a**2, axis=0)), atol=1e-15)


def test_shapes_and_signs_are_checked(vectors):
    a, b = vectors
    with pytest.raises(ValueError, match="must have shapes"):
        mode_competition_velocity(a, b.T, S)
    with pytest.raises(ValueError, match="not negative"):
        mode_competition_energy(a, b, -S)
