"""Order parameters of the perceptron: averages against direct integration, asymptotics, figures measured elsewhere."""

import numpy as np
import pytest
from scipy import integrate, special, stats

from separatrix.systems.feature_learning import perceptron_theory as theory
from separatrix.systems.feature_learning.depleted_sign_task import depleted_samples


def direct(signal, noise, dimension, chi, margin):
    """Two-dimensional averages by adaptive quadrature over r, the noise in closed form."""
    c = theory.density_constant(chi)

    def mean(kernel):
        # u = r^(1 + chi) takes the singularity of the density away
        integrand = lambda u: kernel(u ** (1 / (1 + chi))) * np.exp(-(u ** (2 / (1 + chi))) / 2) * c / (1 + chi)  # noqa: E731
        cuts = [min(margin * np.sqrt(dimension) / max(signal, 1e-9), 10.0), 1.0, 3.0]
        return integrate.quad(integrand, 0, 11 ** (1 + chi), points=[r ** (1 + chi) for r in cuts], limit=2000)[0]

    edge = lambda r: (margin * np.sqrt(dimension) - signal * r) / noise  # noqa: E731
    return (
        mean(lambda r: special.ndtr(edge(r))),
        mean(lambda r: r * special.ndtr(edge(r))),
        -mean(lambda r: stats.norm.pdf(edge(r))),
    )


@pytest.mark.parametrize("chi", [-0.5, 0.0, 1.0, 3.0])
@pytest.mark.parametrize(
    ("signal", "noise", "margin"),
    [(3.0, 0.5, 1.0), (10.0, 0.7, 1.0), (10.0, 0.72, 1.0), (300.0, 200.0, 1.0), (4.0, 2.0, 0.0)],
)
def test_averages_are_those_of_direct_integration(chi, signal, noise, margin):
    found = theory.drift(signal, noise, 32, chi, margin)
    for ours, expected in zip(found, direct(signal, noise, 32, chi, margin), strict=True):
        assert float(ours) == pytest.approx(expected, rel=1e-7, abs=1e-10)


