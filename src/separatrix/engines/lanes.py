"""Matrix products of an ensemble whose members lie along the last axis, one per vector lane.

Small matrices multiplied member by member leave most of a CPU's vector unit idle; with the members along the lanes
every multiply-add works on as many members as the unit is wide.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_GROUP = 10  # terms added in one turn of a loop; at width 50, 5 and 16 were slower
_ONE_EXPRESSION = 16  # largest batch whose outer products are added without a loop


def _sum_of(
    term: Callable[[Array], Array], count: int, like: Array, shape: tuple[int, ...], *, one_expression: bool = False
) -> Array:
    """``0 + term(0) + term(1) + ...``, added from left to right, so that the grouping changes no bit."""

    def add(start: Array | int, terms: int, total: Array) -> Array:
        for i in range(terms):
            total = total + term(jnp.asarray(start + i))
        return total

    # The zero is made from the data so that it carries the data's sharding.
    zero = jnp.zeros(shape, like.dtype) + like.reshape(-1, like.shape[-1])[0] * 0
    if one_expression:
        return add(0, count, zero)
    # A real loop, not an unrolled sum: XLA fuses an unrolled sum into its consumers and computes it once for each. It
    # drops a loop of one turn, so there are at least two. Several terms in each, since the total is read and written
    # once a turn.
    group = max(1, min(_GROUP, count // 2))
    turns, first = divmod(count, group)
    return jax.lax.fori_loop(0, turns, lambda i, total: add(first + i * group, group, total), add(0, first, zero))


def _row(a: Array, i: Array, axis: int) -> Array:
    return jax.lax.dynamic_index_in_dim(a, i, axis, keepdims=False)


def product(w: Float[Array, "i j n"], x: Float[Array, "j b n"]) -> Float[Array, "i b n"]:
    """``w @ x`` for each member."""
    return _sum_of(
        lambda j: _row(w, j, 1)[:, None] * _row(x, j, 0)[None],
        w.shape[1],
        w,
        (w.shape[0], x.shape[1], w.shape[2]),
    )


def transposed_product(w: Float[Array, "i j n"], r: Float[Array, "i b n"]) -> Float[Array, "j b n"]:
    """``w.T @ r`` for each member."""
    return _sum_of(
        lambda i: _row(w, i, 0)[:, None] * _row(r, i, 0)[None],
        w.shape[0],
        w,
        (w.shape[1], r.shape[1], w.shape[2]),
    )


def outer_product(r: Float[Array, "i b n"], h: Float[Array, "j b n"]) -> Float[Array, "i j n"]:
    """``r @ h.T``, the sum over the batch of outer products, for each member."""
    if r.shape[1] == 1:
        return r * h[:, 0][None]
    # A weight gradient has one consumer, the update of the weight: one fused pass over the weight does both.
    return _sum_of(
        lambda b: _row(r, b, 1)[:, None] * _row(h, b, 1)[None],
        r.shape[1],
        r,
        (r.shape[0], h.shape[0], r.shape[2]),
        one_expression=r.shape[1] <= _ONE_EXPRESSION,
    )
