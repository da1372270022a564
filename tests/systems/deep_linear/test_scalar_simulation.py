from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from significance import FALSE_ALARM, assert_means

from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import evolve
from separatrix.systems.deep_linear.scalar_simulation import ScalarChain, scalar_sde
from separatrix.systems.deep_linear.stationary import StationaryLaw


def _root(state, arguments):
    return state


def _roots(state, arguments):
    return state["root"]


def chain(depth, strength, members, steps, batch_size=1, **arguments):
    """Strengths of the SGD chain after ``steps`` steps, ``(n,)``."""
    state = {"root": jnp.full((1, members), strength ** (1 / depth))}
    keys = member_keys(0, "chain", 0, members)
    return evolve(ScalarChain(depth, batch_size), _roots, state, keys, arguments, np.array([steps]))[0][0, 0] ** depth


def sde(depth, strength, members, time, step_size, **arguments):
    """Strengths of the stochastic differential equation at ``time``, ``(n,)``."""
    arguments["step_size"] = step_size
    state = jnp.full((1, members), strength ** (1 / depth))
    keys = member_keys(1, "sde", 0, members)
    records, diverged = evolve(scalar_sde(depth), _root, state, keys, arguments, np.array([round(time / step_size)]))
    assert np.all(diverged == -1)
    return records[0, 0] ** depth


@pytest.mark.parametrize(("depth", "batch"), [(2, 1), (3, 4)])
def test_one_step_is_the_stated_recursion(depth, batch):
    rng = np.random.default_rng(0)
    root, x, z = rng.uniform(0.2, 1, (1, 5)), *rng.normal(size=(2, batch, 5)).astype(np.float32)
    arguments = {"label_noise": 0.4, "singular_value": 1.5, "learning_rate": 0.1}
    step = jax.jit(ScalarChain(depth, batch))
    new = step({"root": jnp.asarray(root)}, {"x": x, "z": z}, jnp.uint32(0), arguments)["root"]
    x, z = x.astype(np.float64), z.astype(np.float64)
    gradient = (1.5 - root**depth) * np.mean(x**2, 0) + 0.4 * np.mean(x * z, 0)
    np.testing.assert_allclose(new, root + 0.1 * root ** (depth - 1) * gradient, rtol=1e-12)


@pytest.mark.parametrize(
    ("problem", "time", "of_chain", "of_sde"),
    [
        pytest.param(
            {"depth": 2, "strength": 0.05, "singular_value": 1.0, "rate": 0.02},
            1.6, (0.5523, 0.1310), (0.5558, 0.1334), id="depth 2",
        ),
        pytest.param(
            {"depth": 3, "strength": 0.1, "singular_value": 1.5, "rate": 0.01},
            1.0, (0.9007, 0.2156), (0.9093, 0.2159), id="depth 3",
        ),
    ],
)  # fmt: skip
def test_means_and_spreads_on_the_way_are_those_of_an_independent_simulation(problem, time, of_chain, of_sde):
    """Mean and standard deviation at label noise 0.5, known from an independent program with 4000 members."""
    depth, strength, s, rate = problem.values()
    common = {"singular_value": s, "label_noise": 0.5}
    ours = (
        chain(depth, strength, 20_000, round(time / rate), learning_rate=rate, **common),
        sde(depth, strength, 20_000, time, rate / 4, noise_scale=rate, **common),
    )
    for w, (mean, spread) in zip(ours, (of_chain, of_sde), strict=True):
        error = spread * np.sqrt(1 / 4000 + 1 / w.size)
        assert abs(w.mean() - mean) < 4.9 * error + 1e-4
        assert abs(w.std() - spread) < 4.9 * error


@pytest.mark.parametrize(("depth", "singular_value"), [(2, 1.0), (3, 1.5)])
def test_the_stationary_law_of_the_sde_is_that_of_the_theory(depth, singular_value):
    kappa = 0.01
    law = StationaryLaw(depth, singular_value, label_noise=1.0, noise_scale=kappa)
    shared = {"singular_value": singular_value, "label_noise": 1.0, "noise_scale": kappa}
    w = sde(depth, singular_value, 40_000, 4.0, 0.005, **shared)
    assert stats.kstest(w, law.cdf).pvalue > FALSE_ALARM
    assert_means(np.stack([w, (w - law.mean) ** 2]), [law.mean, law.standard_deviation**2])
    # The test sees the difference to the Boltzmann approximation.
    temperature = 0.5 * kappa * depth * singular_value ** (2 - 2 / depth)
    assert stats.kstest(w, stats.norm(singular_value, np.sqrt(temperature)).cdf).pvalue < FALSE_ALARM


def test_without_label_noise_the_solution_is_absorbing():
    arguments = {"singular_value": 2.0, "label_noise": 0.0}
    np.testing.assert_allclose(chain(2, 2.0, 10, 100, learning_rate=0.02, **arguments), 2.0, rtol=1e-14)
    np.testing.assert_allclose(sde(2, 2.0, 10, 1.0, 0.01, noise_scale=0.02, **arguments), 2.0, rtol=1e-14)


def test_the_passage_step_is_the_first_above_the_strength_asked_for():
    members, steps, level = 6, 120, 0.5
    arguments = {"singular_value": 1.0, "label_noise": 0.3, "learning_rate": 0.02, "passage_strength": level}
    state = {"root": jnp.full((1, members), 0.4), "passage_step": jnp.full((1, members), -1, jnp.int32)}
    keys = member_keys(2, "passage", 0, members)
    both = lambda state, arguments: state  # noqa: E731
    records, _ = evolve(ScalarChain(2, passage=True), both, state, keys, arguments, np.arange(steps + 1))
    above = records["root"][:, 0] ** 2 >= level
    first = np.where(above.any(0), above.argmax(0), -1)
    assert np.any(first > 0)
    np.testing.assert_array_equal(records["passage_step"][-1, 0], first)
    before = records["passage_step"][np.maximum(first - 1, 0), 0, np.arange(members)]
    np.testing.assert_array_equal(before, -1)


def test_passage_does_not_change_the_path():
    arguments = {"singular_value": 1.0, "label_noise": 0.3, "learning_rate": 0.02, "passage_strength": 0.5}
    run = partial(evolve, keys=member_keys(2, "passage", 0, 4), arguments=arguments, record_steps=np.array([50]))
    plain, _ = run(ScalarChain(2), _roots, {"root": jnp.full((1, 4), 0.4)})
    state = {"root": jnp.full((1, 4), 0.4), "passage_step": jnp.full((1, 4), -1, jnp.int32)}
    np.testing.assert_array_equal(run(ScalarChain(2, passage=True), _roots, state)[0], plain)