def test_at_the_start_every_sample_is_unfitted():
    start = theory.drift(0.0, 0.0, 32, 1.0)
    assert float(start.unfitted) == pytest.approx(1, abs=1e-12)
    assert float(start.signal) == pytest.approx(np.sqrt(np.pi / 2), rel=1e-12)
    assert float(start.noise) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("chi", [0.0, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("ratio", [1e3, 1e5])
def test_asymptotics_are_the_limit_of_the_averages_however_large_lambda(chi, ratio):
    exact, limit = theory.drift(ratio, 1.0, 32, chi, margin=0.0), theory.asymptotic_drift(ratio, chi)
    for one, other in zip(exact, limit, strict=True):
        assert float(one) == pytest.approx(float(other), rel=20 / ratio**2 + 1e-8)


@pytest.mark.parametrize("chi", [0.0, 1.0, 2.5])
def test_moments_of_the_normal_law_and_the_density_constant(chi):
    moment, _ = integrate.quad(lambda z: z**chi * stats.norm.pdf(z), 0, np.inf)
    assert theory.half_moment(chi) == pytest.approx(moment, rel=1e-9)
    mass, _ = integrate.quad(lambda r: theory.density_constant(chi) * r**chi * np.exp(-(r**2) / 2), 0, np.inf)
    assert mass == pytest.approx(1, rel=1e-9)


def test_stationary_noise_balances_the_drift():
    for chi in (0.0, 1.0, 3.0):
        noise = theory.stationary_noise(100.0, 32, chi)
        at = theory.drift(1e4 * noise, noise, 32, chi, margin=0.0)
        gain = 100.0 * 30 / 64 * at.unfitted / noise
        assert float(gain + at.noise / np.sqrt(32)) == pytest.approx(0, abs=1e-6 * float(gain))


def test_the_course_from_a_measured_state():
    """Figures of an independent integration: d = 32, chi = 1, T = 100, from the measured (301.7, 213.0) at t = 8800."""
    path = theory.order_parameters(np.array([8800.0, 1.24e6, 6.34e7]), 100.0, 32, 1.0, start=(301.7, 213.0))
    np.testing.assert_allclose(path.signal[1:], [1038, 2783], rtol=2e-3)
    np.testing.assert_allclose(path.noise[1:], [169, 167.9], rtol=3e-3)
    assert theory.stationary_noise(100.0, 32, 1.0) == pytest.approx(166.2, abs=0.05)
    assert theory.stationary_noise(100.0, 32, 3.0) == pytest.approx(124.6, abs=0.05)
    assert theory.stationary_noise(100.0, 32, 0.0) == pytest.approx(211.6, abs=0.05)


@pytest.mark.parametrize("chi", [0.0, 1.0])
def test_the_late_course_grows_as_the_power_of_theory(chi):
    time = np.geomspace(1e9, 1e11, 5)
    path = theory.order_parameters(np.concatenate([[0.0], time]), 1e3, 32, chi)
    slope = np.polyfit(np.log(time), np.log(path.signal[1:]), 1)[0]
    assert slope == pytest.approx(1 / (chi + 3), abs=2e-3)
    np.testing.assert_allclose(path.signal[1:], theory.late_signal(time, 1e3, 32, chi), rtol=0.01)
    np.testing.assert_allclose(path.noise[1:], theory.stationary_noise(1e3, 32, chi), rtol=0.01)


def test_without_noise_the_perceptron_learns_no_useless_weight():
    path = theory.order_parameters(np.array([0.0, 1.0, 100.0, 1e5]), 0.0, 32, 1.0)
    assert np.all(path.noise < 1e-3)
    assert np.all(np.diff(path.signal) > 0)


def test_exponents():
    assert theory.exponents(0.0) == (3, 1, 1, 1)
    assert theory.exponents(1.0) == (2, 0.5, 1, 0.5)
    assert theory.exponents(3.0) == (1.5, 0.25, 1, 0.25)
    assert [theory.feature_exponent(D) for D in (1, 2, 3)] == [0, pytest.approx(1 / 3), 0.5]


@pytest.mark.parametrize("chi", [0.0, 1.0, 3.0])
def test_stopping_has_the_powers_of_the_exponents(chi):
    times = [theory.stopping_time(P, T, 32, chi) for P, T in ((1e3, 10), (2e3, 10), (1e3, 20))]
    powers = theory.exponents(chi)
    assert times[1] / times[0] == pytest.approx(2**powers.time, rel=1e-10)
    assert times[2] / times[0] == pytest.approx(2, rel=1e-10)
    unfitted = 1000 * theory.asymptotic_drift(theory.stopping_ratio(1000, chi), chi).unfitted
    assert float(unfitted) == pytest.approx(1, rel=1e-10)


def test_error_of_the_perceptron():
    for ratio in (0.0, 0.5, 3.0, 100.0):
        # Gaussian data: the angle between two directions
        expected = np.arctan2(1, ratio) / np.pi
        assert float(theory.test_error(ratio, 0.0)) == pytest.approx(expected, rel=1e-9)
    x, y = depleted_samples(np.random.default_rng(0), 200_000, 2, 1.0)
    wrong = np.mean(y * (2 * x[:, 0] + x[:, 1]) <= 0)
    expected = float(theory.test_error(2.0, 1.0))
    assert wrong == pytest.approx(expected, abs=4 * np.sqrt(expected / 200_000))


def test_the_crossover_is_where_noise_equals_margin():
    T = theory.crossover_temperature(64, 1.0, margin=0.5)
    assert theory.stationary_noise(T, 64, 1.0) / 8 == pytest.approx(0.5)


@pytest.mark.parametrize("chi", [-0.5, 0.0, 1.0, 3.0])
def test_samples_have_the_density_and_their_labels_its_side(chi):
    x, y = depleted_samples(np.random.default_rng(1), 4000, 3, chi)
    assert set(np.unique(y)) == {-1.0, 1.0}
    np.testing.assert_array_equal(np.sign(x[:, 0]), y)
    law = lambda r: special.gammainc((1 + chi) / 2, r**2 / 2)  # noqa: E731
    assert stats.kstest(np.abs(x[:, 0]), law).pvalue > 1e-3
    assert stats.kstest(x[:, 1], "norm").pvalue > 1e-3
    np.testing.assert_allclose(law(theory.boundary_quantile(np.array([0.1, 0.9]), chi)), [0.1, 0.9], rtol=1e-9)


@pytest.mark.parametrize("chi", [-1.0, -2.0, np.nan])
def test_a_density_that_cannot_be_integrated_is_refused(chi):
    for call in (theory.exponents, theory.density_constant, lambda c: theory.drift(1.0, 1.0, 8, c)):
        with pytest.raises(ValueError, match="above -1"):
            call(chi)
    with pytest.raises(ValueError, match="above -1"):
        depleted_samples(np.random.default_rng(0), 4, 4, chi)
