"""The scalar equation of a mode: one Ito process in three coordinates, and the limit of the exact SGD chain."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from separatrix.engines.fokker_planck import fokker_planck
from separatrix.systems.deep_linear.scalar_mode import (
    chain_step,
    drift_to_noise,
    flow_speed,
    log_diffusion,
    log_drift,
    noise_intensity,
    root_drift,
    root_noise,
    strength_diffusion,
    strength_drift,
)

MODES = {
    "depth": st.integers(2, 6), "strength": st.floats(0.01, 3), "s": st.floats(0.1, 3), "sigma": st.floats(0, 2),
    "kappa": st.floats(0, 0.2), "kurtosis": st.floats(0.4, 3),
}  # fmt: skip


def derivatives(change):
    """First and second derivative in the root, compiled once for all depths."""
    first = jax.grad(change)
    return jax.jit(first), jax.jit(jax.grad(first))


TO_STRENGTH = derivatives(lambda a, depth: a**depth)
TO_LOGARITHM = derivatives(lambda a, depth: depth * jnp.log(a))


@settings(max_examples=50, deadline=None)
@given(**MODES)
def test_root_strength_and_logarithm_are_one_ito_process(depth, strength, s, sigma, kappa, kurtosis):
    """Ito's formula from a to ``a**L`` and to ``L ln a``, its derivatives taken by machine."""
    a = strength ** (1 / depth)
    drift, noise = root_drift(a, s, depth), root_noise(a, s, depth, kappa, sigma, kurtosis)
    rest = (strength, s, depth, kappa, sigma, kurtosis)
    for derivative, drift_of, diffusion_of in (
        (TO_STRENGTH, strength_drift, strength_diffusion),
        (TO_LOGARITHM, log_drift, log_diffusion),
    ):
        slope, bend = (float(f(a, float(depth))) for f in derivative)
        terms = [slope * drift, 0.5 * bend * noise**2]
        # s - w is a difference of rounded numbers.
        rounding = 1e-11 * abs(bend) * noise**2 + 1e-14 * slope * a ** (depth - 1) * (s + strength)
        assert drift_of(*rest) == pytest.approx(sum(terms), rel=1e-11, abs=rounding)
        assert diffusion_of(*rest) == pytest.approx(0.5 * (slope * noise) ** 2, rel=1e-11)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_the_layers_of_a_mode_are_driven_by_one_noise(depth):
    """``w = a_1 ... a_L``, every layer moving by ``(dw/da_l) [(s - w) dt + sqrt(kappa Qm) dB]`` with the same dB."""
    s, kappa, sigma, w = 1.7, 0.03, 0.4, 0.6
    layers = np.full(depth, w ** (1 / depth))
    gradient = w / layers
    bend = (w / np.outer(layers, layers)) * (1 - np.eye(depth))
    intensity = kappa * (2 * (s - w) ** 2 + sigma**2)
    assert flow_speed(w, s, depth) == pytest.approx(gradient @ gradient * (s - w), rel=1e-12)
    ito = 0.5 * gradient @ bend @ gradient * intensity
    assert strength_drift(w, s, depth, kappa, sigma) == pytest.approx(gradient @ gradient * (s - w) + ito, rel=1e-12)
    variance_rate = (gradient @ gradient) ** 2 * intensity
    assert 2 * strength_diffusion(w, s, depth, kappa, sigma) == pytest.approx(variance_rate, rel=1e-12)
    # Independent noises would add up to 1/L of it.
    assert variance_rate == pytest.approx(depth * np.sum(gradient**4) * intensity, rel=1e-12)


GAUSS = tuple(v / np.array([1, math.sqrt(2 * np.pi)])[i] for i, v in enumerate(np.polynomial.hermite_e.hermegauss(12)))


def batches(size, inputs=GAUSS):
    """Batch means of x^2 and of x z with their probabilities: all products of quadrature nodes, exact for powers."""
    one = [(x**2, x * z, p * q) for (x, p), (z, q) in itertools.product(zip(*inputs, strict=True),
                                                                      zip(*GAUSS, strict=True))]  # fmt: skip
    square, cross, weight = np.array(one).T
    if size == 2:
        square, cross = ((v[:, None] + v[None]).ravel() / 2 for v in (square, cross))
        weight = np.outer(weight, weight).ravel()
    return square, cross, weight


# Inputs with unit variance and fourth moment 3 rho: signs have rho = 1/3, and zero with two tails reaches any.
SIGNS = (np.array([-1.0, 1.0]), np.array([0.5, 0.5]))
TAILS = (np.array([-(6**0.5), 0.0, 6**0.5]), np.array([1 / 12, 5 / 6, 1 / 12]))


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize(
    ("size", "inputs", "kurtosis"),
    [(1, GAUSS, 1.0), (2, GAUSS, 1.0), (1, SIGNS, 1 / 3), (1, TAILS, 2.0)],
    ids=["Gaussian", "batch of two", "signs", "heavy tails"],
)
def test_one_step_of_the_chain_has_the_mean_and_variance_of_the_equation(depth, size, inputs, kurtosis):
    s, sigma, a = 1.4, 0.6, 0.8
    square, cross, weight = batches(size, inputs)
    assert weight.sum() == pytest.approx(1)
    gaps = []
    for rate in (2e-3, 1e-3):
        kappa = rate / size
        new = chain_step(a, square, sigma * cross, s, depth, rate)
        mean = weight @ new
        variance = weight @ (new - mean) ** 2
        assert mean - a == pytest.approx(rate * root_drift(a, s, depth), rel=1e-10)
        assert variance == pytest.approx(rate * root_noise(a, s, depth, kappa, sigma, kurtosis) ** 2, rel=1e-10)
        # The strength: its mean to second order in the rate, where the square of the drift enters beside Ito's term.
        w = a**depth
        mean = weight @ new**depth
        variance = weight @ (new**depth - mean) ** 2
        squared = 0.5 * depth * (depth - 1) * a ** (depth - 2) * (rate * root_drift(a, s, depth)) ** 2
        gaps.append([mean - w - rate * strength_drift(w, s, depth, kappa, sigma, kurtosis) - squared,
                     variance - 2 * rate * strength_diffusion(w, s, depth, kappa, sigma, kurtosis)])  # fmt: skip
        assert abs(gaps[-1][1]) < 0.1 * variance
    gaps = np.array(gaps)
    third_order = np.log2(np.abs(gaps[0] / gaps[1]))
    if depth > 2:
        np.testing.assert_allclose(third_order, 3, atol=0.05)
    else:
        # A square has no third derivative: nothing is left but rounding.
        assert np.all(np.abs(gaps[:, 0]) < 1e-15)
        assert third_order[1] == pytest.approx(3, abs=0.05)


