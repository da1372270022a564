"""A two-layer ReLU classifier of images, both layers trained by full-batch Adam on the logistic loss."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

#: Adam's averaging of gradients and squares, and what keeps its quotient finite (Kingma and Ba 2015).
_FIRST, _SECOND, _FLOOR = 0.9, 0.999, 1e-8


class Classifier(NamedTuple):
    """``f(x) = a . relu(W x + b) + c``; arrays of several networks are stacked along a leading axis."""

    first: Float[Array, "... h d"]
    bias: Float[Array, "... h"]
    second: Float[Array, "... h"]
    offset: Float[Array, "..."]


def small_classifier(rng: np.random.Generator, inputs: int, width: int, scale: float) -> Classifier:
    """Weights of variance ``2 scale^2 / inputs`` in the first layer and ``scale^2 / width`` in the second."""
    arrays: list[Any] = [
        scale * rng.normal(size=(width, inputs)) * np.sqrt(2 / inputs), np.zeros(width),
        scale * rng.normal(size=width) / np.sqrt(width), np.zeros(()),
    ]  # fmt: skip
    return Classifier(*arrays)


def output(network: Classifier, inputs: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Logit of each input."""
    return jnp.maximum(inputs @ network.first.T + network.bias, 0) @ network.second + network.offset


class ClassifierTask(NamedTuple):
    """Data of one training; stacked along a leading axis for several.

    Attributes
    ----------
    inputs, labels, weights
        Training inputs ``(n, d)``, observed labels +-1 and weights in the loss (0 for a sample that is left out).
    test_inputs, test_labels
        What to test on, ``(T, d)`` and ``(T,)``.
    """

    inputs: Float[Array, "... n d"]
    labels: Float[Array, "... n"]
    weights: Float[Array, "... n"]
    test_inputs: Float[Array, "... T d"]
    test_labels: Float[Array, "... T"]


def train_classifiers(
    networks: Classifier, tasks: ClassifierTask, learning_rate: float, record_steps: Int[np.ndarray, " t"]
) -> tuple[Float[np.ndarray, "B t n"], Float[np.ndarray, "B t"]]:
    """Margins (observed label times logit) of the training samples, and accuracy on the test set, during training.

    The runs are spread over the devices and do not see each other; all are of the dtype of the networks.

    Parameters
    ----------
    networks, tasks
        Stacked along the leading axis B.
    learning_rate
        Step of Adam.
    record_steps
        Nondecreasing; 0 records the start. A test output of exactly zero counts as an error.
    """
    runs = len(networks.second)
    devices = np.asarray(jax.devices()[: max(1, min(len(jax.devices()), runs))])
    padding = -runs % devices.size
    padded = jax.tree.map(lambda a: np.concatenate([a, a[-1:].repeat(padding, 0)]), (networks, tasks))
    between = np.diff(np.asarray(record_steps), prepend=0).astype(np.int32)
    rate = np.asarray(learning_rate, networks.second.dtype)
    margins, accuracy = _train(Mesh(devices, ("runs",)), *padded, rate, between)
    return np.asarray(margins)[:runs], np.asarray(accuracy)[:runs]


def _loss(network: Classifier, task: ClassifierTask) -> Array:
    losses = jnp.logaddexp(jnp.zeros_like(task.labels), -task.labels * output(network, task.inputs))
    return jnp.sum(task.weights * losses) / jnp.sum(task.weights)


@partial(jax.jit, static_argnums=0)
def _train(mesh: Mesh, networks: Classifier, tasks: ClassifierTask, rate: Array, between: Array):
    def one_run(network: Classifier, task: ClassifierTask, rate: Array, between: Array) -> tuple[Array, Array]:
        slope = jax.grad(_loss)

        def step(_: int, state: tuple) -> tuple:
            network, mean, square, first, second = state
            change = slope(network, task)
            mean = jax.tree.map(lambda m, g: _FIRST * m + (1 - _FIRST) * g, mean, change)
            square = jax.tree.map(lambda v, g: _SECOND * v + (1 - _SECOND) * g * g, square, change)
            first, second = first * _FIRST, second * _SECOND
            move = lambda w, m, v: w - rate * (m / (1 - first)) / (jnp.sqrt(v / (1 - second)) + _FLOOR)  # noqa: E731
            return jax.tree.map(move, network, mean, square), mean, square, first, second

        def record(state: tuple, count: Array) -> tuple[tuple, tuple[Array, Array]]:
            state = jax.lax.fori_loop(0, count, step, state)
            right = task.test_labels * output(state[0], task.test_inputs) > 0
            return state, (task.labels * output(state[0], task.inputs), jnp.mean(right, dtype=rate.dtype))

        zero = jax.tree.map(jnp.zeros_like, network)
        one = jnp.ones((), rate.dtype)
        return jax.lax.scan(record, (network, zero, zero, one, one), between)[1]

    def share(networks: Classifier, tasks: ClassifierTask, rate: Array, between: Array):
        return jax.lax.map(lambda one: one_run(one[0], one[1], rate, between), (networks, tasks))

    runs = P("runs")
    return jax.shard_map(share, mesh=mesh, in_specs=(runs, runs, P(), P()), out_specs=runs, check_vma=False)(
        networks, tasks, rate, between
    )
