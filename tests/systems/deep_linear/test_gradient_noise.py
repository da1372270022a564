from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from separatrix.systems.deep_linear.gradient_noise import (
    GAUSSIAN,
    InputLaw,
    batch_factor,
    gradient_covariance,
    layer_product,
    mean_gradient,
    noise_traces,
    partial_products,
    product_gradient_covariance,
)

WIDTHS, SIGMA = (3, 5, 4, 3), 0.7
COLOUR = np.array([[1.2, 0.0, 0.0], [0.5, 0.9, 0.0], [-0.3, 0.4, 0.6]])
MIXTURE = np.array([0.5, 1.5])  # standard deviations of an equal scale mixture of Gaussians


def problem(widths=WIDTHS, seed=0):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(0, 0.8, (after, before)) for before, after in pairwise(widths)]
    return weights, rng.normal(size=(widths[-1], widths[0]))


def gaussian(rng, n):
    return rng.normal(size=(n, 3))


def correlated(rng, n):
    return rng.normal(size=(n, 3)) @ COLOUR.T


def sphere(rng, n):
    x = rng.normal(size=(n, 3))
    return x * (np.sqrt(3) / np.linalg.norm(x, axis=1, keepdims=True))


def mixture(rng, n):
    return correlated(rng, n) * rng.choice(MIXTURE / np.sqrt(np.mean(MIXTURE**2)), size=(n, 1))


LAWS = {
    "Gaussian": (gaussian, GAUSSIAN),
    "correlated Gaussian": (correlated, InputLaw(COLOUR @ COLOUR.T)),
    "sphere": (sphere, InputLaw(kurtosis=3 / 5)),
    "correlated scale mixture": (
        mixture, InputLaw(COLOUR @ COLOUR.T, np.mean(MIXTURE**4) / np.mean(MIXTURE**2) ** 2)),
}  # fmt: skip


def full_covariance(weights, teacher, sigma, inputs=GAUSSIAN):
    """Covariance of all parameters, ``(p, p)``."""
    layers = range(1, len(weights) + 1)
    block = lambda i, j: gradient_covariance(weights, teacher, sigma, i, j, inputs)  # noqa: E731
    flat = lambda i, j: block(i, j).reshape(weights[i - 1].size, weights[j - 1].size)  # noqa: E731
    return np.block([[flat(i, j) for j in layers] for i in layers])


@pytest.mark.parametrize("law", LAWS)
def test_mean_and_covariance_of_sampled_gradients(law):
    weights, teacher = problem()
    draw, inputs = LAWS[law]
    rng = np.random.default_rng(1)
    ahead, behind = partial_products(weights)
    total, second, count = 0.0, 0.0, 0
    for _ in range(20):
        x = draw(rng, 40_000)
        error = x @ (teacher - layer_product(weights)).T + SIGMA * rng.normal(size=(len(x), WIDTHS[-1]))
        g = np.concatenate([-np.einsum("ni,nj->nij", error @ a, x @ b.T).reshape(len(x), -1)
                            for a, b in zip(ahead, behind, strict=True)], axis=1)  # fmt: skip
        total, second, count = total + g.sum(0), second + g.T @ g, count + len(x)
    mean = np.concatenate([g.ravel() for g in mean_gradient(weights, teacher, inputs)])
    exact = full_covariance(weights, teacher, SIGMA, inputs)
    z = (total / count - mean) / np.sqrt(np.diagonal(exact) / count)
    assert np.all(np.abs(z) < 6)
    sampled = second / count - np.outer(mean, mean)
    edges = np.cumsum([0] + [w.size for w in weights])
    for rows in (slice(*pair) for pair in pairwise(edges)):
        for columns in (slice(*pair) for pair in pairwise(edges)):
            block = exact[rows, columns]
            assert np.linalg.norm(sampled[rows, columns] - block) < 0.012 * np.linalg.norm(block), (rows, columns)


