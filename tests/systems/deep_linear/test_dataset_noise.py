import itertools
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.systems.deep_linear.dataset_noise import (
    dataset_gradient_covariance,
    dataset_mean_gradient,
    dataset_mode_diffusion,
    dataset_noise_traces,
    fourth_moments,
    mode_diffusion_from_moments,
)
from separatrix.systems.deep_linear.gradient_noise import batch_factor, gradient_covariance, layer_product, noise_traces

WIDTHS, SAMPLES = (3, 5, 4, 2), 7


def problem(seed=0, samples=SAMPLES):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(0, 0.8, (after, before)) for before, after in pairwise(WIDTHS)]
    return weights, rng.normal(size=(samples, WIDTHS[0])), rng.normal(size=(samples, WIDTHS[-1]))


def sample_gradients(weights, inputs, outputs):
    """Gradients of ``|y - W x|^2 / 2`` for each layer and sample, by automatic differentiation."""
    loss = lambda w, x, y: jnp.sum((y - layer_product(w) @ x) ** 2) / 2  # noqa: E731
    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))([jnp.asarray(w) for w in weights], inputs, outputs)
    return [np.asarray(g) for g in gradients]


@pytest.fixture(scope="module")
def gradients():
    return sample_gradients(*problem())


def centred(g):
    return g - g.mean(0)


def test_the_mean_gradient_is_the_mean_over_the_samples(gradients):
    for ours, each in zip(dataset_mean_gradient(*problem()), gradients, strict=True):
        np.testing.assert_allclose(ours, each.mean(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("layer", "other"), list(itertools.product((1, 2, 3), repeat=2)))
def test_every_covariance_block_is_that_of_the_samples(layer, other, gradients):
    exact = np.einsum("nij,nkp->ijkp", centred(gradients[layer - 1]), centred(gradients[other - 1])) / SAMPLES
    ours = dataset_gradient_covariance(*problem(), layer, other)
    np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


def test_traces_are_the_mean_squared_deviations_of_the_samples(gradients):
    exact = [np.sum(centred(g) ** 2) / SAMPLES for g in gradients]
    np.testing.assert_allclose(dataset_noise_traces(*problem()), exact, rtol=1e-12)


def test_mode_diffusion_is_the_variance_of_the_modes_speed_over_the_samples(gradients):
    weights, inputs, outputs = problem()
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.normal(size=(d, d)))[0][:, :2] for d in (WIDTHS[-1], WIDTHS[0]))
    modes = lambda w: jnp.diagonal(left.T @ layer_product(w) @ right)  # noqa: E731
    here = [jnp.asarray(w) for w in weights]
    downhill = [-jnp.asarray(g) for g in gradients]
    speeds = jax.jit(jax.vmap(lambda direction: jax.jvp(modes, (here,), (direction,))[1]))(downhill)
    flow, variance_rate = dataset_mode_diffusion(weights, inputs, outputs, left, right)
    np.testing.assert_allclose(flow, np.mean(speeds, axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(variance_rate, np.var(speeds, axis=0), rtol=1e-12)


def test_batches_of_weights_are_members_side_by_side():
    _, inputs, outputs = problem()
    members = [problem(seed)[0] for seed in range(3)]
    batch = [np.stack(layer) for layer in zip(*members, strict=True)]
    left, right = np.eye(2), np.eye(3, 2)
    everything = lambda w: [  # noqa: E731
        *dataset_mean_gradient(w, inputs, outputs),
        dataset_noise_traces(w, inputs, outputs),
        *dataset_mode_diffusion(w, inputs, outputs, left, right),
    ]
    for batched, *alone in zip(everything(batch), *map(everything, members), strict=True):
        np.testing.assert_allclose(batched, np.stack(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6])
@pytest.mark.parametrize("replacement", [True, False])
def test_batch_factor_turns_the_covariance_of_a_sample_into_that_of_all_batches(batch_size, replacement):
    g = np.random.default_rng(2).normal(size=(6, 2))
    draws = itertools.product(range(6), repeat=batch_size)
    batches = draws if replacement else itertools.combinations(range(6), batch_size)
    means = np.array([g[list(batch)].mean(0) for batch in batches])
    factor = batch_factor(batch_size, samples=6, replacement=replacement)
    np.testing.assert_allclose(np.cov(means.T, ddof=0), factor * np.cov(g.T, ddof=0), rtol=0, atol=1e-14)


def test_many_gaussian_samples_have_the_moments_of_the_gaussian_law():
    rng = np.random.default_rng(3)
    weights = problem()[0]
    teacher, sigma, samples = rng.normal(size=(2, 3)), 0.5, 400_000
    inputs = rng.normal(size=(samples, 3))
    outputs = inputs @ teacher.T + sigma * rng.normal(size=(samples, 2))
    np.testing.assert_allclose(
        dataset_noise_traces(weights, inputs, outputs), noise_traces(weights, teacher, sigma), rtol=0.02
    )
    exact = gradient_covariance(weights, teacher, sigma, 1, 3)
    gap = dataset_gradient_covariance(weights, inputs, outputs, 1, 3) - exact
    assert np.linalg.norm(gap) < 0.02 * np.linalg.norm(exact)


def test_layers_that_do_not_exist_are_refused():
    for layer, other in ((0, 1), (1, 4)):
        with pytest.raises(ValueError, match="layers must lie between 1 and 3"):
            dataset_gradient_covariance(*problem(), layer, other)


def test_the_diffusion_from_fourth_moments_is_that_of_the_samples_even_next_to_the_teacher():
    rng = np.random.default_rng(5)
    teacher = rng.normal(size=(3, 4))
    x = rng.normal(size=(50, 4)) ** 3
    left, right = np.eye(3, 2), np.eye(4, 2)
    for noise, distance in ((1.0, 1.0), (0.0, 1e-6)):
        y = x @ teacher.T + noise * rng.normal(size=(50, 3)) * x[:, :1]
        # Two layers whose product lies at this distance from the teacher.
        weights = [np.eye(4), teacher + distance * rng.normal(size=(3, 4))]
        exact = dataset_mode_diffusion(weights, x, y, left, right)[1]
        moments = fourth_moments(x, y, teacher)
        found = mode_diffusion_from_moments(weights, teacher, moments, left, right)
        np.testing.assert_allclose(found, exact, rtol=1e-8)
