"""Compiled ensembles of stochastic iterations, recorded on a grid of steps and spread over the devices.

One compiled program holds the whole run: an outer scan over the recording grid, an inner loop over the steps between
two records, the members along the last axis of every state array. Members never communicate, so each device takes an
equal share of them, in tiles of a fixed number of lanes; their random numbers depend only on (key, step). Neither the
split, the devices nor the grid changes a number: compilers round a vector's body and its ragged end differently, and
with tiles every member is computed by the same instructions whatever the size of the ensemble.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from separatrix.engines.counter_normals import Keys

State = Any
Noise = Any
Arguments = Any
Observe = Callable[[State, Arguments], Any]


@runtime_checkable
class Step(Protocol):
    """One stochastic iteration: a frozen (hashable) object, so that a program is compiled once for each."""

    @property
    def block(self) -> int:
        """Steps whose noise is drawn together; small systems draw many at once to keep the vector unit busy."""
        ...

    def draw(self, keys: Keys, block: Array) -> Noise:
        """Noise of block number ``block``: arrays ``(self.block, ..., n)``, a function of (key, block) alone."""
        ...

    def __call__(self, state: State, noise: Noise, t: Array, arguments: Arguments) -> State:
        """The state after step ``t`` (counted from 0), ``noise`` being this step's slice of the block."""
        ...


