"""Runs side by side: each as if it were alone, wherever its course is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.engines.parallel_runs import PIECE, advance, finite, places


class Contraction:
    """x <- a x + batch; counts how often it is traced."""

    def __init__(self) -> None:
        self.traces = 0

    def __call__(self, state, batch, factor):
        self.traces += 1
        return {"x": factor * state["x"] + batch}


def runs(n, steps):
    rng = np.random.default_rng(3)
    return {"x": rng.normal(size=(n, 4))}, rng.normal(size=(n, steps, 4))


def test_every_run_follows_its_own_batches():
    state, batches = runs(places() + 1, PIECE + 7)
    result = advance(Contraction(), state, batches, (jnp.asarray(0.9),))["x"]
    expected = state["x"]
    for k in range(batches.shape[1]):
        expected = 0.9 * expected + batches[:, k]
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_neighbours_and_cuts_do_not_change_a_bit_and_cost_no_compilation():
    step = Contraction()
    state, batches = runs(5, 3 * PIECE)
    whole = advance(step, state, batches, (jnp.asarray(0.9),))["x"]
    traces = step.traces
    alone = advance(step, {"x": state["x"][2:3]}, batches[2:3], (jnp.asarray(0.9),))["x"]
    cut = advance(step, state, batches[:, :17], (jnp.asarray(0.9),))
    cut = advance(step, cut, batches[:, 17:], (jnp.asarray(0.9),))["x"]
    np.testing.assert_array_equal(alone, whole[2:3])
    np.testing.assert_array_equal(cut, whole)
    assert step.traces == traces


def test_runs_that_blow_up_are_told_apart():
    state = {"x": np.array([[1.0, 2.0], [1.0, np.inf], [np.nan, 0.0]]), "count": np.arange(3)}
    np.testing.assert_array_equal(finite(state), [True, False, False])


@pytest.mark.parametrize("batches", [np.zeros((4, 5)), {"a": np.zeros((3, 5)), "b": np.zeros((3, 6))}])
def test_disagreeing_numbers_of_runs_or_steps_are_refused(batches):
    with pytest.raises(ValueError, match="must agree"):
        advance(lambda s, b: s, {"x": np.zeros((3, 2))}, batches)


def test_results_are_numpy_arrays_that_outlive_the_device():
    state, batches = runs(2, 3)
    result = advance(Contraction(), state, batches, (jnp.asarray(0.5),))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(result))