@settings(max_examples=50, deadline=None)
@given(**MODES)
def test_drift_over_noise_is_the_same_at_every_depth(depth, strength, s, sigma, kappa, kurtosis):
    kappa, sigma = kappa + 1e-3, sigma + 0.01
    ratio = flow_speed(strength, s, depth) / np.sqrt(2 * strength_diffusion(strength, s, depth, kappa, sigma, kurtosis))
    assert drift_to_noise(strength, s, kappa, sigma, kurtosis) == pytest.approx(ratio, rel=1e-10)


def test_without_label_noise_the_ratio_is_one_constant():
    w = np.array([1e-4, 0.3, 0.99])
    np.testing.assert_allclose(drift_to_noise(w, 1.0, 0.02, 0.0), 1 / np.sqrt(2 * 0.02), rtol=1e-12)
    assert noise_intensity(0.25, 1.0, 0.5) == pytest.approx(2 * 0.75**2 + 0.5**2)
    assert noise_intensity(0.25, 1.0, 0.5, kurtosis=0.6) == pytest.approx(0.8 * 0.75**2 + 0.5**2)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_second_order_drift_descends_the_loss_plus_a_quarter_of_its_squared_gradient(depth):
    s, rate, a = 1.3, 0.1, jnp.linspace(0.1, 1.3, 7)
    # The loss of the root: its gradient is that of the network per layer, a^{L-1} (a^L - s).
    loss = lambda a: a ** (2 * depth) / (2 * depth) - s * a**depth / depth  # noqa: E731
    modified = lambda a: loss(a) + rate / 4 * jax.grad(loss)(a) ** 2  # noqa: E731
    np.testing.assert_allclose(root_drift(a, s, depth), -jax.vmap(jax.grad(loss))(a), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(root_drift(a, s, depth, rate), -jax.vmap(jax.grad(modified))(a), rtol=1e-12, atol=1e-15)


def test_the_second_order_drift_removes_the_error_of_the_mean_while_the_mode_grows():
    """Known from an independent program at rate 0.05: SGD 0.2802, its equation 0.2857, each +- 0.001."""
    s, sigma, start, members = 1.0, 0.5, 0.05, 1_000_000
    edges = np.sqrt(start) * np.exp(np.linspace(-6.0, 3.5, 3801))
    initial = np.zeros(3800)
    initial[2399:2401] = 0.5 / np.diff(edges)[2399:2401]  # all mass beside the start
    rng = np.random.default_rng(0)
    rates = np.array([0.1, 0.05])
    means, errors, plain, corrected = np.empty((4, 2))
    for i, rate in enumerate(rates):
        root = np.full(members, np.sqrt(start))
        for _ in range(round(1 / rate)):
            x, z = rng.standard_normal((2, members))
            root = chain_step(root, x**2, sigma * x * z, s, 2, rate)
        means[i], errors[i] = np.mean(root**2), np.std(root**2) / np.sqrt(members)
        for results, second_order in ((plain, None), (corrected, rate)):
            law = fokker_planck(
                partial(root_drift, singular_value=s, depth=2, learning_rate=second_order),
                lambda a, rate=rate: root_noise(a, s, 2, rate, sigma) ** 2,
                edges, initial, [1.0], 0.002, order=2,
            )  # fmt: skip
            results[i] = law.expectation(law.centres**2)[0]
    assert means[1] == pytest.approx(0.2802, abs=0.001)
    assert plain[1] == pytest.approx(0.2857, abs=0.001)
    assert (plain - means)[0] / (plain - means)[1] == pytest.approx(2, abs=0.25)
    # What is left of it is of second order in the rate, about 2 rate of the error of first order.
    assert np.all(np.abs(corrected - means) < 3 * rates * (plain - means) + 4 * errors)
    assert np.all(plain - means > 20 * errors)


def test_arrays_and_traced_arrays_pass_through():
    w = np.linspace(0.1, 2, 5)
    for f in (strength_drift, strength_diffusion, log_drift, log_diffusion):
        traced = jax.jit(lambda w, f=f: f(w, 1.0, 3, 0.1, 0.5))(jnp.asarray(w))
        np.testing.assert_allclose(traced, f(w, 1.0, 3, 0.1, 0.5), rtol=1e-12)
        np.testing.assert_allclose(f(w, 1.0, 3, 0.1, 0.5)[2], f(w[2], 1.0, 3, 0.1, 0.5), rtol=1e-14)
