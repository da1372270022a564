"""Full-batch gradient descent on linear regression, step by step: what the exact courses are compared with."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@partial(jax.jit, static_argnames="steps_between")
def descend(
    inputs: Float[Array, "n N P"],
    labels: Float[Array, "n P"],
    start: Float[Array, "n N"],
    learning_rate: Float[Array, ""],
    weight_decay: Float[Array, ""],
    steps_between: tuple[int, ...],
) -> Float[Array, "n t N"]:
    """Weights of n students after each group of steps ``w += learning_rate (X (y - X^T w) - weight_decay w)``.

    Parameters
    ----------
    inputs, labels, start
        Data set and initial weights of each student.
    learning_rate, weight_decay
        Stable if ``learning_rate`` times the sum of the largest eigenvalue and the decay is below 2.
    steps_between
        Steps from each record to the next, the first from the start.
    """

    def one(X: Array, y: Array, w: Array) -> Array:
        def step(_: int, w: Array) -> Array:
            return w + learning_rate * (X @ (y - w @ X) - weight_decay * w)

        def record(w: Array, count: Int[Array, ""]) -> tuple[Array, Array]:
            w = jax.lax.fori_loop(0, count, step, w)
            return w, w

        return jax.lax.scan(record, w, jnp.asarray(steps_between, jnp.int32))[1]

    return jax.vmap(one)(inputs, labels, start)