def noise_block(rows: int) -> int:
    """Number of steps to draw at once when one step needs ``rows`` numbers for each member."""
    return max(1, 64 // max(rows, 1))


_TILE_BYTES = 2**17  # of state: with its temporaries a tile stays in the second-level cache of a core
_LEAST_LANES, _MOST_LANES = 16, 1024


def tile_lanes(state: State) -> int:
    """Members that advance together, one per vector lane: a power of two that depends on a member's state alone."""
    member = sum(a.dtype.itemsize * (a.size // a.shape[-1]) for a in jax.tree.leaves(state))
    return int(np.clip(2 ** int(np.log2(max(_TILE_BYTES / member, 1))), _LEAST_LANES, _MOST_LANES))


def evolve(
    step: Step,
    observe: Observe,
    state: State,
    keys: Keys,
    arguments: Arguments,
    record_steps: Int[np.ndarray, " t"],
    member_arguments: Mapping[str, Any] | None = None,
) -> tuple[Any, Int[np.ndarray, " n"]]:
    """Iterate ``step`` and record ``observe(state)`` after each of ``record_steps`` steps.

    Parameters
    ----------
    step
        The iteration (:class:`Step`). The program is compiled once per (step, observe, shapes).
    observe
        ``observe(state, arguments)`` -> pytree of arrays with the members along the last axis; hashable.
    state
        Pytree of arrays ``(..., n)``.
    keys
        Keys of the ``n`` members (:func:`separatrix.engines.counter_normals.member_keys`).
    arguments
        Pytree of values shared by all members: learning rate, data, teacher. Never closed over, so that another
        learning rate or data set of the same shape costs no compilation.
    record_steps
        Numbers of steps after which to record, integers below ``2**31``, nondecreasing; 0 records the initial state.
    member_arguments
        Arguments that differ from member to member, ``(..., n)``; steps and observers find them among the others, with
        the members of a tile along the last axis. ``arguments`` must then be a mapping.

    Returns
    -------
    records
        ``observe``'s pytree with a leading time axis, as NumPy arrays ``(t, ..., n)``.
    diverged_at_step
        ``(n,)``: the first recorded step at which a member's state was not finite, -1 where it always was.

    Raises
    ------
    ValueError
        If ``record_steps`` is not a sequence of integers below ``2**31``, is negative or decreases somewhere.
    """
    record_steps = np.asarray(record_steps)
    if record_steps.ndim != 1 or record_steps.size == 0 or not np.issubdtype(record_steps.dtype, np.integer):
        raise ValueError(f"record_steps must be a nonempty sequence of integers, got {record_steps!r}")
    if record_steps[0] < 0 or record_steps[-1] >= 2**31 or np.any(record_steps[1:] < record_steps[:-1]):
        raise ValueError(f"record_steps must be nonnegative, nondecreasing and below 2**31, got {record_steps!r}")
    n, lanes = keys[0].shape[0], tile_lanes(state)
    devices = np.asarray(jax.devices()[: min(len(jax.devices()), -(-n // lanes))])
    padding = -n % (lanes * devices.size)

    def tiled(values: Any) -> np.ndarray:
        # In NumPy: these few copies are not worth a compilation for each size of ensemble.
        values = np.asarray(values)
        whole = np.concatenate([values, values[..., -1:].repeat(padding, -1)], -1) if padding else values
        return np.moveaxis(whole.reshape(*values.shape[:-1], -1, lanes), -2, 0)

    state, keys, own = jax.tree.map(tiled, (state, keys, dict(member_arguments or {})))
    records, diverged = _evolve(step, observe, Mesh(devices, ("tiles",)), state, keys, own, arguments,
                                jnp.asarray(record_steps, jnp.uint32))  # fmt: skip
    joined = lambda a: np.moveaxis(np.asarray(a), 0, -2).reshape(*a.shape[1:-1], -1)[..., :n]  # noqa: E731
    return jax.tree.map(joined, (records, diverged))


def steps_until(
    step: Step,
    measure: Observe,
    state: State,
    threshold: Float[np.ndarray, " n"],
    arguments: Arguments,
    most_steps: int,
    race: int = 1,
) -> Int[np.ndarray, " n"]:
    """Steps of a noise-free iteration until ``measure(state, arguments)`` is at most ``threshold``, for each member.

    Each device stops as soon as each race has a winner, or all of its members are no longer finite.

    Parameters
    ----------
    step
        The iteration; it is given no noise.
    measure
        ``(n,)``, hashable; a member whose measure is not finite has diverged and will not arrive.
    state, arguments
        As of :func:`evolve`.
    threshold
        One for each member.
    most_steps
        Steps after which those still under way are given up.
    race
        Consecutive members that race each other (such as step sizes from one start): once one has arrived the others
        need not go on. ``n`` must be a multiple of it.

    Returns
    -------
    ``(n,)``: the first number of steps, -1 for a member that diverged, -2 for one that did not arrive in time, or not
    before its race was over everywhere. The smallest nonnegative number of each race does not depend on the others.

    Raises
    ------
    ValueError
        If the number of members is not a multiple of ``race``.
    """
    n = len(threshold)
    if n % race:
        raise ValueError(f"the {n} members must be a multiple of race, got {race}")
    mesh, (state, threshold) = _spread((state, jnp.asarray(threshold)), n, race)
    arrived = _steps_until(step, measure, race, mesh, state, threshold, arguments, jnp.uint32(most_steps))
    return np.asarray(arrived)[:n]


def _spread(tree: Any, members: int, together: int = 1) -> tuple[Mesh, Any]:
    """Devices to use, and the arrays with members added so that each device gets an equal share."""
    devices = np.asarray(jax.devices()[: max(1, min(len(jax.devices()), members // together))])
    padding = -members % (devices.size * together)
    if padding:
        tree = jax.tree.map(lambda a: jnp.concatenate([a, a[..., -1:].repeat(padding, -1)], -1), tree)
    return Mesh(devices, ("members",)), tree


def _split(tree: Any) -> Any:
    """Partition of arrays along their last axis, the members."""
    return jax.tree.map(lambda a: P(*(None,) * (a.ndim - 1), "members"), tree)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _steps_until(
    step: Step,
    measure: Observe,
    race: int,
    mesh: Mesh,
    state: State,
    threshold: Array,
    arguments: Arguments,
    most: Array,
) -> Array:
    def share(state: State, threshold: Array, arguments: Arguments, most: Array) -> Array:
        def judged(state: State, arrived: Array, t: Array) -> Array:
            value = measure(state, arguments)
            arrived = jnp.where((arrived == -2) & (value <= threshold), t.astype(jnp.int32), arrived)
            return jnp.where((arrived == -2) & ~jnp.isfinite(value), -1, arrived)

        def under_way(carry: tuple) -> Array:
            _, arrived, t = carry
            races = arrived.reshape(-1, race)
            return jnp.any(jnp.any(races == -2, axis=1) & ~jnp.any(races >= 0, axis=1)) & (t < most)

        def advance(carry: tuple) -> tuple:
            state, arrived, t = carry
            state = step(state, (), t, arguments)
            return state, judged(state, arrived, t + 1), t + 1

        begin = jnp.zeros((), jnp.uint32)
        arrived = judged(state, jnp.full(threshold.shape, -2, jnp.int32), begin)
        return jax.lax.while_loop(under_way, advance, (state, arrived, begin))[1]

    return jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(_split(state), P("members"), jax.tree.map(lambda _: P(), arguments), P()),
        out_specs=P("members"),
        check_vma=False,
    )(state, threshold, arguments, most)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _evolve(
    step: Step, observe: Observe, mesh: Mesh, state: State, keys: Keys, own: Arguments, arguments: Arguments,
    grid: Array,
):  # fmt: skip
    """All tiles, the leading axis of ``state``, ``keys`` and ``own``, spread over the devices of the mesh."""
    size = np.uint32(step.block)

    def one_tile(state: State, keys: Keys, arguments: Arguments, grid: Array):
        def through_block(block: Array, state: State, begin: Array, end: Array) -> State:
            noise = step.draw(keys, block)
            first = block * size

            def one(t: Array, state: State) -> State:
                now = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, t - first, keepdims=False), noise)
                return step(state, now, t, arguments)

            return jax.lax.fori_loop(jnp.maximum(begin, first), jnp.minimum(end, first + size), one, state)

        def to_record(carry, end: Array):
            state, begin, diverged = carry
            state = jax.lax.fori_loop(
                begin // size, (end + size - 1) // size, lambda block, s: through_block(block, s, begin, end), state
            )
            lost = (diverged < 0) & ~_finite(state)
            diverged = jnp.where(lost, end.astype(jnp.int32), diverged)
            return (state, end, diverged), observe(state, arguments)

        start = (state, jnp.zeros((), jnp.uint32), jnp.full(keys[0].shape, -1, jnp.int32))
        (_, _, diverged), records = jax.lax.scan(to_record, start, grid)
        return records, diverged

    def share(state: State, keys: Keys, own: Arguments, arguments: Arguments, grid: Array):
        def next_tile(tile):
            state, keys, own = tile
            return one_tile(state, keys, {**arguments, **own} if own else arguments, grid)

        return jax.lax.map(next_tile, (state, keys, own))

    tiles = P("tiles")
    return jax.shard_map(share, mesh=mesh, in_specs=(tiles, tiles, tiles, P(), P()), out_specs=tiles, check_vma=False)(
        state, keys, own, arguments, grid
    )


def _finite(state: State) -> Array:
    flags = [
        jnp.all(jnp.isfinite(a.reshape(-1, a.shape[-1])), axis=0)
        for a in jax.tree.leaves(state)
        if jnp.issubdtype(a.dtype, jnp.floating)
    ]
    return jnp.all(jnp.stack(flags), axis=0)
