"""Independent runs of one deterministic iteration over given batches, side by side on all devices.

For states too large for the lanes of :mod:`separatrix.engines.ensemble`: networks, whose matrix products fill a vector
unit on their own. Runs lie along the **first** axis of every array. One program is compiled for each step function and
shape of a run and is applied again and again: to each group of as many runs as there are places on the devices, and to
each piece of a few dozen steps. Since every run is computed by this one program, the same run gets the same bits
whatever stands beside it and wherever the course is cut into pieces.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool

State = Any
Batch = Any
#: ``step(state, batch, *arguments) -> state``: hashable, a function of its arguments alone.
BatchStep = Callable[..., State]

#: Steps in one call of the compiled program: long enough that starting it costs nothing.
PIECE = 50
#: Runs that a device advances together as one stack: enough to fill its units, few enough to stay in a CPU's cache.
_TOGETHER = {"cpu": 8}
_TOGETHER_ELSEWHERE = 64


def _mesh() -> Mesh:
    return Mesh(np.asarray(jax.devices()), ("runs",))


def places() -> int:
    """Runs that are advanced at the same time; other numbers are padded to a multiple of it."""
    return len(jax.devices()) * _TOGETHER.get(jax.default_backend(), _TOGETHER_ELSEWHERE)


def replicated(arguments: Any) -> Any:
    """A pytree of arrays on every device, so that many calls share one copy."""
    return jax.device_put(arguments, NamedSharding(_mesh(), P()))


def advance(step: BatchStep, state: State, batches: Batch, arguments: tuple = ()) -> State:
    """Apply ``step`` to every run, once for each of its batches.

    Parameters
    ----------
    step
        The iteration; the same object for the same iteration, since a program is compiled for each.
    state
        Pytree of arrays ``(n, ...)``.
    batches
        Pytree of arrays ``(n, k, ...)``: k batches for each run.
    arguments
        What all runs share (data, learning rate), as arrays: never closed over, so that another learning rate costs no
        compilation. Large ones should come from :func:`replicated`.

    Returns
    -------
    The states after k steps, as NumPy arrays ``(n, ...)``.

    Raises
    ------
    ValueError
        If the numbers of runs or of batches do not agree.
    """
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves((state, batches))}
    lengths = {leaf.shape[1] for leaf in jax.tree.leaves(batches)}
    if len(sizes) != 1 or len(lengths) != 1:
        raise ValueError(
            f"state and batches must agree in the numbers of runs and of steps, got {sorted(sizes)}, {sorted(lengths)}"
        )
    (n,), (steps,) = sizes, lengths
    mesh, width = _mesh(), places()
    arguments = replicated(arguments)
    finished = []
    for first in range(0, n, width):
        rows = np.minimum(np.arange(first, first + width), n - 1)  # the last run fills up the places that are left
        group = jax.tree.map(lambda a, rows=rows: np.asarray(a)[rows], state)
        for begin in range(0, steps, PIECE):
            count = min(PIECE, steps - begin)
            piece = jax.tree.map(lambda a, r=rows, b=begin: _padded(np.asarray(a)[r, b : b + PIECE]), batches)
            group = _advance(step, mesh, group, piece, np.int32(count), arguments)
        finished.append(jax.tree.map(lambda a, kept=n - first: np.asarray(a)[:kept], group))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *finished)


def finite(state: State) -> Bool[np.ndarray, " n"]:
    """Whether all numbers of each run are finite."""
    return np.all([np.isfinite(a.reshape(len(a), -1)).all(axis=1) for a in map(np.asarray, jax.tree.leaves(state))], 0)


def _padded(batches: np.ndarray) -> np.ndarray:
    """Repeat the last batch up to the length of a piece, so that all pieces have one shape; it is never used."""
    missing = PIECE - batches.shape[1]
    return np.concatenate([batches, batches[:, -1:].repeat(missing, 1)], 1) if missing else batches


@partial(jax.jit, static_argnums=(0, 1))
def _advance(step: BatchStep, mesh: Mesh, state: State, batches: Batch, count: Array, arguments: tuple) -> State:
    def one_run(state: State, batches: Batch, count: Array, arguments: tuple) -> State:
        def one(index: Array, state: State) -> State:
            batch = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), batches)
            return step(state, batch, *arguments)

        return jax.lax.fori_loop(0, count, one, state)

    def share(state: State, batches: Batch, count: Array, arguments: tuple) -> State:
        return jax.vmap(lambda s, b: one_run(s, b, count, arguments))(state, batches)

    runs, shared = P("runs"), P()
    return jax.shard_map(
        share, mesh=mesh, in_specs=(runs, runs, shared, shared), out_specs=runs, check_vma=False
    )(state, batches, count, arguments)  # fmt: skip
