"""Products of a JAX function's tangent kernel with many vectors, in one compiled program of bounded memory.

``K z = J (J^T z)``: a pass backward over all examples gives ``u = J^T z``, a pass forward ``J u``. Examples come in
tiles and vectors in groups, so that the memory is that of one tile's derivatives along one group, and values of the
function itself are computed once for a group. The examples may be split into subsets: since ``J^T z`` is a sum over
them, the products of each subset's own kernel cost one more pass forward, and nothing backward.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Parameters = Any
Function = Callable[[Parameters, Any], Array]

#: Most vectors that are multiplied together; from four on, more are hardly faster on a CPU.
TOGETHER = 8
#: Bytes that the derivatives of a tile of examples along a group of vectors may take.
TILE_BYTES = 2**26


def tangent_products(
    function: Function, parameters: Parameters, inputs: Any, vectors: Float[Any, "m N C"], subsets: int = 1
) -> tuple[Float[Array, "m N C"], Float[Array, "m N C"]]:
    """``K z`` for every vector z, and the same for the kernels of subsets of the examples.

    Parameters
    ----------
    function
        Hashable ``(parameters, inputs) -> (N, C)``, compiled once for each and for the shapes of what follows. The
        outputs of one example must not depend on the others.
    parameters
        Pytree of floating-point arrays.
    inputs
        Array, or pytree of arrays, with the examples along the first axis.
    vectors
        m vectors of the outputs' shape; each is multiplied by the kernel.
    subsets
        Number of subsets of equal size, contiguous; divides N.

    Returns
    -------
    products, within
        Rows of an example in ``within`` are those of the kernel of its own subset (a diagonal block of K) times the
        part of the vector that belongs to it. With one subset the two are equal.

    Raises
    ------
    ValueError
        If the examples cannot be split like this.
    """
    samples = len(jax.tree.leaves(inputs)[0])
    if subsets < 1 or samples % subsets:
        raise ValueError(f"{samples} examples cannot be split into {subsets} subsets of equal size")
    return _products(function, subsets, parameters, inputs, vectors)


def tile_size(function: Function, parameters: Parameters, inputs: Any, subsets: int = 1) -> int:
    """Examples whose derivatives are taken together: as many as fit, and a divisor of the size of a subset."""
    size = len(jax.tree.leaves(inputs)[0]) // subsets
    most = TILE_BYTES // (TOGETHER * _bytes_of_example(function, parameters, inputs))
    return max(tile for tile in range(1, size + 1) if size % tile == 0 and tile <= max(most, 1))


def product_bytes(function: Function, parameters: Parameters, inputs: Any, subsets: int = 1) -> int:
    """Memory that products take beside vectors and products themselves, predicted from shapes alone."""
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(parameters))
    tile = tile_size(function, parameters, inputs, subsets)
    # of J^T z there are those of each subset, their sum, and what a tile adds
    return TOGETHER * (size * (subsets + 2) + 2 * tile * _bytes_of_example(function, parameters, inputs))


def _bytes_of_example(function: Function, parameters: Parameters, inputs: Any) -> int:
    """Of what a derivative of one example's outputs keeps, beside the parameters."""
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), inputs)
    kept = jax.eval_shape(lambda p, x: jax.linearize(lambda q: function(q, x), p)[1], parameters, one)
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
    own = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(parameters))
    return max(total - own, 1)


@partial(jax.jit, static_argnums=(0, 1))
def _products(
    function: Function, subsets: int, parameters: Parameters, inputs: Any, vectors: Array
) -> tuple[Array, Array]:
    tile = tile_size(function, parameters, inputs, subsets)
    tiled = lambda a: a.reshape(subsets, -1, tile, *a.shape[1:])  # noqa: E731
    examples = jax.tree.map(tiled, inputs)

    def pull(tiles: tuple[Any, Array]) -> Parameters:
        """``J^T z`` of one subset."""

        def add(total: Parameters, part: tuple[Any, Array]) -> tuple[Parameters, None]:
            x, z = part
            (slope,) = jax.vjp(lambda p: function(p, x), parameters)[1](z)
            return jax.tree.map(jnp.add, total, slope), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, parameters), tiles)[0]

    def product(z: Array) -> tuple[Array, Array]:
        own = jax.lax.map(pull, (examples, tiled(z)))
        whole = jax.tree.map(lambda a: a.sum(axis=0), own)

        along = lambda x, u: jax.jvp(lambda p: function(p, x), (parameters,), (u,))[1]  # noqa: E731
        if subsets == 1:
            full = within = jax.lax.map(lambda tiles: jax.lax.map(lambda x: along(x, whole), tiles), examples)
        else:

            def push(subset: tuple[Parameters, Any]) -> tuple[Array, Array]:
                both = jax.tree.map(lambda *pair: jnp.stack(pair), whole, subset[0])
                return jax.lax.map(lambda x: tuple(jax.vmap(lambda u: along(x, u))(both)), subset[1])

            full, within = jax.lax.map(push, (own, examples))
        return full.reshape(z.shape), within.reshape(z.shape)

    # groups of one size, filled up with zeros: the program holds the product once
    count = len(vectors)
    groups = -(-count // TOGETHER)
    padded = jnp.concatenate([vectors, jnp.zeros((-count % groups, *vectors.shape[1:]), vectors.dtype)])
    grouped = padded.reshape(groups, -1, *vectors.shape[1:])
    full, within = jax.lax.map(jax.vmap(product), grouped)
    return full.reshape(padded.shape)[:count], within.reshape(padded.shape)[:count]
