"""Matrix products of an ensemble whose members lie along the last axis, one per vector lane.

Small matrices multiplied member by member leave most of a CPU's vector unit idle; with the members along the lanes
every multiply-add works on as many members as the unit is wide. From about 48 rows on, ordinary batched products win.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_WIDE = 48  # contracted dimension from which XLA's batched product is faster than a sum of outer products


def _sum_of(term, count: int, like: Array, shape: tuple[int, ...]) -> Array:
    # A real loop, not an unrolled sum: XLA fuses an unrolled sum into its consumers and computes it once for each.
    # The zero is made from the data so that it carries the data's sharding.
    zero = jnp.zeros(shape, like.dtype) + like.reshape(-1, like.shape[-1])[0] * 0
    return jax.lax.fori_loop(0, count, lambda i, total: total + term(i), zero)


def _row(a: Array, i: Array, axis: int) -> Array:
    return jax.lax.dynamic_index_in_dim(a, i, axis, keepdims=False)


def product(w: Float[Array, "i j n"], x: Float[Array, "j b n"]) -> Float[Array, "i b n"]:
    """``w @ x`` for each member."""
    if w.shape[1] >= _WIDE:
        return jnp.einsum("ijn,jbn->ibn", w, x)
    return _sum_of(
        lambda j: _row(w, j, 1)[:, None] * _row(x, j, 0)[None],
        w.shape[1],
        w,
        (w.shape[0], x.shape[1], w.shape[2]),
    )


def transposed_product(w: Float[Array, "i j n"], r: Float[Array, "i b n"]) -> Float[Array, "j b n"]:
    """``w.T @ r`` for each member."""
    if w.shape[0] >= _WIDE:
        return jnp.einsum("ijn,ibn->jbn", w, r)
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
    if min(r.shape[0], h.shape[0]) >= _WIDE:
        return jnp.einsum("ibn,jbn->ijn", r, h)
    return _sum_of(
        lambda b: _row(r, b, 1)[:, None] * _row(h, b, 1)[None],
        r.shape[1],
        r,
        (r.shape[0], h.shape[0], r.shape[2]),
    )
