"""A deep linear student with one output: its product vector obeys an equation of its own.

From a balanced start of rank one (``W_1 = c u_1 v^T``, ``W_l = c u_l u_{l-1}^T``, ``c = |w|^{1/D}``) gradient flow of
half the sum of squared errors keeps the network balanced, and the product ``w`` of its D layers follows

    dw/dt = |w|^{2 - 2/D} (I + (D - 1) w^ w^^T) X (y - X^T w),    w^ = w / |w|.

Depth changes the speed and the path, not the points at which the flow can rest. Outside the span of the data ``w``
keeps its direction, while its length there grows with the network: ``w_frozen / |w|^{1 - 1/D}`` is constant. Source:
Advani, Saxe 2017 (arXiv 1710.03667) for the setting; the equation and the invariant are derived here.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

State = Any


def product_velocity(
    weights: Float[Array, " N"],
    eigenvalues: Float[Array, " N"],
    target: Float[Array, " N"],
    depth: Float[Array, ""] | float,
    alignment: Float[Array, ""] | float,
) -> Float[Array, " N"]:
    """``dw/dt`` in the eigenvectors of ``X X^T``.

    Parameters
    ----------
    weights
        Components of the product vector; not all zero if ``depth`` exceeds 1.
    eigenvalues, target
        Eigenvalues, zeros included, and components of an interpolating or least-squares solution; those of frozen
        directions do not matter.
    depth
        D, at least 1.
    alignment
        Factor of the projector on ``w``: ``D - 1``.
    """
    slope = eigenvalues * (target - weights)
    square = jnp.sum(weights**2)
    along = alignment * jnp.sum(weights * slope) / square
    return square ** (1 - 1 / depth) * (slope + along * weights)


def network_velocity(
    layers: list[Float[Array, "i j"]], inputs: Float[Array, "N P"], labels: Float[Array, " P"]
) -> list[Float[Array, "i j"]]:
    """Gradient flow of the layers ``(W_1, ..., W_D)``, the last with one row."""

    def loss(layers: list[Array]) -> Array:
        hidden = inputs
        for layer in layers:
            hidden = layer @ hidden
        return jnp.sum((labels - hidden[0]) ** 2) / 2

    return jax.tree.map(jnp.negative, jax.grad(loss)(layers))


def balanced_layers(
    rng: np.random.Generator, start: Float[np.ndarray, " N"], depth: int, width: int
) -> list[Float[np.ndarray, "i j"]]:
    """Balanced layers of rank one whose product is ``start``, with random unit vectors in between.

    Raises
    ------
    ValueError
        If the depth is below 1 or the start is zero.
    """
    size = float(np.linalg.norm(start))
    if depth < 1 or size == 0:
        raise ValueError(f"depth must be at least 1 and the start not zero, got {depth} and |start| = {size}")
    units = [start / size]
    for _ in range(depth - 1):
        vector = rng.normal(size=width)
        units.append(vector / np.linalg.norm(vector))
    units.append(np.ones(1))
    return [size ** (1 / depth) * np.outer(after, before) for before, after in pairwise(units)]


def product(layers: list[Float[Array, "i j"]]) -> Float[Array, " N"]:
    """Row vector that the network multiplies its input with."""
    total = layers[0]
    for layer in layers[1:]:
        total = layer @ total
    return total[0]


def _runge_kutta(velocity: Callable[[State], State], state: State, step: Array) -> State:
    """One step of the classical fourth-order scheme on a pytree."""
    move = lambda slope, share: jax.tree.map(lambda s, v: s + share * step * v, state, slope)  # noqa: E731
    one = velocity(state)
    two = velocity(move(one, 0.5))
    three = velocity(move(two, 0.5))
    four = velocity(move(three, 1.0))
    return jax.tree.map(lambda s, a, b, c, d: s + step / 6 * (a + 2 * b + 2 * c + d), state, one, two, three, four)


def _follow(
    velocity: Callable[[State], State],
    longest_step: Callable[[State], Array],
    state: State,
    observe: Callable[[State], Array],
    time: Float[Array, " t"],
) -> Float[Array, "t N"]:
    """Integrate through increasing times, with steps as long as the state allows, and observe at each."""

    def to_record(carry: tuple[State, Array], end: Array) -> tuple[tuple[State, Array], Array]:
        def step(carry: tuple[State, Array]) -> tuple[State, Array]:
            state, now = carry
            size = jnp.minimum(longest_step(state), end - now)
            later = jnp.where(size < end - now, now + size, end)
            return _runge_kutta(velocity, state, size), later

        carry = jax.lax.while_loop(lambda carry: carry[1] < end, step, carry)
        return carry, observe(carry[0])

    return jax.lax.scan(to_record, (state, jnp.zeros((), time.dtype)), time)[1]


def _rate(weights: Array, pull: Array, largest: Array, depth: Array) -> Array:
    """Bound of the rates at which the fastest mode relaxes and, near the saddle at zero, ``w`` turns and grows.

    ``D |w|^{2 - 2/D} (l_max + |pull| / |w|)``, ``pull`` being ``X (y - X^T w)``.
    """
    square = jnp.sum(weights**2)
    return depth * square ** (1 - 1 / depth) * (largest + jnp.sqrt(jnp.sum(pull**2) / square))


@jax.jit
def product_path(
    start: Float[Array, "n N"],
    eigenvalues: Float[Array, "n N"],
    target: Float[Array, "n N"],
    depth: Float[Array, ""],
    alignment: Float[Array, ""],
    time: Float[Array, " t"],
    share: Float[Array, ""],
) -> Float[Array, "n t N"]:
    """Product vectors of n students, in the eigenvectors of their data, at increasing positive times.

    The other arguments are those of :func:`product_velocity`; steps are ``share`` of the fastest relaxation time (the
    fourth-order scheme is stable up to 2.78, its error falls as the fourth power).
    """

    def one(w: Array, values: Array, aim: Array) -> Array:
        velocity = lambda w: product_velocity(w, values, aim, depth, alignment)  # noqa: E731
        longest = lambda w: share / _rate(w, values * (aim - w), jnp.max(values), depth)  # noqa: E731
        return _follow(velocity, longest, w, lambda w: w, time)

    return jax.vmap(one)(start, eigenvalues, target)


@jax.jit
def network_path(
    layers: list[Float[Array, "n i j"]],
    inputs: Float[Array, "n N P"],
    labels: Float[Array, "n P"],
    largest: Float[Array, " n"],
    time: Float[Array, " t"],
    share: Float[Array, ""],
) -> Float[Array, "n t N"]:
    """Product vectors of n networks whose layers all follow gradient flow.

    ``largest`` are the largest eigenvalues of ``X X^T``; the other arguments are those of :func:`product_path`.
    """
    depth = jnp.asarray(len(layers), time.dtype)

    def one(layers: list[Array], X: Array, y: Array, top: Array) -> Array:
        velocity = lambda state: network_velocity(state, X, y)  # noqa: E731

        def longest(state: list[Array]) -> Array:
            w = product(state)
            return share / _rate(w, X @ (y - w @ X), top, depth)

        return _follow(velocity, longest, layers, product, time)

    return jax.vmap(one)(layers, inputs, labels, largest)
