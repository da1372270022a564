"""The stationary law against its equation, its closed form, its limits, and linear stability against brute force."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from significance import assert_means

from separatrix.systems.deep_linear.scalar_mode import strength_diffusion, strength_drift
from separatrix.systems.deep_linear.stationary import (
    StationaryLaw,
    boltzmann_temperature,
    contraction_exponent,
    coupling_rates,
    entry_variances,
    excess_loss,
    linearised_variance,
    log_density,
    matrix_mean_shift,
    mean_shift,
    relaxation_rate,
    sde_contraction_exponent,
    stable_learning_rate,
    stationary_law,
)


@pytest.mark.parametrize(
    ("parameters", "mean", "spread"),
    [
        ((2, 1.0, 1.0, 0.01), 0.9949, 0.1008),
        ((2, 1.0, 1.0, 0.05), 0.9722, 0.2329),
        ((3, 1.5, 0.5, 0.02), 1.4936, 0.1195),
    ],
)
def test_means_and_spreads_known_from_an_independent_quadrature(parameters, mean, spread):
    law = stationary_law(*parameters)
    assert law.mean == pytest.approx(mean, abs=5.1e-5)
    assert law.standard_deviation == pytest.approx(spread, abs=5.1e-5)


LAWS = {
    "depth": st.integers(2, 6), "s": st.floats(0.2, 4), "noise": st.floats(0.05, 2), "kappa": st.floats(1e-3, 0.2),
    "kurtosis": st.floats(0.5, 3),
}  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(**LAWS)
def test_normalised_with_its_moments(depth, s, noise, kappa, kurtosis):
    """By the trapezoidal rule in ln w, far apart from the quadrature of the law."""
    saddle = (3 * kurtosis - 1) * s**2 + noise**2
    # At depth 2 the density of ln w falls towards zero as this power of w less a half: keep it within the grid.
    assume(depth > 2 or s / (kappa * saddle) > 1)
    law = StationaryLaw(depth, s, noise, kappa, kurtosis)
    width = min(noise / s, np.sqrt(boltzmann_temperature(depth, s, noise, kappa)) / s, 1.0)
    grid = np.sinh(np.linspace(-1, 1, 40_001) * np.arcsinh(60 / width)) * width
    grid = grid[grid > -300]
    w = s * np.exp(grid)
    mass = np.exp(law.log_pdf(w)) * w
    assert np.trapezoid(mass, grid) == pytest.approx(1, abs=1e-6)
    mean = np.trapezoid(mass * w, grid)
    assert law.mean == pytest.approx(mean, rel=1e-6)
    assert law.standard_deviation == pytest.approx(np.sqrt(np.trapezoid(mass * (w - mean) ** 2, grid)), rel=1e-4)
    # The distribution function is monotone and is the integral of the density.
    cumulative = np.concatenate([[0.0], np.cumsum(np.diff(grid) * (mass[1:] + mass[:-1]) / 2)])
    np.testing.assert_allclose(law.cdf(w), cumulative, rtol=0, atol=3e-5)
    assert np.all(np.diff(law.cdf(w)) >= -1e-13)


@settings(max_examples=40, deadline=None)
@given(**LAWS, u=st.floats(0.05, 5))
def test_no_current_flows(depth, s, noise, kappa, kurtosis, u):
    """``(D p)' = mu p`` with the drift and diffusion of the scalar equation, whose Ito terms fix every power."""
    step = 1e-4 * min(u, noise / s)
    w = s * (u + step * np.array([-2, -1, 1, 2]))
    log_current = log_density(w, depth, s, noise, kappa, kurtosis) + np.log(
        strength_diffusion(w, s, depth, kappa, noise, kurtosis)
    )
    slope = log_current @ np.array([1, -8, 8, -1]) / (12 * step * s)
    w = s * u
    ratio = strength_drift(w, s, depth, kappa, noise, kurtosis) / strength_diffusion(
        w, s, depth, kappa, noise, kurtosis
    )
    scale = abs(ratio) + 1 / (step * s) * 1e-11 * np.max(np.abs(log_current)) / 1e-4
    assert slope == pytest.approx(ratio, abs=1e-4 * scale)


