from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gradient_noise import LAWS, SIGMA, full_covariance, networks, problem

from separatrix.systems.deep_linear.gradient_noise import InputLaw, layer_product, mean_gradient, partial_products
from separatrix.systems.deep_linear.modewise import mode_moments
from separatrix.systems.deep_linear.teacher import Teacher, aligned_balanced_weights


def frames(rng, d_in, d_out, modes=2):
    return (np.linalg.qr(rng.normal(size=(d, d)))[0][:, :modes] for d in (d_out, d_in))


def derivative_of_the_modes(weights, left, right):
    """``d w_ab / d theta``, ``(a, b, parameter)``."""
    ahead, behind = partial_products(weights)
    return np.concatenate([np.einsum("ia,xb->abix", a.T @ left, b @ right).reshape(left.shape[1], right.shape[1], -1)
                           for a, b in zip(ahead, behind, strict=True)], axis=-1)  # fmt: skip


def half_trace_of_curvature(weights, covariance, left, right):
    """``sum_ij Cov_ij d^2 w_ab / d theta_i d theta_j / 2``, the Ito term, by automatic differentiation."""
    sizes = np.cumsum([0] + [w.size for w in weights])

    def modes(theta):
        layers = [theta[a:b].reshape(w.shape) for a, b, w in zip(sizes[:-1], sizes[1:], weights, strict=True)]
        return left.T @ layer_product(layers) @ right

    hessian = jax.jit(jax.hessian(modes))(jnp.concatenate([jnp.asarray(w).ravel() for w in weights]))
    return np.einsum("abij,ij->ab", hessian, covariance) / 2


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("widths", [(3, 4, 2), (3, 5, 4, 3)])
def test_moments_are_contractions_of_the_full_gradient_covariance(law, widths):
    weights, teacher = problem(widths)
    inputs = LAWS[law][1]
    left, right = frames(np.random.default_rng(1), widths[0], widths[-1])
    moments = mode_moments(weights, teacher, left, right, SIGMA, inputs)
    covariance = full_covariance(weights, teacher, SIGMA, inputs)
    slope = derivative_of_the_modes(weights, left, right)
    gradient = np.concatenate([g.ravel() for g in mean_gradient(weights, teacher, inputs)])
    np.testing.assert_allclose(moments.strength, left.T @ layer_product(weights) @ right, rtol=1e-12)
    np.testing.assert_allclose(moments.flow, -slope @ gradient, rtol=0, atol=1e-12 * np.abs(moments.flow).max())
    exact = np.einsum("abi,ij,abj->ab", slope, covariance, slope)
    np.testing.assert_allclose(moments.variance_rate, exact, rtol=1e-12)
    exact = half_trace_of_curvature(weights, covariance, left, right)
    np.testing.assert_allclose(moments.ito, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


@pytest.mark.parametrize("kurtosis", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_an_aligned_balanced_network_has_the_drift_and_diffusion_of_the_scalar_theory(depth, kurtosis):
    s, w = np.array([3.0, 2.0, 1.0]), np.array([1.3, 0.4, 1.1])
    teacher = Teacher.diagonal(s)
    weights = aligned_balanced_weights(teacher, (3, *[4] * (depth - 1), 3), w)
    moments = mode_moments(weights, teacher.matrix, np.eye(3), np.eye(3), SIGMA, InputLaw(kurtosis=kurtosis))
    e = s - w
    intensity = (3 * kurtosis - 1) * e**2 + SIGMA**2
    np.testing.assert_allclose(np.diagonal(moments.flow), depth * w ** (2 - 2 / depth) * e, rtol=1e-12)
    np.testing.assert_allclose(
        np.diagonal(moments.variance_rate), depth**2 * w ** (4 - 4 / depth) * intensity, rtol=1e-12
    )
    # Entries between modes: Theta_ab^2 (rho e_a^2 + sigma^2), Theta_ab = sum_l w_a^(2(L-l)/L) w_b^(2(l-1)/L).
    layer = np.arange(1, depth + 1)[:, None, None]
    theta = np.sum(w[:, None] ** (2 * (depth - layer) / depth) * w ** (2 * (layer - 1) / depth), axis=0)
    between = theta**2 * (kurtosis * e[:, None] ** 2 + SIGMA**2)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(moments.variance_rate[off], between[off], rtol=1e-12)
    np.testing.assert_allclose(moments.flow[off], 0, atol=1e-12)


def test_at_depth_two_the_other_modes_add_their_share_to_the_ito_drift():
    s, w = np.array([3.0, 2.0, 1.0]), np.array([1.3, 0.4, 1.1])
    teacher = Teacher.diagonal(s)
    weights = aligned_balanced_weights(teacher, (3, 3, 3), w)
    e, u = s - w, np.eye(3)
    scalar = w * (2 * e**2 + SIGMA**2)
    coupling = e * (np.sum(w * e) - w * e)
    np.testing.assert_allclose(np.diagonal(mode_moments(weights, teacher.matrix, u, u, SIGMA).ito), scalar + coupling)


@settings(max_examples=300, deadline=None)
@given(networks(), st.integers(0, 2**32 - 1))
def test_moments_do_not_see_rotations_of_the_hidden_layers(network, seed):
    weights, teacher, sigma, law = network
    rng = np.random.default_rng(seed)
    turns = [np.linalg.qr(rng.normal(size=(w.shape[0], w.shape[0])))[0] for w in weights[:-1]]
    turns = [np.eye(weights[0].shape[1]), *turns, np.eye(weights[-1].shape[0])]
    turned = [after @ w @ before.T for w, (before, after) in zip(weights, pairwise(turns), strict=True)]
    left, right = np.eye(weights[-1].shape[0], 1), np.eye(weights[0].shape[1], 1)
    before = mode_moments(weights, teacher, left, right, sigma, law)
    after = mode_moments(turned, teacher, left, right, sigma, law)
    assert before.variance_rate.min() >= -1e-10 * (1 + np.abs(before.variance_rate).max())
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("law", ["Gaussian", "correlated scale mixture"])
def test_numpy_and_traced_jax_agree_and_batches_are_members_side_by_side(law):
    inputs = LAWS[law][1]
    members = [problem(seed=seed)[0] for seed in range(3)]
    teacher = problem()[1]
    left, right = frames(np.random.default_rng(1), 3, 3)
    batch = [np.stack(layer) for layer in zip(*members, strict=True)]
    batched = mode_moments(batch, teacher, left, right, SIGMA, inputs)
    compiled = jax.jit(lambda w: mode_moments(w, *map(jnp.asarray, (teacher, left, right)), SIGMA, inputs))
    alone = [mode_moments(weights, teacher, left, right, SIGMA, inputs) for weights in members]
    for ours, theirs, *each in zip(batched, compiled([jnp.asarray(w) for w in batch]), *alone, strict=True):
        np.testing.assert_allclose(ours, np.stack(each), rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(theirs, np.stack(each), rtol=1e-10, atol=1e-10)