@pytest.mark.parametrize("law", LAWS)
def test_traces_are_the_traces_of_the_blocks(law):
    weights, teacher = problem()
    inputs = LAWS[law][1]
    traces = [np.einsum("ijij", gradient_covariance(weights, teacher, SIGMA, k, k, inputs)) for k in (1, 2, 3)]
    np.testing.assert_allclose(noise_traces(weights, teacher, SIGMA, inputs), traces, rtol=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_a_network_of_one_layer_has_the_covariance_of_the_product(law):
    weights, teacher = problem((3, 4), seed=2)
    inputs = LAWS[law][1]
    np.testing.assert_allclose(
        product_gradient_covariance(teacher - weights[0], SIGMA, inputs),
        gradient_covariance(weights, teacher, SIGMA, 1, 1, inputs),
        rtol=1e-12,
    )


@pytest.mark.parametrize("law", LAWS)
def test_the_covariance_of_the_layers_is_that_of_the_product_seen_through_the_others(law):
    weights, teacher = problem()
    inputs = LAWS[law][1]
    ahead, behind = partial_products(weights)
    product = product_gradient_covariance(teacher - layer_product(weights), SIGMA, inputs)
    jacobian = np.concatenate([np.einsum("oi,jx->ijox", a, b).reshape(-1, product.shape[0] * product.shape[1])
                               for a, b in zip(ahead, behind, strict=True)])  # fmt: skip
    flat = product.reshape(jacobian.shape[1], -1)
    np.testing.assert_allclose(
        full_covariance(weights, teacher, SIGMA, inputs), jacobian @ flat @ jacobian.T, rtol=0, atol=1e-11
    )


def test_the_mean_gradient_is_the_gradient_of_the_population_loss():
    weights, teacher = problem()
    inputs = LAWS["correlated Gaussian"][1]

    def loss(weights):
        error = teacher - layer_product(weights)
        return jnp.trace(error @ inputs.covariance @ error.T) / 2

    for ours, exact in zip(mean_gradient(weights, teacher, inputs), jax.grad(loss)(list(map(jnp.asarray, weights))),
                           strict=True):  # fmt: skip
        np.testing.assert_allclose(ours, exact, rtol=1e-12)


@st.composite
def networks(draw):
    """Weights, teacher, label noise and input law of any small network of depth 2 to 4."""
    widths = draw(st.lists(st.integers(1, 4), min_size=3, max_size=5))
    weights, teacher = problem(widths, draw(st.integers(0, 2**32 - 1)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    root = rng.normal(size=(widths[0], widths[0]))
    lightest = widths[0] / (widths[0] + 2)  # the sphere: no law with the same covariance has a lower fourth moment
    law = InputLaw(root @ root.T if draw(st.booleans()) else None, draw(st.sampled_from([1.0, lightest, 2.0])))
    return weights, teacher, draw(st.sampled_from([0.0, 0.7])), law


@settings(max_examples=300, deadline=None)
@given(networks())
def test_covariances_are_symmetric_and_positive_semidefinite(network):
    weights, teacher, _, law = network
    covariance = full_covariance(*network)
    scale = np.trace(covariance) + sum(np.sum(g**2) for g in mean_gradient(weights, teacher, law))  # E |gradient|^2
    np.testing.assert_allclose(covariance, covariance.T, rtol=0, atol=1e-13 * scale)
    assert np.linalg.eigvalsh(covariance).min() > -1e-13 * scale


@settings(max_examples=300, deadline=None)
@given(networks(), st.integers(0, 2**32 - 1))
def test_rotating_the_hidden_layers_changes_no_trace_and_rotates_the_mean(network, seed):
    weights, teacher, sigma, law = network
    rng = np.random.default_rng(seed)
    frames = [np.linalg.qr(rng.normal(size=(w.shape[0], w.shape[0])))[0] for w in weights[:-1]]
    frames = [np.eye(weights[0].shape[1]), *frames, np.eye(weights[-1].shape[0])]
    turned = [after @ w @ before.T for w, (before, after) in zip(weights, pairwise(frames), strict=True)]
    np.testing.assert_allclose(
        noise_traces(turned, teacher, sigma, law), noise_traces(weights, teacher, sigma, law), rtol=1e-9, atol=1e-12
    )
    before, after = (mean_gradient(layers, teacher, law) for layers in (weights, turned))
    for mean, turned_mean, (inner, outer) in zip(before, after, pairwise(frames), strict=True):
        np.testing.assert_allclose(outer @ mean @ inner.T, turned_mean, rtol=1e-9, atol=1e-11)


def quantities(weights, teacher, law):
    return [
        *mean_gradient(weights, teacher, law),
        gradient_covariance(weights, teacher, SIGMA, 1, 3, law),
        gradient_covariance(weights, teacher, SIGMA, 2, 2, law),
        noise_traces(weights, teacher, SIGMA, law),
        product_gradient_covariance(teacher - layer_product(weights), SIGMA, law),
    ]


@pytest.mark.parametrize("law", ["Gaussian", "correlated scale mixture"])
def test_numpy_and_traced_jax_agree_and_batches_are_members_side_by_side(law):
    inputs = LAWS[law][1]
    members = [problem(seed=seed)[0] for seed in range(3)]
    teacher = problem()[1]
    batch = [np.stack(layer) for layer in zip(*members, strict=True)]
    batched = quantities(batch, teacher, inputs)
    traced = jax.jit(lambda w, m: quantities(w, m, inputs))([jnp.asarray(w) for w in batch], jnp.asarray(teacher))
    for k, (ours, theirs) in enumerate(zip(batched, traced, strict=True)):
        assert isinstance(ours, np.ndarray)
        alone = np.stack([quantities(weights, teacher, inputs)[k] for weights in members])
        np.testing.assert_allclose(ours, alone, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(theirs, alone, rtol=1e-10, atol=1e-11)


def test_torch_tensors_give_torch_tensors():
    torch = pytest.importorskip("torch")
    weights, teacher = problem()
    inputs = LAWS["correlated scale mixture"][1]
    law = InputLaw(torch.from_numpy(inputs.covariance), inputs.kurtosis)
    theirs = quantities([torch.from_numpy(w) for w in weights], torch.from_numpy(teacher), law)
    for ours, tensor in zip(quantities(weights, teacher, inputs), theirs, strict=True):
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_allclose(tensor.numpy(), ours, rtol=1e-12, atol=1e-12)


def test_float32_weights_give_float32():
    weights, teacher = problem()
    single = quantities([w.astype(np.float32) for w in weights], teacher.astype(np.float32), GAUSSIAN)
    for ours, exact in zip(single, quantities(weights, teacher, GAUSSIAN), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_layers_that_do_not_exist_are_refused():
    weights, teacher = problem()
    for layer, other in ((0, 1), (1, 4), (-1, 1)):
        with pytest.raises(ValueError, match="layers must lie between 1 and 3"):
            gradient_covariance(weights, teacher, SIGMA, layer, other)


def test_batch_factors_and_their_limits():
    assert batch_factor(4) == batch_factor(4, samples=10) == 0.25
    assert batch_factor(10, samples=10, replacement=False) == 0.0
    assert batch_factor(1, samples=10, replacement=False) == 1.0
    assert batch_factor(1, samples=1, replacement=False) == 0.0
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        batch_factor(0)
    with pytest.raises(ValueError, match="at most the 3 samples"):
        batch_factor(4, samples=3, replacement=False)
