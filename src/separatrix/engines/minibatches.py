"""Mini-batches of a fixed set of samples as a pure function of (key, step): with replacement or of distinct samples."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from separatrix.engines.counter_normals import Keys, random_words


def sample_numbers(
    keys: Keys,
    block: Array,
    steps: int,
    batch_size: int,
    samples: int,
    *,
    replacement: bool = True,
    stream: int = 0,
) -> Int[Array, "steps B n"]:
    """Numbers of the samples in the batches of ``steps`` consecutive steps.

    Parameters
    ----------
    keys
        Keys of the n members.
    block
        Number of this block of steps, one for all members or ``(n,)``.
    steps, batch_size
        Steps in a block, and samples in a batch.
    samples
        How many samples there are, below ``2**24``.
    replacement
        Draw each batch with replacement, or as distinct samples (then at most ``samples``). Batches are independent of
        each other either way.
    stream
        Number of an independent stream, as of :func:`separatrix.engines.counter_normals.random_words`.
    """
    first, second = random_words(keys, block, stream, steps * batch_size)
    words = (first.reshape(steps, batch_size, -1), second.reshape(steps, batch_size, -1))
    if replacement:
        return _below(words, samples).astype(jnp.int32)
    chosen: list[Array] = []
    for b in range(batch_size):
        # The r-th of the samples not chosen yet, r uniform: step over the chosen ones in increasing order.
        draw = _below((words[0][:, b], words[1][:, b]), samples - b).astype(jnp.int32)
        if chosen:
            taken = jnp.sort(jnp.stack(chosen), axis=0)
            draw = jax.lax.fori_loop(0, b, lambda i, r, taken=taken: r + (r >= taken[i]).astype(r.dtype), draw)
        chosen.append(draw)
    return jnp.stack(chosen, axis=1)


def _below(words: tuple[Array, Array], limit: int) -> Array:
    """Numbers below ``limit`` from two random words, as ``((high mod limit) 2**8 + low >> 24) mod limit``.

    40 random bits taken modulo the range: the bias, below range / 2**40, is far under any statistical error.
    """
    high, low = words
    return ((high % np.uint32(limit)) * np.uint32(256) + (low >> np.uint32(24))) % np.uint32(limit)
