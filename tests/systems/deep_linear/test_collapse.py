"""The growth of a mode at zero against sampling, its limits, and the thresholds of collapse."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from significance import assert_means

from separatrix.systems.deep_linear.collapse import (
    collapse_noise_scale,
    collapses,
    critical_learning_rate,
    mean_log_distance,
    root_growth,
)
from separatrix.systems.deep_linear.learning_times import escape_drift
from separatrix.systems.deep_linear.stationary import contraction_exponent

S, SIGMA = 0.2, 3.0  # the threshold of the equation is 0.0441
RATES = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08])


@pytest.fixture(scope="module")
def factors():
    """Batch means of x^2 and of x z of two million single samples."""
    x, z = np.random.default_rng(0).standard_normal((2, 2_000_000))
    return x**2, x * z


def test_exact_growth_rates_of_a_weak_mode(factors):
    square, cross = factors
    exact = np.array([root_growth(S, SIGMA, rate) for rate in RATES])
    np.testing.assert_allclose(exact, [0.1548, 0.1095, 0.0627, 0.0125, -0.0425, -0.1008, -0.2138], rtol=0, atol=5.1e-5)
    for rate, growth in zip(RATES, exact, strict=True):
        assert_means(np.log(np.abs(1 + rate * (S * square + SIGMA * cross))) / rate, growth)


@pytest.mark.parametrize(("s", "sigma", "rate", "batch"), [(1.0, 0.5, 0.3, 1), (0.3, 2.0, 0.5, 4), (1.0, 0.0, 0.2, 2)])
def test_growth_by_sampling_in_batches(s, sigma, rate, batch):
    rng = np.random.default_rng(batch)
    # Given the inputs, the batch mean of sigma x z is Gaussian.
    total = rng.chisquare(batch, 2_000_000)
    cross = np.sqrt(total) * rng.standard_normal(total.size) / batch
    samples = np.log(np.abs(1 + rate * (s * total / batch + sigma * cross))) / rate
    assert_means(samples, root_growth(s, sigma, rate, batch))


@pytest.mark.parametrize("batch", [1, 5])
def test_small_rates_give_the_growth_of_the_equation(batch):
    """``s - kappa (2 s^2 + sigma^2) / 2``, half the escape drift of ln w; the step itself adds ``-eta s^2 / 2``."""
    s, sigma = 0.7, 1.5
    for rate in (1e-3, 5e-4):
        kappa = rate / batch
        equation = escape_drift(s, sigma, kappa) / 2
        assert equation == pytest.approx(s - kappa * (2 * s**2 + sigma**2) / 2)
        growth = root_growth(s, sigma, rate, batch)
        assert growth - equation == pytest.approx(-rate * s**2 / 2, abs=10 * rate**2)


def test_large_batches():
    """``ln(1 + eta s) / eta`` and the next order in 1 / B, with either quadrature of the batch."""
    s, sigma, rate = 0.8, 1.0, 0.3
    limit = np.log1p(rate * s) / rate
    variance = rate**2 * (2 * s**2 + sigma**2) / (1 + rate * s) ** 2
    batches = [25, 50, 51, 100, 10_000, 1_000_000]
    shares = [(root_growth(s, sigma, rate, batch) - limit) * batch * rate / (-variance / 2) for batch in batches]
    np.testing.assert_allclose(shares[-2:], 1, atol=2e-4)
    # Smooth over the change of quadrature: the deviation from 1 is proportional to 1 / B.
    deviation = (np.array(shares[:4]) - 1) * batches[:4]
    np.testing.assert_allclose(deviation, deviation[3], rtol=0.1)
    assert deviation[1] == pytest.approx(deviation[2], rel=2e-3)


def test_without_label_noise_the_factor_is_the_mirror_of_contraction():
    """``E ln(1 + eta s m)`` by the trapezoidal rule; with the sign turned it is the rate of convergence."""
    x = np.linspace(-40, 40, 200_001)
    weight = norm.pdf(x) * (x[1] - x[0])
    exact = np.sum(weight * np.log1p(0.3 * 0.8 * x**2)) / 0.3
    assert root_growth(0.8, 0.0, 0.3) == pytest.approx(exact, rel=1e-9)
    assert root_growth(0.8, 0.0, 1e-5) == pytest.approx(0.8, rel=1e-4)
    assert contraction_exponent(2, 0.4, 1e-5) == pytest.approx(-0.8, rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.one_of(st.floats(-14, 14), st.floats(11.9, 12.1), st.floats(12, 1e4)))
def test_mean_log_distance(mu):
    """Against the integral of the definition, on both sides of the change of formula."""
    pieces = np.unique(np.clip([-40.0, -mu - 3, -mu, -mu + 3, 0.0, 40.0], -40, 40))
    with np.errstate(divide="ignore"):
        value = sum(
            quad(lambda x: np.log(max(abs(mu + x), 1e-300)) * norm.pdf(x), a, b, epsabs=1e-12)[0]
            for a, b in pairwise(pieces)
        )
    assert mean_log_distance(mu) == pytest.approx(value, abs=3e-8)


def test_mean_log_distance_at_zero_and_of_arrays():
    assert mean_log_distance(0.0) == pytest.approx(-(np.euler_gamma + np.log(2)) / 2, rel=1e-14)
    mu = np.array([[-3.0, 0.5], [12.0, 40.0]])
    np.testing.assert_allclose(mean_log_distance(mu), [[mean_log_distance(m) for m in row] for row in mu], rtol=1e-14)
    below, above = mean_log_distance(np.array([12 - 1e-9, 12.0]))
    assert above - below == pytest.approx(1e-9 / 12, abs=2e-9)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 3), st.floats(0, 5))
def test_the_threshold_of_the_equation(s, sigma):
    threshold = collapse_noise_scale(s, sigma)
    assert threshold == pytest.approx(2 * s / (2 * s**2 + sigma**2), rel=1e-13)
    assert escape_drift(s, sigma, threshold) == pytest.approx(0, abs=1e-12 * s)
    assert collapses(s, sigma, 2, 1.001 * threshold)
    assert not collapses(s, sigma, 2, 0.999 * threshold)
    assert not collapses(s, sigma, 3, 1000 * threshold)


@pytest.mark.parametrize("batch", [1, 16])
def test_the_critical_learning_rate_is_where_growth_changes_sign(batch, factors):
    critical = critical_learning_rate(S, SIGMA, batch)
    assert root_growth(S, SIGMA, critical, batch) == pytest.approx(0, abs=1e-10)
    assert root_growth(S, SIGMA, 0.98 * critical, batch) > 0 > root_growth(S, SIGMA, 1.02 * critical, batch)
    if batch == 1:
        # Below the threshold of the equation, 0.0441, by the error of a finite step.
        assert critical == pytest.approx(0.0423434, abs=1e-6)
        square, cross = factors
        samples = np.log(np.abs(1 + critical * (S * square + SIGMA * cross))) / critical
        assert_means(samples, 0.0)
        # The sampling tells it from the threshold of the equation.
        error = samples.std() / np.sqrt(samples.size)
        assert root_growth(S, SIGMA, collapse_noise_scale(S, SIGMA)) < -4 * error


def test_weak_label_noise_collapses_nothing():
    with pytest.raises(ValueError, match=r"^label_noise = 0\.1 is too weak to collapse a mode of singular value 1\.0"):
        critical_learning_rate(1.0, 0.1)


GROWTH = {"singular_value": 0.2, "label_noise": 3.0, "learning_rate": 0.02, "batch_size": 1}
BAD = {
    "singular_value": [0.0, -1.0, np.nan], "label_noise": [-0.1, np.nan, np.inf], "learning_rate": [0.0, -1.0],
    "batch_size": [0, -2], "depth": [1, 1.9, np.nan], "noise_scale": [-0.1, np.nan],
}  # fmt: skip


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (root_growth, ["singular_value", "label_noise", "learning_rate", "batch_size"]),
        (collapse_noise_scale, ["singular_value", "label_noise"]),
        (critical_learning_rate, ["singular_value", "label_noise", "batch_size"]),
        (collapses, ["singular_value", "label_noise", "depth", "noise_scale"]),
    ],
)
def test_bad_input_is_refused(function, names):
    good = {name: {**GROWTH, "depth": 2, "noise_scale": 0.1}[name] for name in names}
    function(**good)
    for name in names:
        for value in BAD[name]:
            with pytest.raises(ValueError, match=f"^{name} must"):
                function(**{**good, name: value})
