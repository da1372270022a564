"""Compiled perceptrons against plain loops: the same steps on the same samples, the same law on fresh ones."""

import jax
import numpy as np
import pytest
from scipy import special, stats

from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import evolve
from separatrix.engines.minibatches import sample_numbers
from separatrix.engines.stopping_ensemble import run_until_settled
from separatrix.systems.feature_learning import perceptron_theory as theory
from separatrix.systems.feature_learning.noise_regimes.data import perceptron_sets
from separatrix.systems.feature_learning.perceptron_sgd import (
    OnlinePerceptron,
    StoppedPerceptron,
    look_up,
    online_state,
    online_tables,
    order_parameters_of,
    quantile_table,
)

P, D, RUNS = 64, 16, 5


def train(lookahead=4, batch=4, replacement=True, most=100_000, temperature=20.0):
    sets = perceptron_sets(0, 1, RUNS, P, D, 1.0)
    own = {
        "data_set": np.arange(RUNS, dtype=np.int32),
        "temperature": np.full(RUNS, temperature, np.float32),
        "margin": np.ones(RUNS, np.float32),
    }
    iteration = StoppedPerceptron(P, batch, lookahead, replacement)
    return run_until_settled(iteration, member_keys(2, "p", 0, RUNS), sets, own, most, 16), sets["samples"]


def plain_loop(samples, batch, replacement, temperature=20.0):
    """SGD step by step on the same batches, until all samples are fitted."""
    keys = member_keys(2, "p", 0, RUNS)
    drawn = jax.jit(
        jax.vmap(lambda t: sample_numbers(keys, t, 1, batch, P, replacement=replacement)[0])
    )(np.arange(20_000, dtype=np.uint32))  # fmt: skip
    drawn = np.asarray(drawn)
    steps, ends = [], []
    for run in range(RUNS):
        w, x = np.zeros(D, np.float32), samples[run]
        t = 0
        while True:
            rows = drawn[t, :, run]
            t += 1
            unfitted = x[rows] @ w < 1
            w = w + np.float32(temperature) * x[rows][unfitted].sum(axis=0)
            if unfitted.any() and np.all(x @ w >= 1):
                break
        steps.append(t)
        ends.append(w)
    return np.array(steps), np.stack(ends)


@pytest.mark.parametrize(("lookahead", "replacement"), [(8, True), pytest.param(3, False, marks=pytest.mark.slow)])
def test_it_makes_the_steps_of_a_plain_loop_and_stops_with_it(lookahead, replacement):
    ended, samples = train(lookahead, replacement=replacement)
    steps, weights = plain_loop(samples, 4, replacement)
    np.testing.assert_array_equal(ended.steps, steps)
    np.testing.assert_allclose(ended.records["signal"], weights[:, 0], rtol=1e-4)
    np.testing.assert_allclose(ended.records["noise"], np.linalg.norm(weights[:, 1:], axis=1), rtol=1e-4)
    smallest = np.sort(np.einsum("rpd,rd->rp", samples, weights), axis=1)[:, 0] * np.sqrt(D)
    np.testing.assert_allclose(
        ended.records["margin_quantile"][:, 0], smallest / np.linalg.norm(weights[:, 1:], axis=1), rtol=1e-2, atol=1e-3
    )


def test_a_batch_without_replacement_has_distinct_samples():
    keys = member_keys(0, "b", 0, 3)
    rows = np.asarray(sample_numbers(keys, np.uint32(5), 8, 6, 6, replacement=False))
    assert np.all(np.sort(rows, axis=1) == np.arange(6)[None, :, None])


def test_batches_too_large_or_samples_too_few_are_refused():
    with pytest.raises(ValueError, match="at most the 4 samples"):
        StoppedPerceptron(4, 5, replacement=False)
    with pytest.raises(ValueError, match="between 2 and"):
        StoppedPerceptron(1, 1)


def test_tables_give_the_numbers_of_their_law():
    table = quantile_table(lambda u: np.sqrt(2 * special.gammaincinv(1.0, u)))
    z = np.linspace(-6.5, 6.5, 2001)
    exact = np.sqrt(2 * special.gammaincinv(1.0, special.ndtr(z)))
    np.testing.assert_allclose(look_up(np.asarray(table), z), exact, rtol=1e-5)


def full_sgd(rng, runs, steps, temperature, batch, chi):
    """All d weights on fresh samples."""
    signal, across = np.zeros(runs), np.zeros((runs, D - 1))
    for _ in range(steps):
        r = np.sqrt(2 * rng.gamma((1 + chi) / 2, size=(runs, batch)))
        x = rng.standard_normal((runs, batch, D - 1))
        kick = temperature / np.sqrt(D) * (signal[:, None] * r + np.einsum("nbd,nd->nb", x, across) < np.sqrt(D))
        signal = signal + (kick * r).sum(axis=1)
        across = across + np.einsum("nb,nbd->nd", kick, x)
    return signal, np.linalg.norm(across, axis=1)


def online(runs, steps, temperature, batch, chi, dimension=D):
    tables = {name: table.astype(np.float32) for name, table in online_tables(dimension, chi).items()}
    arguments = {"temperature": np.asarray(temperature, np.float32), "margin": np.asarray(1, np.float32), **tables}
    step = OnlinePerceptron(dimension, batch)
    records, diverged = evolve(
        step, order_parameters_of, online_state(runs), member_keys(1, "online", 0, runs), arguments, np.asarray(steps)
    )
    assert np.all(diverged == -1)
    return records["signal"], records["noise"]


@pytest.mark.parametrize(("temperature", "chi"), [(0.5, 0.0), (20.0, 2.5)])
def test_the_chain_of_two_order_parameters_is_sgd_of_all_weights(temperature, chi):
    ours = [values[-1] for values in online(1000, [40], temperature, 3, chi)]
    plain = full_sgd(np.random.default_rng(0), 1000, 40, temperature, 3, chi)
    for one, other in zip(ours, plain, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3


@pytest.mark.slow
def test_small_steps_follow_the_equations():
    temperature, steps = 0.02, np.array([50, 500, 4000])
    signal, noise = online(64, steps, temperature, 1, 1.0, dimension=200)
    path = theory.order_parameters(np.concatenate([[0.0], steps * temperature]), temperature, 200, 1.0)
    np.testing.assert_allclose(signal.mean(axis=1), path.signal[1:], rtol=0.03)
    np.testing.assert_allclose(noise.mean(axis=1), path.noise[1:], rtol=0.03)
