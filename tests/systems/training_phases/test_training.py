"""Training: the update by hand, batches from keys, copies and cuts that change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.networks.mlp import MLP
from separatrix.systems.training_phases.training import (
    BatchOrder,
    MomentumStep,
    cross_entropy,
    fresh_states,
    train,
    training_arguments,
)

RNG = np.random.default_rng(0)
INPUTS, LABELS = RNG.normal(size=(50, 6)), RNG.integers(0, 3, 50)
NET = MLP((6, 8, 3))
STEP = MomentumStep(NET)
ARGUMENTS = training_arguments(INPUTS, LABELS, 0.1, 0.9, 0.01)
ORDER = BatchOrder(seed=1, label="batches", samples=50, batch_size=8)


def test_cross_entropy_of_uniform_outputs_is_the_logarithm_of_their_number():
    assert float(cross_entropy(jnp.zeros((4, 7)), jnp.arange(4))) == pytest.approx(np.log(7))


def test_two_steps_are_those_of_momentum_with_weight_decay():
    state = fresh_states(NET, 0, "start", [0])
    batches = ORDER([0], 0, 2)
    parameters, velocity = jax.tree.map(lambda a: a[0], state)
    for batch in batches[0]:
        gradient = jax.grad(lambda p, b=batch: cross_entropy(NET(p, jnp.asarray(INPUTS[b])), jnp.asarray(LABELS[b])))(
            parameters
        )
        velocity = jax.tree.map(lambda v, g, p: 0.9 * v + g + 0.01 * p, velocity, gradient, parameters)
        parameters = jax.tree.map(lambda p, v: p - 0.1 * v, parameters, velocity)
    course = train(STEP, state, ORDER, [0], [2], ARGUMENTS)
    for ours, expected in zip(jax.tree.leaves(course.states[0][0]), jax.tree.leaves(parameters), strict=True):
        np.testing.assert_allclose(ours[0], expected, rtol=1e-11, atol=1e-13)


def test_a_course_cut_and_resumed_has_the_same_bits():
    state = fresh_states(NET, 0, "start", [3, 5])
    whole = train(STEP, state, ORDER, [3, 5], [0, 7, 90], ARGUMENTS)
    resumed = train(STEP, whole.at(7), ORDER, [3, 5], [90], ARGUMENTS, start=7)
    alone = train(STEP, fresh_states(NET, 0, "start", [5]), ORDER, [5], [90], ARGUMENTS)
    for a, b, c in zip(*(jax.tree.leaves(x.states[-1]) for x in (whole, resumed, alone)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[1:], c)


def test_training_fits_the_data():
    course = train(STEP, fresh_states(NET, 0, "start", [0]), ORDER, [0], [0, 400], ARGUMENTS)
    losses = [
        float(cross_entropy(NET(jax.tree.map(lambda a: a[0], s[0]), jnp.asarray(INPUTS)), jnp.asarray(LABELS)))
        for s in course.states
    ]
    assert losses[1] < 0.5 * losses[0]
    np.testing.assert_array_equal(course.diverged_at_step, [-1])


def test_a_run_that_blows_up_is_recorded_and_not_raised():
    wild = training_arguments(INPUTS, LABELS, 1e200, 0.9, 0.01)
    course = train(STEP, fresh_states(NET, 0, "start", [0]), ORDER, [0], [0, 4, 8], wild)
    assert course.diverged_at_step[0] == 4


def test_an_epoch_visits_every_sample_once_and_the_next_in_another_order():
    order = BatchOrder(0, "batches", samples=48, batch_size=8)
    first, second = order([2], 0, 6)[0], order([2], 6, 12)[0]
    np.testing.assert_array_equal(np.sort(first.ravel()), np.arange(48))
    np.testing.assert_array_equal(np.sort(second.ravel()), np.arange(48))
    assert np.any(first != second)


def test_batches_depend_on_seed_label_member_and_step_alone():
    base = ORDER([4], 3, 20)
    np.testing.assert_array_equal(ORDER([1, 4], 0, 20)[1:, 3:], base)
    for other in (BatchOrder(2, "batches", 50, 8), BatchOrder(1, "others", 50, 8)):
        assert np.any(other([4], 3, 20) != base)


@pytest.mark.parametrize("grid", [[], [3, 3], [5, 2], [-1, 4]])
def test_a_grid_that_does_not_increase_is_refused(grid):
    with pytest.raises(ValueError, match="grid must increase"):
        train(STEP, fresh_states(NET, 0, "start", [0]), ORDER, [0], grid, ARGUMENTS)


def test_a_step_off_the_grid_and_a_batch_larger_than_the_data_are_refused():
    course = train(STEP, fresh_states(NET, 0, "start", [0]), ORDER, [0], [0], ARGUMENTS)
    with pytest.raises(KeyError, match="not on the grid"):
        course.at(3)
    with pytest.raises(ValueError, match="batch_size"):
        BatchOrder(0, "batches", 5, 6)
