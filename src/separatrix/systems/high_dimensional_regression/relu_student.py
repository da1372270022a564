"""A two-layer ReLU student of which both layers are trained by full-batch gradient descent."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Weights = tuple[Float[Array, "N_h N_i"], Float[Array, " N_h"]]


def small_start(
    rng: np.random.Generator, width: int, inputs: int, scale: float
) -> tuple[Float[np.ndarray, "N_h N_i"], Float[np.ndarray, " N_h"]]:
    """First layer of standard deviation ``scale / sqrt(N_i)``, second of standard deviation ``scale``."""
    return scale * rng.normal(size=(width, inputs)) / np.sqrt(inputs), scale * rng.normal(size=width)


def output(weights: Weights, inputs: Float[Array, "P N_i"]) -> Float[Array, " P"]:
    """``a relu(W x)`` for each sample."""
    return jnp.maximum(inputs @ weights[0].T, 0) @ weights[1]


def _mean_square(weights: Weights, inputs: Array, labels: Array) -> Array:
    return jnp.mean((output(weights, inputs) - labels) ** 2)


@partial(jax.jit, static_argnames=("records", "steps_between"))
def train(
    weights: Weights,
    inputs: Float[Array, "n P N_i"],
    labels: Float[Array, "n P"],
    test_inputs: Float[Array, "n T N_i"],
    test_labels: Float[Array, "n T"],
    learning_rate: Float[Array, ""],
    records: int,
    steps_between: int,
) -> tuple[Float[Array, "n t"], Float[Array, "n t"]]:
    """Test and training errors (mean squares) of n students, at the start and after each group of steps.

    Descent on half the mean of squared errors; ``weights`` are stacked over students. ``t = records + 1``.
    """

    def one(weights: Weights, x: Array, y: Array, test_x: Array, test_y: Array) -> tuple[Array, Array]:
        slope = jax.grad(lambda w: _mean_square(w, x, y) / 2)

        def step(_: int, w: Weights) -> Weights:
            change = slope(w)
            return w[0] - learning_rate * change[0], w[1] - learning_rate * change[1]

        errors = lambda w: (_mean_square(w, test_x, test_y), _mean_square(w, x, y))  # noqa: E731

        def record(w: Weights, _: None) -> tuple[Weights, tuple[Array, Array]]:
            w = jax.lax.fori_loop(0, steps_between, step, w)
            return w, errors(w)

        _, later = jax.lax.scan(record, weights, None, length=records)
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), errors(weights), later)

    return jax.vmap(one)(weights, inputs, labels, test_inputs, test_labels)