@pytest.mark.parametrize(("s", "sigma", "kappa"), [(1.0, 1.0, 0.05), (1.7, 0.3, 0.02), (0.2, 3.0, 0.03)])
def test_depth_two_in_closed_form(s, sigma, kappa):
    A = s / (2 * s**2 + sigma**2)
    w = np.geomspace(1e-3, 30, 50) * s
    noise = 2 * (s - w) ** 2 + sigma**2
    closed = (
        (A / kappa - 3 / 2) * np.log(w)
        - (1 + A / (2 * kappa)) * np.log(noise)
        - sigma * np.arctan(np.sqrt(2) * (w - s) / sigma) / (np.sqrt(2) * kappa * (2 * s**2 + sigma**2))
    )
    gap = StationaryLaw(2, s, sigma, kappa).log_pdf(w) - closed
    np.testing.assert_allclose(gap, gap[0], rtol=0, atol=1e-10 * np.max(np.abs(closed)))


def test_the_quadrature_of_other_depths_is_accurate():
    """Near depth 2 it must join the closed form; at depth 3 the integral is done again by adaptive quadrature."""
    w = np.geomspace(0.01, 20, 30)
    near = log_density(w, 2 + 1e-9, 1.0, 0.5, 0.02)
    exact = log_density(w, 2, 1.0, 0.5, 0.02)
    np.testing.assert_allclose(near, exact, rtol=1e-6, atol=1e-6)
    s, sigma, kappa, depth = 1.5, 0.05, 0.02, 3
    speed = lambda v: (s - v) * v ** (2 / depth - 2) / (2 * (s - v) ** 2 + sigma**2)  # noqa: E731
    for strength in (0.02, 1.3, 1.51, 9.0):
        integral = quad(speed, s, strength, limit=400, epsabs=1e-13, points=[s + 0.1 * np.sign(strength - s)])[0]
        expected = -2 * np.log(strength) - np.log(2 * (s - strength) ** 2 + sigma**2) + 2 / (kappa * depth) * integral
        assert log_density(strength, depth, s, sigma, kappa) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_a_value_does_not_depend_on_the_others_asked_for(depth):
    w = np.array([0.5, 0.9, 1.0, 1.1, 3.0])
    alone = np.array([log_density(x, depth, 1.0, 1.0, 0.004) for x in w])
    together = log_density(np.concatenate([w, [1e-26, 1e26]]), depth, 1.0, 1.0, 0.004)[:5]
    np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_tail(depth):
    """``w^{-(5 - 3/L)}``: moments exist below ``4 - 3/L`` only."""
    law = StationaryLaw(depth, 1.0, 1.0, 0.2)
    w = np.array([1e4, 1e5])
    slope = np.diff(law.log_pdf(w)) / np.diff(np.log(w))
    assert slope[0] == pytest.approx(-(5 - 3 / depth), abs=2e-3)
    assert law.moment(4 - 3 / depth) == np.inf
    assert np.isfinite(law.moment(4 - 3 / depth - 0.2))
    assert law.moment(0) == pytest.approx(1, abs=1e-12)
    assert law.moment(2) - law.mean**2 == pytest.approx(law.standard_deviation**2, rel=1e-9)


@pytest.mark.parametrize("parameters", [(2, 1.0, 0.5, 0.02), (3, 1.0, 0.01, 0.01), (2, 3.0, 0.05, 0.001),
                                        (4, 0.1, 0.5, 0.1), (2, 1.0, 1.0, 0.6)])  # fmt: skip
def test_quantiles_invert_the_distribution_function(parameters):
    law = StationaryLaw(*parameters)
    probability = np.array([1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6])
    np.testing.assert_allclose(law.cdf(law.quantile(probability)), probability, rtol=1e-7, atol=1e-13)
    assert law.quantile(0.5).shape == ()
    for wrong in (0.0, 1.0, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"^probability must"):
            law.quantile(wrong)


