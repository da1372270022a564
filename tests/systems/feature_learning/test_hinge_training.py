"""Networks with the hinge loss: gradients, steps against a plain loop, stopping, dead samples, divergence."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.engines.counter_normals import member_keys
from separatrix.engines.minibatches import sample_numbers
from separatrix.engines.stopping_ensemble import CENSORED, DIVERGED, SETTLED, run_until_settled
from separatrix.systems.feature_learning.hinge_networks import ConvolutionalNetwork, DenseNetwork, squared_norm
from separatrix.systems.feature_learning.hinge_training import HingeTraining
from separatrix.systems.feature_learning.noise_regimes.data import sign_sets

P, D, RUNS, BATCH = 24, 4, 3, 4
NETWORK = DenseNetwork(2, 12)


def start_keys(runs=RUNS):
    return np.stack([np.asarray(key) for key in member_keys(0, "start", 0, runs)], axis=1)


def weights_of(network, inputs=D):
    return begin(network, start_keys(), inputs)


# Compiled as a whole: operation by operation every one would be a program of its own.
begin = jax.jit(lambda network, keys, inputs: network.start((keys[:, 0], keys[:, 1]), inputs), static_argnums=(0, 2))


@partial(jax.jit, static_argnums=0)
def step_and_slopes(network, weights, x, factor):
    moved, answer = network.step(weights, x, lambda _: factor)
    total = lambda w: jnp.sum(factor * network.outputs(w, x).output)  # noqa: E731
    return moved, answer, jax.grad(total)(weights), network.outputs(weights, x)


def train(network=NETWORK, alpha=2.0, temperature=0.05, most=20_000, batch=BATCH):
    sets = sign_sets(0, 1, RUNS, P, 50, D, 1.0)
    own = {
        "data_set": np.arange(RUNS, dtype=np.int32),
        "start_key": start_keys(),
        "alpha": np.full(RUNS, alpha, np.float32),
        "temperature": np.full(RUNS, temperature, np.float32),
    }
    iteration = HingeTraining(network, P, batch)
    return run_until_settled(iteration, member_keys(1, "t", 0, RUNS), sets, own, most, 4), sets


@pytest.mark.parametrize(
    "network", [DenseNetwork(0, 1), DenseNetwork(3, 7), ConvolutionalNetwork(2, 3, (2, 4))], ids=str
)
def test_a_step_follows_the_gradient_of_the_outputs(network):
    rng = np.random.default_rng(0)
    weights = weights_of(network, 8)
    x = rng.standard_normal((RUNS, 5, 8)).astype(np.float32)
    factor = rng.standard_normal((RUNS, 5)).astype(np.float32)
    moved, answer, change, alone = step_and_slopes(network, weights, x, factor)
    for new, old, slope in zip(moved, weights, change, strict=True):
        np.testing.assert_allclose(new, old + slope, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(answer.output, alone.output, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "smallest"),
    # zeros around a small image leave less than half of what a convolution sees
    [(DenseNetwork(3, 64), 0.6), pytest.param(ConvolutionalNetwork(2, 64, (4, 4)), 0.1, marks=pytest.mark.slow)],
    ids=["dense", "conv"],
)
def test_outputs_are_of_order_one_at_the_start(network, smallest):
    weights = begin(network, start_keys(64), 16)
    x = np.random.default_rng(1).standard_normal((64, 30, 16)).astype(np.float32)
    assert smallest < float(jnp.mean(jax.jit(network.outputs)(weights, x).output ** 2)) < 1.5
    count = sum(int(np.prod(w.shape[1:])) for w in weights)
    assert float(jnp.mean(squared_norm(weights))) / count == pytest.approx(1, abs=0.1)


def test_it_makes_the_steps_of_a_plain_loop_and_stops_with_it():
    alpha, temperature = 2.0, 0.05
    ended, sets = train(alpha=alpha, temperature=temperature)
    assert np.all(ended.outcome == SETTLED)
    assert ended.records["fitted"].all()
    keys = member_keys(1, "t", 0, RUNS)
    drawn = jax.jit(jax.vmap(lambda block: sample_numbers(keys, block, 8, BATCH, P)))(np.arange(200, dtype=np.uint32))
    drawn = np.asarray(drawn).reshape(-1, BATCH, RUNS)
    start = weights_of(NETWORK)
    for run in range(RUNS):
        w = first = [np.asarray(layer[run], np.float64) for layer in start]
        x, y = sets["inputs"][sets["rows"][run]].astype(float), sets["labels"][sets["rows"][run]]

        def layers(w, x):
            seen = [x]
            for layer in w[:-1]:
                seen.append(np.maximum(seen[-1] @ layer * np.sqrt(2 / layer.shape[0]), 0))
            return seen, (seen[-1] @ w[-1])[:, 0] / np.sqrt(12)

        initial = layers(first, x)[1]
        for t in range(len(drawn)):
            rows = drawn[t, :, run]
            seen, f = layers(w, x[rows])
            unfitted = y[rows] * (f - initial[rows]) < 1 / alpha
            error = (temperature * unfitted * y[rows] / np.sqrt(12))[:, None]
            new = []
            for k in reversed(range(3)):
                new.append(w[k] + seen[k].T @ error)
                if k:
                    error = (error @ w[k].T) * (seen[k] > 0) * np.sqrt(2 / w[k - 1].shape[0])
            w = new[::-1]
            if unfitted.any() and np.all(y * (layers(w, x)[1] - initial) >= 1 / alpha):
                break
        assert ended.steps[run] == t + 1
        norm = np.sqrt(sum(np.sum(layer**2) for layer in w))
        assert ended.records["weight_norm"][run] == pytest.approx(norm, rel=1e-4)
        change = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(w, first, strict=True)))
        assert ended.records["weight_change"][run] * ended.records["start_norm"][run] == pytest.approx(change, rel=1e-3)
        test, labels = sets["inputs"][sets["test_rows"][run]], sets["labels"][sets["test_rows"][run]]
        learned = layers(w, test.astype(float))[1] - layers(first, test.astype(float))[1]
        assert ended.records["test_error"][run] == pytest.approx(np.mean(labels * learned <= 0), abs=1e-6)


@pytest.mark.slow
def test_a_cap_a_divergence_and_dead_units_are_told_apart_from_fitted_runs():
    assert np.all(train(most=8)[0].outcome == CENSORED)
    lost, _ = train(temperature=1e6)
    assert np.all((lost.outcome == DIVERGED) | ~lost.records["fitted"])
    assert np.all(lost.steps[lost.outcome == DIVERGED] > 0)


def test_a_sample_without_active_units_is_at_rest_but_not_fitted():
    network = DenseNetwork(1, 2)
    training = HingeTraining(network, 2, 1)
    # both units see only the first input's positive side; the second sample activates none of them
    weights = (jnp.asarray([[[1.0, 1.0]]], jnp.float32), jnp.asarray([[[5.0], [5.0]]], jnp.float32))
    arguments = {
        "inputs": jnp.asarray([[1.0], [-1.0]], jnp.float32),
        "labels": jnp.asarray([1.0, -1.0], jnp.float32),
        "rows": jnp.asarray([[0, 1]]),
        "data_set": jnp.asarray([0]),
        "alpha": jnp.asarray([1.0], jnp.float32),
        "temperature": jnp.asarray([1.0], jnp.float32),
    }
    state = {"weights": weights, "initial_output": jnp.zeros((1, 2), jnp.float32)}
    assert bool(jax.jit(training.settled)(state, arguments)[0])
    live = jnp.asarray([True])
    progress = jax.jit(training)(state, member_keys(0, "x", 0, 1), jnp.zeros(1, jnp.uint32), live, arguments)
    assert int(progress.last_move[0]) == 0


@pytest.mark.slow
def test_a_linear_network_is_the_perceptron():
    ended, _ = train(DenseNetwork(0, 1), alpha=1.0, temperature=0.5)
    assert ended.records["fitted"].all()
    assert np.all(ended.records["test_error"] < 0.3)


def test_networks_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="width at least 1"):
        DenseNetwork(1, 0)
    with pytest.raises(ValueError, match="images of"):
        weights_of(ConvolutionalNetwork(1, 2, (3, 3)), 10)
