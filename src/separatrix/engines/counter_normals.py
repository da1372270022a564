"""Gaussian numbers as a pure function of (seed, member, step): Threefry-2x32 (20 rounds) and Box-Muller.

A simulation that draws its noise here does not depend on how its ensemble is split into chunks or devices, on where
it was interrupted, or on the recording grid. The generator is the one behind ``jax.random`` (Salmon, Moraes, Dror and
Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"); it is written out again because ``jax.random.normal`` vmapped
over keys costs about three times as much on a CPU, where the noise is half of an SGD step.

The numbers are float32 whatever the dtype of the simulation: a float64 run and its float32 copy see the same noise,
so that their difference is rounding alone. Values lie within +-6.67 standard deviations. The random words behind them
are the same bits everywhere, the numbers in all compiled programs of one platform; elsewhere the last bit of a
logarithm may differ.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

Keys = tuple[UInt32[Array, " n"], UInt32[Array, " n"]]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def member_keys(seed: int, label: str, start: int, stop: int) -> Keys:
    """Random keys of the members ``start..stop-1`` of the experiment called ``label``.

    Parameters
    ----------
    seed
        The study's seed, ``0 <= seed < 2**63``.
    label
        Name of the experiment; different labels give independent streams.
    start, stop
        Member numbers; a member's key does not depend on which others are asked for.

    Returns
    -------
    Two ``uint32`` arrays of shape ``(stop - start,)``.
    """
    digest = hashlib.blake2b(f"{seed}/{label}".encode(), digest_size=8).digest()
    k0, k1 = (np.uint32(int.from_bytes(digest[i : i + 4], "little")) for i in (0, 4))
    members = jnp.arange(start, stop, dtype=jnp.uint32)
    key = jnp.full_like(members, k0), jnp.full_like(members, k1)
    return _compiled_threefry(key, members, jnp.zeros_like(members))


def _four_rounds(x0: Array, x1: Array, rotations: tuple[int, ...]) -> tuple[Array, Array]:
    for r in rotations:
        x0 = x0 + x1
        x1 = ((x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))) ^ x0
    return x0, x1


def threefry_2x32(keys: Keys, x0: Array, x1: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds of the counters ``(x0, x1)``; keys and counters broadcast.

    Returns two ``uint32`` arrays of the broadcast shape.
    """
    k0, k1 = keys
    schedule = jnp.stack(jnp.broadcast_arrays(k0, k1, k0 ^ k1 ^ _PARITY))
    x0, x1 = jnp.broadcast_arrays(x0 + k0, x1 + k1)

    def inject(x0: Array, x1: Array, group: Array) -> tuple[Array, Array]:
        return x0 + schedule[group % 3], x1 + schedule[(group + 1) % 3] + group.astype(jnp.uint32)

    def eight_rounds(i: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        x = inject(*_four_rounds(*x, _ROTATIONS[0]), 2 * i + 1)
        return inject(*_four_rounds(*x, _ROTATIONS[1]), 2 * i + 2)

    # A loop and not twenty unrolled rounds: XLA computes an unrolled chain once for each of its two results.
    x0, x1 = jax.lax.fori_loop(0, 2, eight_rounds, (x0, x1))
    return inject(*_four_rounds(x0, x1, _ROTATIONS[0]), jnp.asarray(5))


_compiled_threefry = jax.jit(threefry_2x32)


def random_words(keys: Keys, step: Array, stream: int, rows: int) -> tuple[Array, Array]:
    """Two ``uint32`` arrays of shape ``(rows, n)``: column i belongs to key i, at this step of this stream.

    Raises
    ------
    ValueError
        If ``stream`` is not in ``0..255`` or ``rows`` exceeds ``2**24``: streams would overlap.
    """
    if not 0 <= stream < 256 or rows > 2**24:
        raise ValueError(f"stream must lie in 0..255 and rows be at most 2**24, got {stream} and {rows}")
    step = jnp.asarray(step).astype(jnp.uint32)
    counter = jnp.arange(rows, dtype=jnp.uint32)[:, None] + np.uint32(stream << 24)
    shape = (rows, keys[0].shape[-1])
    return threefry_2x32(keys, jnp.broadcast_to(counter, shape), jnp.broadcast_to(step, shape))


def normals(keys: Keys, step: Array, rows: int, *, stream: int = 0) -> Float[Array, "rows n"]:
    """Independent standard normal numbers, the members along the last axis.

    Parameters
    ----------
    keys
        Keys of the ``n`` members, from :func:`member_keys`.
    step
        Time step (traced or not), ``0 <= step < 2**32``.
    rows
        How many numbers each member needs at this step, at most ``2**24``.
    stream
        Number of an independent stream within the step, ``0 <= stream < 256``.

    Returns
    -------
    ``float32`` array of shape ``(rows, n)``.
    """
    first, second = random_words(keys, step, stream, -(-rows // 2))
    # Box-Muller; 31 bits in the radius reach sqrt(2 ln 2**32) = 6.66 standard deviations.
    uniform = ((first >> np.uint32(1)).astype(jnp.int32).astype(jnp.float32) + np.float32(0.5)) * np.float32(2**-31)
    radius = jnp.sqrt(np.float32(-2) * jnp.log(uniform))
    sine, cosine = _sine_cosine(second)
    # Barriers keep XLA from computing the whole chain again in each consumer.
    sine, cosine = jax.lax.optimization_barrier((radius * sine, radius * cosine))
    return jnp.concatenate([sine, cosine])[:rows]


def signs(keys: Keys, step: Array, rows: int, *, stream: int = 0) -> Float[Array, "rows n"]:
    """Independent +-1 numbers (two-point increments of weak SDE schemes); arguments as for :func:`normals`."""
    words, _ = random_words(keys, step, stream, -(-rows // 32))
    shifts = jnp.arange(32, dtype=jnp.uint32)[:, None]
    bits = ((words[:, None, :] >> shifts) & np.uint32(1)).reshape(-1, words.shape[-1])[:rows]
    return bits.astype(jnp.float32) * np.float32(2) - np.float32(1)


def _sine_cosine(word: Array) -> tuple[Array, Array]:
    """Sine and cosine of an angle that is uniform on the circle when ``word`` is uniform; error below 3e-7.

    The two high bits choose the quadrant, the others the angle within it.
    """
    quadrant = word >> np.uint32(30)
    x = jax.lax.bitcast_convert_type(word << np.uint32(2), jnp.int32).astype(jnp.float32) * np.float32(2**-32)
    y = x * x
    # Minimax polynomials of sin(pi x / 2) and cos(pi x / 2) on |x| <= 1/2.
    sine = x * _horner(y, (1.5707963, -0.64596409, 0.079692625, -0.0046817543, 0.00016044115))
    cosine = _horner(y, (1.0, -1.2337005, 0.25366950, -0.020863480, 0.00091926026, -2.520e-05))
    odd = (quadrant & np.uint32(1)).astype(bool)
    sine, cosine = jnp.where(odd, cosine, sine), jnp.where(odd, -sine, cosine)
    sign = np.float32(1) - (quadrant & np.uint32(2)).astype(jnp.int32).astype(jnp.float32)
    return sine * sign, cosine * sign


def _horner(y: Array, coefficients: tuple[float, ...]) -> Array:
    total = jnp.full_like(y, np.float32(coefficients[-1]))
    for c in reversed(coefficients[:-1]):
        total = total * y + np.float32(c)
    return total
