"""Linearised training follows the closed form of a linear model, and its kernel stands still."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from separatrix.networks.mlp import MLP
from separatrix.systems.training_phases.kernel_course import kernel_course
from separatrix.systems.training_phases.linearized_training import LinearizedStep, linearized, switched
from separatrix.systems.training_phases.training import MomentumStep, training_arguments
from separatrix.systems.training_phases.two_phases.switching import FrozenKernelNetwork

NETWORK = MLP((4, 6, 3), "tanh")


def problem(samples=8, seed=0):
    rng = np.random.default_rng(seed)
    parameters = jax.tree.map(jnp.asarray, NETWORK.init(rng))
    return parameters, rng.normal(size=(samples, 4)), rng.integers(0, 3, samples)


def flat_jacobian(parameters, x):
    slopes = jax.jit(jax.jacrev(lambda p: NETWORK(p, x)))(parameters)
    return np.concatenate([np.asarray(a).reshape(len(x) * 3, -1) for a in jax.tree.leaves(slopes)], axis=1)


def test_the_expansion_is_linear_and_touches_the_network_at_the_switch():
    anchor, x, _ = problem()
    other, _, _ = problem(seed=1)
    step = jax.tree.map(jnp.subtract, other, anchor)
    change = flat_jacobian(anchor, x) @ np.concatenate([np.ravel(a) for a in jax.tree.leaves(step)])
    expected = np.asarray(NETWORK(anchor, x)) + change.reshape(len(x), 3)
    expansion = jax.jit(linearized, static_argnums=0)
    np.testing.assert_allclose(expansion(NETWORK, anchor, other, x), expected, rtol=1e-10)
    np.testing.assert_allclose(expansion(NETWORK, anchor, anchor, x), NETWORK(anchor, x), rtol=1e-12)


def test_the_first_step_after_the_switch_is_that_of_the_network_and_later_ones_are_not():
    parameters, x, labels = problem()
    arguments = training_arguments(x, labels, 0.3, 0.9, 0.01)
    batch, rest = jnp.arange(5), jax.tree.map(jnp.zeros_like, parameters)
    ordinary, frozen = (parameters, rest), switched(parameters)
    frozen = jax.tree.map(jnp.asarray, frozen)
    ordinary_step, frozen_step = jax.jit(MomentumStep(NETWORK)), jax.jit(LinearizedStep(NETWORK))
    for step in range(2):
        ordinary = ordinary_step(ordinary, batch, arguments)
        frozen = frozen_step(frozen, batch, arguments)
        same = [np.allclose(a, b, rtol=1e-9, atol=0) for a, b in zip(*map(jax.tree.leaves, (ordinary[0], frozen[0])), strict=True)]  # fmt: skip  # noqa: E501
        assert all(same) == (step == 0)


def test_gradient_flow_of_squared_loss_follows_the_exponential_of_the_kernel():
    anchor, x, _ = problem()
    y = np.random.default_rng(2).normal(size=(len(x), 3))
    rate, steps = 1e-3, 2000

    def loss(parameters):
        return jnp.sum((linearized(NETWORK, anchor, parameters, x) - y) ** 2) / (2 * len(x))

    descend = jax.jit(
        lambda p: jax.lax.fori_loop(
            0, steps, lambda _, p: jax.tree.map(lambda a, g: a - rate * g, p, jax.grad(loss)(p)), p
        )
    )
    found = np.asarray(linearized(NETWORK, anchor, descend(anchor), x))
    jacobian = flat_jacobian(anchor, x)
    start = np.asarray(NETWORK(anchor, x)).ravel()
    decay = scipy.linalg.expm(-jacobian @ jacobian.T * rate * steps / len(x))
    expected = y.ravel() + decay @ (start - y.ravel())
    # the scheme's error is of first order in the step
    assert np.abs(found.ravel() - expected).max() < 0.01 * np.abs(expected - start).max()


def test_the_kernel_of_a_run_moves_and_that_of_its_linearisation_does_not():
    start, x, labels = problem()
    end, _, _ = problem(seed=1)
    targets = np.eye(3)[labels] - np.eye(3)[labels].mean(axis=0)
    as_numpy = lambda tree: jax.tree.map(np.asarray, tree)  # noqa: E731
    start, end = as_numpy(start), as_numpy(end)
    moved = kernel_course(NETWORK, [start, end], x, targets)
    still = kernel_course(FrozenKernelNetwork(NETWORK), [(start, start), (end, start)], x, targets)
    assert moved.distance[0, 1] > 0.01
    assert still.distance[0, 1] < 1e-30
    jacobians = [flat_jacobian(jax.tree.map(jnp.asarray, p), x) for p in (start, end)]
    kernels = [j @ j.T for j in jacobians]
    cosine = np.sum(kernels[0] * kernels[1]) / np.prod([np.linalg.norm(k) for k in kernels])
    assert moved.distance[0, 1] == pytest.approx(1 - cosine, rel=1e-10)
    np.testing.assert_allclose(moved.norm, [np.linalg.norm(k) for k in kernels], rtol=1e-10)
    np.testing.assert_allclose(moved.eigenvalues[1], np.linalg.eigvalsh(kernels[1])[:-6:-1], rtol=1e-9)
    assert moved.rounding < 1e-28
    first = kernels[0].reshape(8, 3, 8, 3)[:2, :, :2].ravel(), kernels[1].reshape(8, 3, 8, 3)[:2, :, :2].ravel()
    assert moved.subsets[0, 0, 1] == pytest.approx(1 - first[0] @ first[1] / np.prod(np.linalg.norm(first, axis=1)))