def test_outside_the_half_line():
    law = StationaryLaw(2, 1.0, 1.0, 0.02)
    w = np.array([-1.0, 0.0, 1e-300, 1e100])
    np.testing.assert_array_equal(law.pdf(w)[:2], 0)
    np.testing.assert_allclose(law.cdf(w), [0, 0, 0, 1], rtol=0, atol=1e-12)
    assert np.isnan(law.cdf(np.nan))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_small_noise_limits(depth):
    """Temperature and mean shift are the first order in the noise scale, and no more."""
    s, sigma = 1.5, 0.7
    gaps = []
    for kappa in (2e-3, 1e-3):
        law = StationaryLaw(depth, s, sigma, kappa)
        gaps.append([law.standard_deviation**2 / boltzmann_temperature(depth, s, sigma, kappa) - 1,
                     (law.mean - s) / mean_shift(depth, s, sigma, kappa) - 1,
                     linearised_variance(depth, s, sigma, kappa, discrete=False)
                     / boltzmann_temperature(depth, s, sigma, kappa) - 1])  # fmt: skip
    gaps = np.abs(gaps)
    assert np.all(gaps[0] < 0.02)
    np.testing.assert_allclose(gaps[0] / gaps[1], 2, rtol=0.05)
    assert boltzmann_temperature(depth, s, sigma, 0.01) == pytest.approx(
        0.5 * 0.01 * sigma**2 * depth * s ** (2 - 2 / depth), rel=1e-14
    )


def test_values_of_the_full_matrix_model():
    assert matrix_mean_shift(3, 1.0, 0.01) == pytest.approx(-0.015)
    # Depth 2, width 3: theory of the excess loss for the rates 0.005 and 0.002 (depth 3).
    assert excess_loss(2, np.array([3.0, 2.0, 1.0]), 0.5, 0.005) == pytest.approx(0.01125, abs=5e-6)
    assert excess_loss(3, np.array([3.0, 2.0, 1.0]), 0.5, 0.002) == pytest.approx(0.00861, abs=5e-6)
    deviations = np.sqrt(np.diag(entry_variances(2, np.array([3.0, 2.0, 1.0]), 1.0, 0.01)))
    np.testing.assert_allclose(deviations, [0.173, 0.141, 0.100], atol=5e-4)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_coupling_rates_are_the_tangent_kernel_of_the_product(depth):
    """Near the solution ``d vec W = J J^T (-vec(W - M) dt + sqrt(kappa) sigma dB)``, J the Jacobian of the product."""
    strengths = np.array([1.9, 1.2, 0.4])
    layers = [jnp.diag(jnp.asarray(strengths ** (1 / depth)))] * depth
    product = lambda layers: jnp.linalg.multi_dot(layers[::-1]) if depth > 2 else layers[1] @ layers[0]  # noqa: E731
    jacobian = np.concatenate([np.asarray(j).reshape(9, 9) for j in jax.jacobian(product)(layers)], axis=1)
    kernel = jacobian @ jacobian.T
    np.testing.assert_allclose(kernel, np.diag(coupling_rates(depth, strengths).ravel()), atol=1e-12)
    # Its stationary covariance X solves kernel X + X kernel = kappa sigma^2 kernel^2.
    sigma, kappa = 0.7, 0.03
    X = np.diag(entry_variances(depth, strengths, sigma, kappa).ravel())
    np.testing.assert_allclose(kernel @ X + X @ kernel, kappa * sigma**2 * kernel @ kernel, atol=1e-12)
    assert excess_loss(depth, strengths, sigma, kappa) == pytest.approx(np.trace(X) / 2, rel=1e-12)
    np.testing.assert_allclose(np.diag(coupling_rates(depth, strengths)), relaxation_rate(depth, strengths), rtol=1e-12)


