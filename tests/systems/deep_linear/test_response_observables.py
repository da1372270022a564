"""What a network has learned of each mode, and full-batch descent, against brute force."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.datasets.hierarchical import hierarchical_items
from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import evolve, steps_until
from separatrix.systems.deep_linear.network_observables import NetworkObserver
from separatrix.systems.deep_linear.network_simulation import (
    FullBatchDescent,
    GradientDescent,
    network_state,
    population_loss,
)
from separatrix.systems.deep_linear.response_observables import ResponseObserver, group_means, tied_groups

MEMBERS, RATE = 3, 0.3


def problem(depth=3, seed=0):
    x, y = hierarchical_items(2)
    left, _, right = np.linalg.svd(y.T @ x / len(x), full_matrices=False)
    rng = np.random.default_rng(seed)
    widths = (4, *(5,) * (depth - 1), 7)
    weights = [rng.normal(0, 0.5, (MEMBERS, b, a)) for a, b in itertools.pairwise(widths)]
    return weights, {"inputs": x, "outputs": y, "left": left, "right": right.T, "learning_rate": RATE}


def forward(weights, x, act):
    """Activities of every layer, samples first."""
    seen = [x]
    for w in weights[:-1]:
        seen.append(act(seen[-1] @ w.T))
    return seen, seen[-1] @ weights[-1].T


def by_hand(weights, arguments, steps, activation):
    """Descent with numerical gradients written out for one member."""
    act = np.tanh if activation == "tanh" else lambda z: z
    x, y = arguments["inputs"], arguments["outputs"]
    weights = [w.copy() for w in weights]
    for _ in range(steps):
        seen, output = forward(weights, x, act)
        error, new = (y - output) / len(x), []
        for layer in reversed(range(len(weights))):
            new.insert(0, weights[layer] + RATE * error.T @ seen[layer])
            error = error @ weights[layer]
            if activation == "tanh" and layer:
                error = error * (1 - seen[layer] ** 2)
        weights = new
    output = forward(weights, x, act)[1]
    strength = np.einsum("or,no,nd,dr->r", arguments["left"], output, x, arguments["right"]) / len(x)
    return strength, 0.5 * np.mean(np.sum((y - output) ** 2, axis=1))


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_full_batch_descent_and_what_is_recorded_of_it(activation):
    weights, arguments = problem()
    records, diverged = evolve(
        FullBatchDescent(activation), ResponseObserver(activation), network_state(weights),
        member_keys(0, "x", 0, MEMBERS), arguments, np.array([0, 7]),
    )  # fmt: skip
    assert np.all(diverged == -1)
    for member in range(MEMBERS):
        for row, steps in enumerate((0, 7)):
            strength, loss = by_hand([w[member] for w in weights], arguments, steps, activation)
            np.testing.assert_allclose(records["strength"][row, :, member], strength, rtol=1e-11, atol=1e-13)
            assert records["loss"][row, member] == pytest.approx(loss, rel=1e-12)


def test_the_gradient_of_a_tanh_network_is_that_of_its_loss():
    weights, arguments = problem(depth=2)
    x, y = arguments["inputs"], arguments["outputs"]
    loss = lambda w: 0.5 * np.mean(np.sum((y - forward(w, x, np.tanh)[1]) ** 2, axis=1))  # noqa: E731
    step = FullBatchDescent("tanh")(network_state(weights), (), jnp.uint32(0), arguments)
    one = [w[0] for w in weights]
    for layer, place in ((0, (1, 2)), (0, (4, 3)), (1, (6, 0))):
        ends = []
        for change in (1e-6, -1e-6):
            moved = [w.copy() for w in one]
            moved[layer][place] += change
            ends.append(loss(moved))
        moved = float(step["weights"][layer][(*place, 0)]) - one[layer][place]
        assert moved == pytest.approx(-RATE * (ends[0] - ends[1]) / 2e-6, abs=1e-9)


def test_on_white_data_the_full_batch_is_the_population():
    rng = np.random.default_rng(1)
    x = np.linalg.qr(rng.normal(size=(20, 4)))[0] * 20**0.5
    y = np.concatenate([x[:, :3] * [2.0, 1.0, 0.5], np.zeros((20, 1))], axis=1)
    weights = [rng.normal(0, 0.3, (MEMBERS, b, a)) for a, b in ((4, 5), (5, 4))]
    eye = np.eye(4)
    arguments = {"inputs": x, "outputs": y, "left": eye, "right": eye, "learning_rate": 0.05}
    keys = member_keys(0, "x", 0, MEMBERS)
    batch, _ = evolve(FullBatchDescent(), ResponseObserver(), network_state(weights), keys, arguments, np.array([30]))
    population = {"singular_values": np.array([2.0, 1.0, 0.5]), "learning_rate": 0.05}
    exact, _ = evolve(
        GradientDescent(), NetworkObserver(("strength",), 4), network_state(weights), keys, population, np.array([30])
    )
    np.testing.assert_allclose(batch["strength"], exact["strength"], rtol=1e-10, atol=1e-12)


# -- stacks, rates of one's own, races --------------------------------------------------------------------------------

TEACHER = {"singular_values": np.array([1.0, 0.5]), "learning_rate": 0.0}


def deep(depth, rates, seed=0):
    rng = np.random.default_rng(seed)
    widths = (3, *(4,) * (depth - 1), 2)
    layers = [rng.normal(0, 0.6, (b, a)) for a, b in itertools.pairwise(widths)]
    states = [network_state(layers, len(rates), stacked=stacked) for stacked in (False, True)]
    for state in states:
        state["learning_rate"] = jnp.asarray(rates)
    return layers, states


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_stacked_layers_descend_like_separate_ones(depth):
    _, (apart, stacked) = deep(depth, [0.01, 0.1, 0.2])
    for t in range(3):
        apart, stacked = (GradientDescent()(state, (), jnp.uint32(t), TEACHER) for state in (apart, stacked))
    if depth > 2:
        # entries of order one, some of them small differences: rounding is relative to the former
        np.testing.assert_allclose(stacked["weights"][1], np.stack(apart["weights"][1:-1]), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(stacked["weights"][-1], apart["weights"][-1], rtol=1e-13)
    np.testing.assert_allclose(population_loss(stacked, TEACHER), population_loss(apart, TEACHER), rtol=1e-13)


def count(layers, rate, goal, most):
    """Steps until the loss is at most ``goal``, by hand: -1 diverged, -2 not in time."""
    weights = [w.copy() for w in layers]
    teacher = np.zeros((2, 3))
    np.fill_diagonal(teacher, TEACHER["singular_values"])
    with np.errstate(all="ignore"):
        for t in range(most + 1):
            before = [np.eye(3)]
            for w in weights:
                before.append(w @ before[-1])
            error = teacher - before[-1]
            loss = 0.5 * np.sum(error**2)
            if not np.isfinite(loss):
                return -1
            if loss <= goal:
                return t
            new = []
            for layer in reversed(range(len(weights))):
                new.insert(0, weights[layer] + rate * error @ before[layer].T)
                error = weights[layer].T @ error
            weights = new
    return -2


def test_steps_until_a_threshold_by_brute_force():
    rates = [0.0002, 0.05, 0.2, 0.4, 3.0]
    layers, (_, state) = deep(4, rates)
    goal = 0.1 * np.asarray(population_loss(state, TEACHER))
    found = steps_until(GradientDescent(), population_loss, state, goal, TEACHER, 150)
    expected = [count(layers, rate, goal[0], 150) for rate in rates]
    assert found.tolist() == expected
    assert {-1, -2} <= set(expected)
    assert max(expected) > 0
    # who has arrived at the start needs no step
    assert steps_until(GradientDescent(), population_loss, state, 100 * goal, TEACHER, 150).tolist() == [0] * 5


def test_a_race_is_decided_by_its_winner_alone():
    rates = [0.001, 0.05, 0.2, 0.002, 0.003, 0.1]
    _, (_, state) = deep(4, rates)
    goal = 0.1 * np.asarray(population_loss(state, TEACHER))
    alone = steps_until(GradientDescent(), population_loss, state, goal, TEACHER, 2000)
    raced = steps_until(GradientDescent(), population_loss, state, goal, TEACHER, 2000, race=3)
    winner = lambda steps: np.where(steps >= 0, steps, 10**6).reshape(2, 3).min(axis=1).tolist()  # noqa: E731
    assert winner(raced) == winner(alone)
    assert np.sum(raced >= 0) < np.sum(alone >= 0)
    with pytest.raises(ValueError, match="the 6 members must be a multiple of race, got 4"):
        steps_until(GradientDescent(), population_loss, state, goal, TEACHER, 10, race=4)


# -- equal modes ------------------------------------------------------------------------------------------------------


def test_equal_modes_are_taken_together():
    s = np.array([0.5, 0.3, 0.2, 0.2, 0.1, 0.1 - 1e-9, 0.1])
    groups = tied_groups(s)
    assert groups == [slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 7)]
    np.testing.assert_allclose(group_means(s, groups), [0.5, 0.3, 0.2, 0.1])
    assert tied_groups(np.array([1.0])) == [slice(0, 1)]
    assert tied_groups(np.array([1.0, 1.0])) == [slice(0, 2)]
