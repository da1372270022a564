"""The density by quadrature against all eigenvalues: moments, distance, errors that cover, linear and log axes."""

import numpy as np
import pytest
from dense_matrices import dense
from scipy import stats

from separatrix.probes.operators import ProbeError
from separatrix.probes.spectral_density import spectral_density

SPECTRUM = np.r_[12, 9, 7, 5, np.random.default_rng(0).normal(0, 0.5, 396)]


@pytest.fixture(scope="module")
def found():
    return spectral_density(dense(SPECTRUM)[1], probes=16, steps=40, tolerance=0.02)


def test_moments_are_those_of_the_eigenvalues_within_their_errors(found):
    for order in range(1, 5):
        moment = found.moment(order)
        exact = np.mean(SPECTRUM**order)
        low, high = moment.interval(1 - 1e-6)
        assert low < exact < high
    assert found.moment(0).value == pytest.approx(1)
    assert found.products == 16 * 40


def test_quadrature_is_exact_for_its_own_vector():
    array, matrix = dense(SPECTRUM)
    from separatrix.probes.matrices import random_rows

    z = random_rows(matrix, 5, 0, 1, "normal")[0]
    one = spectral_density(matrix, probes=2, steps=6, seed=5)
    for order in range(12):
        exact = z @ np.linalg.matrix_power(array, order) @ z / (z @ z)
        assert np.sum(one.weights[0] * one.nodes[0] ** order) == pytest.approx(exact, rel=1e-9)
    with pytest.raises(ProbeError, match="moments up to 11 are exact for 6 steps, got 12"):
        one.moment(12)


def test_the_wasserstein_distance_is_about_the_stated_error(found):
    axis = np.linspace(-3, 13, 4001)
    share, error = found.cumulative(axis)
    exact = np.mean(SPECTRUM[:, None] <= axis, axis=0)
    distance = np.sum(np.abs(share - exact)) * (axis[1] - axis[0]) / np.abs(SPECTRUM).max()
    assert found.converged
    assert distance < 0.01
    assert distance < 3 * (found.standard_error + found.truncation)
    assert abs(found.radius - 12) < 1e-6
    assert np.all(error >= 0)
    assert (share[0], share[-1]) == pytest.approx((0, 1))


def test_the_density_is_the_widened_one_within_its_errors(found):
    axis = np.linspace(-2, 2, 9)
    density, error = found.density(axis, 0.3)
    exact = stats.norm.pdf(axis[:, None], SPECTRUM, 0.3).mean(axis=1)
    assert np.all(np.abs(density - exact) < stats.t.isf(1e-6, 15) * error + 2e-3)
    assert np.all(error < 0.1 * density.max())


def test_log_densities_integrate_to_the_shares_of_both_signs(found):
    exponents = np.linspace(-12, 3, 3001)
    for sign in (1, -1):
        density, _ = found.log_density(exponents, 0.1, sign)
        share = np.sum(density) * (exponents[1] - exponents[0])
        exact, error = (v[0] for v in found.cumulative(np.array([0.0])))
        exact = 1 - exact if sign == 1 else exact
        assert share == pytest.approx(exact, abs=1e-6)
        assert abs(share - np.mean(sign * SPECTRUM > 0)) < 6 * error


def test_few_steps_and_few_probes_are_no_convergence():
    _, matrix = dense(SPECTRUM)
    rough = spectral_density(matrix, probes=2, steps=4, tolerance=0.005)
    assert not rough.converged
    assert rough.truncation > 0.005


def test_a_matrix_of_low_rank_ends_its_chains():
    _, matrix = dense(np.r_[3.0, 2.0, np.zeros(28)])
    found = spectral_density(matrix, probes=20, steps=20)
    assert found.products <= 20 * 4  # two eigenvalues, zero, and the step that sees it
    low, high = found.moment(1).interval(1 - 1e-6)
    assert low < 5 / 30 < high
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)


def test_bad_requests_are_refused(found):
    _, matrix = dense(np.arange(5.0))
    with pytest.raises(ProbeError, match="at least 2 probes and 2 steps, got 1 and 60"):
        spectral_density(matrix, probes=1)
    with pytest.raises(ProbeError, match="width must be positive, got 0"):
        found.density(np.zeros(1), 0.0)