@pytest.mark.parametrize("batch", [1, 4])
def test_linearised_variance_is_the_fixed_point_of_the_chain(batch):
    """``delta <- (1 - eta lam m) delta + eta lam n``: V = E(1 - eta lam m)^2 V + (eta lam)^2 E n^2."""
    depth, s, sigma = 3, 1.2, 0.8
    rate = relaxation_rate(depth, s)
    for eta in np.array([0.1, 0.5, 0.99]) * stable_learning_rate(depth, s, batch):
        # E m = 1, E m^2 = 1 + 2/B, E n^2 = sigma^2 / B.
        factor = 1 - 2 * eta * rate + (eta * rate) ** 2 * (1 + 2 / batch)
        expected = (eta * rate) ** 2 * sigma**2 / batch / (1 - factor)
        assert linearised_variance(depth, s, sigma, eta, batch) == pytest.approx(expected, rel=1e-11)
    unstable = 1.01 * stable_learning_rate(depth, s, batch)
    assert linearised_variance(depth, s, sigma, unstable, batch) == np.inf
    # The equation: -2 lam V + kappa lam^2 (2 V + sigma^2) = 0.
    kappa = 0.1 / batch
    V = linearised_variance(depth, s, sigma, 0.1, batch, discrete=False)
    assert 2 * rate * V == pytest.approx(kappa * rate**2 * (2 * V + sigma**2), rel=1e-12)
    assert linearised_variance(depth, s, sigma, 1.01 * batch / rate, batch, discrete=False) == np.inf


@pytest.mark.parametrize(("inputs", "batch"), [(1, 1), (5, 1), (3, 4)])
def test_at_the_stable_learning_rate_the_squared_error_neither_grows_nor_falls(inputs, batch):
    """One linear layer, one step: ``E |E'|^2 / |E|^2 = E tr (I - eta X X^T / B)^2 / d_0 = 1``, by sampling."""
    depth, s = 2, 0.5  # relaxation rate 1, that of one layer
    eta = stable_learning_rate(depth, s, batch, inputs)
    x = np.random.default_rng(0).standard_normal((200_000, inputs, batch))
    factor = np.eye(inputs) - eta * np.einsum("nib,njb->nij", x, x) / batch
    assert_means(np.sum(factor**2, axis=(1, 2)) / inputs, 1.0)
    assert stable_learning_rate(3, 2.0, batch, inputs) == pytest.approx(eta / relaxation_rate(3, 2.0))


def test_contraction_exponent_at_the_reference_point():
    """``E ln|1 - eta lam m| / eta`` at eta 0.02, lam 2, by the trapezoidal rule, nodes off the pole."""
    x = np.linspace(-40, 40, 2_000_002)
    weight = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    exact = np.sum(np.log(np.abs(1 - 0.04 * x**2)) * weight) * (x[1] - x[0]) / 0.02
    assert contraction_exponent(2, 1.0, 0.02) == pytest.approx(exact, rel=1e-7)
    assert contraction_exponent(2, 1.0, 0.02) == pytest.approx(-2.1411, abs=5e-5)
    assert sde_contraction_exponent(2, 1.0, 0.02) == pytest.approx(-2.08, rel=1e-12)


@pytest.mark.parametrize(
    ("depth", "s", "eta", "batch"),
    [(2, 1.0, 0.02, 1), (2, 1.0, 0.3, 1), (3, 1.5, 0.1, 1), (3, 1.5, 0.1, 2), (2, 1.0, 0.2, 8)],
)
def test_contraction_exponent_by_sampling(depth, s, eta, batch):
    m = np.random.default_rng(1).chisquare(batch, 2_000_000) / batch
    samples = np.log(np.abs(1 - eta * depth * s ** (2 - 2 / depth) * m)) / eta
    assert_means(samples, contraction_exponent(depth, s, eta, batch))


@pytest.mark.parametrize("eta", [1e-8, 1e-5, 1e-3])
@pytest.mark.parametrize("batch", [1, 3, 100, 100_000])
def test_contraction_exponent_of_small_rates_and_large_batches(eta, batch):
    """``-lam - eta lam^2 (1 + 2/B) / 2`` and terms of second order; every narrow law of the batch mean is found."""
    rate = 0.8
    expected = -rate - eta * rate**2 * (1 + 2 / batch) / 2
    assert contraction_exponent(2, 0.4, eta, batch) == pytest.approx(expected, abs=10 * eta**2 + 3e-8)


def test_contraction_exponents_agree_to_first_order_in_the_rate():
    """``-lam - eta lam^2 (1 + 2/B) / 2`` against ``-lam - kappa lam^2``: equal noise terms, and the step's own."""
    for batch in (1, 4):
        eta, rate = 1e-4, relaxation_rate(3, 1.5)
        discrete = contraction_exponent(3, 1.5, eta, batch)
        assert (discrete + rate) / eta == pytest.approx(-(rate**2) * (1 + 2 / batch) / 2, rel=5e-3)
        equation = sde_contraction_exponent(3, 1.5, eta / batch)
        assert discrete - equation == pytest.approx(-eta * rate**2 / 2, rel=2e-2)


GOOD = {"depth": 2, "singular_value": 1.0, "label_noise": 0.5, "noise_scale": 0.02}
WIDE = {"depth": 2, "strengths": np.array([2.0, 1.0]), "label_noise": 0.5, "noise_scale": 0.02}
STEP = {"depth": 2, "singular_value": 1.0, "label_noise": 0.5, "learning_rate": 0.02, "batch_size": 1}
BAD = {
    "depth": [1, 1.5, np.nan], "singular_value": [0.0, -1.0, np.nan], "label_noise": [-0.1, np.nan],
    "noise_scale": [-0.02, np.inf], "learning_rate": [0.0, -0.02, np.nan], "batch_size": [0, -1], "inputs": [0],
    "strengths": [np.array([1.0, 0.0]), np.array([1.0, -1.0])], "strength": [0.0, -1.0],
    "kurtosis": [0.3, -1.0, np.nan],
}  # fmt: skip


@pytest.mark.parametrize(
    ("function", "good"),
    [
        (StationaryLaw, {**GOOD, "kurtosis": 1.0}),
        (stationary_law, {**GOOD, "kurtosis": 1.0}),
        (log_density, {**GOOD, "strength": 1.0, "kurtosis": 1.0}),
        (relaxation_rate, {"depth": 2, "singular_value": 1.0}),
        (boltzmann_temperature, GOOD),
        (mean_shift, GOOD),
        (linearised_variance, STEP),
        (matrix_mean_shift, {"width": 3, "label_noise": 0.5, "noise_scale": 0.02}),
        (coupling_rates, {"depth": 2, "strengths": np.array([2.0, 1.0])}),
        (entry_variances, WIDE),
        (excess_loss, WIDE),
        (contraction_exponent, {k: STEP[k] for k in ("depth", "singular_value", "learning_rate", "batch_size")}),
        (sde_contraction_exponent, {k: GOOD[k] for k in ("depth", "singular_value", "noise_scale")}),
        (stable_learning_rate, {"depth": 2, "singular_value": 1.0, "batch_size": 1, "inputs": 1}),
    ],
)
def test_bad_input_is_refused(function, good):
    function(**good)
    for name in good.keys() & BAD.keys():
        for value in BAD[name]:
            with pytest.raises(ValueError, match=f"^{name} must"):
                function(**{**good, name: value})


@pytest.mark.parametrize("make", [StationaryLaw, partial(log_density, 1.0)])
def test_a_law_needs_noise(make):
    for change in ({"label_noise": 0.0}, {"noise_scale": 0.0}):
        with pytest.raises(ValueError, match=f"^{next(iter(change))} must be finite and positive"):
            make(**{**GOOD, **change})


def test_no_law_where_the_mode_collapses():
    threshold = 2 * 0.2 / (2 * 0.2**2 + 3.0**2)
    assert StationaryLaw(2, 0.2, 3.0, 0.97 * threshold).mean < 0.05
    with pytest.raises(ValueError, match=r"^noise_scale must be below 0\.0440529, or at depth 2 the mode collapses"):
        StationaryLaw(2, 0.2, 3.0, 1.01 * threshold)
    assert StationaryLaw(3, 0.2, 3.0, 1.01 * threshold).mean > 0.01
