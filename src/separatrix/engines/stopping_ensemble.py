"""Compiled ensembles of stochastic iterations in which every member stops on its own.

Training until every sample is fitted takes each run a different number of steps, spread over orders of magnitude. Here
the members wait in a queue for a lane of a vector unit. All occupied lanes advance together for a chunk of iterations;
then the members that have come to rest are recorded and taken out of their lanes, and the next ones put in. None waits
for the slowest beyond one chunk, and only the very last members leave lanes empty.

A member is at rest when no noise could move it any more (every gradient is exactly zero, say). The time that is
reported is the step of its *last move*, which does not depend on when the chunk ended in which this was noticed. Its
random numbers depend on its own key and step alone, and the number of lanes is part of the program, so that a member
ends with the same bits whatever its neighbours, the chunks, the devices or the split of the ensemble.
"""

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Int

from separatrix.engines.counter_normals import Keys, member_keys

if TYPE_CHECKING:
    import xarray

State = Any
Arguments = Mapping[str, Any]

#: How a member ended: at rest; still moving at its cap of steps (censored); no longer finite.
SETTLED, CENSORED, DIVERGED = 0, 1, 2


class Progress(NamedTuple):
    """What one iteration did, for each of the n lanes.

    Attributes
    ----------
    state
        The new state; unchanged, bit for bit, in lanes that are not live.
    steps
        ``(n,)`` int32: steps that the iteration stands for, at least 1.
    last_move
        ``(n,)`` int32: the last of these steps, counted from 1, that changed the state; 0 if none did.
    lost
        ``(n,)`` int32: the first of these steps, counted from 1, that saw a number that is not finite; 0 if none did.
    """

    state: State
    steps: Int[Array, " n"]
    last_move: Int[Array, " n"]
    lost: Int[Array, " n"]


@runtime_checkable
class StoppedIteration(Protocol):
    """An iteration that comes to rest: a frozen (hashable) object, so that a program is compiled once for each.

    All arrays have the lanes along the first axis. ``arguments`` holds what all members share and what each has of its
    own, under their names.
    """

    @property
    def lanes(self) -> int:
        """Members that advance together on one device; a multiple of 16, so that no vector has a ragged end."""
        ...

    def start(self, keys: Keys, arguments: Arguments) -> State:
        """The state of members that begin."""
        ...

    def __call__(
        self, state: State, keys: Keys, step: Array, live: Bool[Array, " n"], arguments: Arguments
    ) -> Progress:
        """Advance by some steps from step ``step``, ``(n,)`` uint32; lanes that are not ``live`` must not change."""
        ...

    def settled(self, state: State, arguments: Arguments) -> Bool[Array, " n"]:
        """Whether no noise can move the state any more: an exact test."""
        ...

    def observe(self, state: State, keys: Keys, arguments: Arguments) -> Mapping[str, Array]:
        """What to record of a member that ends, ``(n, ...)`` each."""
        ...


class Stopped(NamedTuple):
    """How n members ended.

    Attributes
    ----------
    outcome
        ``(n,)`` int8: :data:`SETTLED`, :data:`CENSORED` or :data:`DIVERGED`.
    steps
        ``(n,)`` int64: the step of the last move of a settled member, counted from 1 (0: it never moved); the steps
        done by a censored one, at least its cap; the first step of a diverged one that saw a number that is not finite.
    records
        What was observed at the end, ``(n, ...)`` each.
    """

    outcome: Int[np.ndarray, " n"]
    steps: Int[np.ndarray, " n"]
    records: dict[str, np.ndarray]


def run_until_settled(
    iteration: StoppedIteration,
    keys: Keys,
    arguments: Arguments,
    member_arguments: Arguments,
    most_steps: Int[np.ndarray, " n"] | int,
    chunk: int,
) -> Stopped:
    """Run every member until it is at rest, no longer finite, or past its cap of steps.

    Parameters
    ----------
    iteration
        What a step is (:class:`StoppedIteration`). The program is compiled once per (iteration, chunk, shapes).
    keys
        Keys of the n members.
    arguments
        Arrays shared by all members; never closed over.
    member_arguments
        Arguments of each member, ``(n, ...)``.
    most_steps
        Cap of each member (or of all), below ``2**31``: one that has not come to rest by then is censored, not settled.
    chunk
        Iterations between two looks at who is at rest. A member is tested only after a chunk in which it did not move.
        Changes no result.

    Raises
    ------
    ValueError
        If there is no member, or a cap or the chunk is not allowed.
    """
    n, lanes = keys[0].shape[0], iteration.lanes
    most = np.broadcast_to(np.asarray(most_steps, np.int64), (n,))
    if n == 0 or chunk < 1 or np.any(most < 1) or np.any(most >= 2**31):
        raise ValueError(
            f"there must be a member, chunk at least 1 and most_steps in 1 .. 2**31 - 1, got {n} members, "
            f"{chunk} and {most_steps}"
        )
    devices = np.asarray(jax.devices()[: max(1, min(len(jax.devices()), -(-n // lanes)))])
    mesh, width = Mesh(devices, ("lanes",)), lanes * devices.size
    shared = jax.tree.map(jnp.asarray, dict(arguments))
    own = {name: np.asarray(value) for name, value in member_arguments.items()}
    table = {"keys": tuple(np.asarray(key) for key in keys), "own": own, "most": most.astype(np.uint32)}
    # Members that wait are spread over the devices from the beginning: the first ones take the lanes in turn.
    order = np.arange(width).reshape(devices.size, lanes).T.ravel()

    member = np.full(width, -1)
    waiting, records = 0, None
    outcome, steps = np.full(n, -1, np.int8), np.zeros(n, np.int64)
    carry = None
    while True:
        free = order[member[order] < 0][: n - waiting]
        member[free] = np.arange(waiting, waiting + free.size)
        waiting += free.size
        if np.all(member < 0):
            break
        fresh = np.zeros(width, bool)
        fresh[free] = True
        # An empty lane holds a copy of some member's arguments, which no step reads.
        lane = jax.tree.map(lambda a: a[np.maximum(member, 0)], table)
        if carry is None:
            carry = _empty(iteration, mesh, lane["keys"], lane["own"], shared)
        carry, ended, seen = _advance(iteration, mesh, chunk, carry, lane, fresh, member >= 0, shared)
        over = np.asarray(ended["over"])
        if not over.any():
            continue
        done, at = member[over], jax.tree.map(lambda a, over=over: np.asarray(a)[over], (ended, seen))
        outcome[done] = np.where(at[0]["lost"] > 0, DIVERGED, np.where(at[0]["settled"], SETTLED, CENSORED))
        steps[done] = np.where(
            at[0]["lost"] > 0, at[0]["lost"], np.where(at[0]["settled"], at[0]["moved"], at[0]["step"])
        )
        if records is None:
            records = {name: np.zeros((n, *a.shape[1:]), a.dtype) for name, a in at[1].items()}
        for name, values in at[1].items():
            records[name][done] = values
        member[over] = -1
    return Stopped(outcome, steps, records or {})


def where_lanes(choice: Bool[Array, " n"], new: State, old: State) -> State:
    """``new`` in the chosen lanes of a pytree, ``old`` in the others."""
    pick = lambda a, b: jnp.where(choice.reshape(-1, *(1,) * (a.ndim - 1)), a, b)  # noqa: E731
    return jax.tree.map(pick, new, old)


@partial(jax.jit, static_argnums=(0, 1))
def _empty(iteration: StoppedIteration, mesh: Mesh, keys: Keys, own: Arguments, shared: Arguments) -> dict[str, Any]:
    """Lanes in which nothing has begun."""

    def share(keys: Keys, own: Arguments, shared: Arguments) -> dict[str, Any]:
        zeros = jnp.zeros(keys[0].shape, jnp.uint32)
        state = jax.tree.map(jnp.zeros_like, iteration.start(keys, {**shared, **own}))
        return {"state": state, "step": zeros, "moved": zeros, "lost": zeros}

    lanes = P("lanes")
    return jax.shard_map(share, mesh=mesh, in_specs=(lanes, lanes, P()), out_specs=lanes, check_vma=False)(
        keys, own, shared
    )


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(3,))
def _advance(
    iteration: StoppedIteration, mesh: Mesh, chunk: int, carry: Any, lane: Any, fresh: Array, occupied: Array,
    shared: Arguments,
):  # fmt: skip
    """One chunk on all devices; returns the lanes, who ended and how, and what is recorded of those."""

    def share(carry: Any, lane: Any, fresh: Array, occupied: Array, shared: Arguments):
        keys, most, arguments = lane["keys"], lane["most"], {**shared, **lane["own"]}

        def begin(carry: Any) -> Any:
            state = where_lanes(fresh, iteration.start(keys, arguments), carry["state"])
            reset = {name: jnp.where(fresh, jnp.uint32(0), carry[name]) for name in ("step", "moved", "lost")}
            return {"state": state, **reset}

        carry = jax.lax.cond(jnp.any(fresh), begin, lambda carry: carry, carry)
        first = carry["step"]

        def live(carry: Any) -> Array:
            return occupied & (carry["lost"] == 0) & (carry["step"] < most)

        def once(turn: tuple[Array, Any]) -> tuple[Array, Any]:
            count, carry = turn
            running, step = live(carry), carry["step"]
            progress = iteration(carry["state"], keys, step, running, arguments)
            at = lambda offset: step + offset.astype(jnp.uint32)  # noqa: E731
            return count + 1, {
                "state": progress.state,
                "step": jnp.where(running, at(progress.steps), step),
                "moved": jnp.where(running & (progress.last_move > 0), at(progress.last_move), carry["moved"]),
                "lost": jnp.where(running & (progress.lost > 0), at(progress.lost), carry["lost"]),
            }

        _, carry = jax.lax.while_loop(
            lambda turn: (turn[0] < chunk) & jnp.any(live(turn[1])), once, (jnp.int32(0), carry)
        )
        lost, capped = carry["lost"] > 0, carry["step"] >= most
        candidate = occupied & ~lost & ((carry["moved"] <= first) | capped)
        nobody = jnp.zeros(candidate.shape, bool)
        at_rest = jax.lax.cond(
            jnp.any(candidate), lambda s: iteration.settled(s, arguments), lambda _: nobody, carry["state"]
        )
        settled = candidate & at_rest
        over = occupied & (settled | lost | capped)
        observe = lambda state: dict(iteration.observe(state, keys, arguments))  # noqa: E731
        shapes = jax.eval_shape(observe, carry["state"])
        nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        seen = jax.lax.cond(jnp.any(over), observe, lambda _: nothing, carry["state"])
        ended = {"over": over, "settled": settled, **{name: carry[name] for name in ("step", "moved", "lost")}}
        return carry, ended, seen

    lanes = P("lanes")
    return jax.shard_map(
        share, mesh=mesh, in_specs=(lanes, lanes, lanes, lanes, P()), out_specs=lanes, check_vma=False
    )(carry, lane, fresh, occupied, shared)


Finish = Callable[[Stopped, int], "xarray.Dataset"]


@dataclass(frozen=True, eq=False)
class StoppedLaunch:
    """An ensemble that is ready to run; ``launch(start, stop)`` runs the members ``start .. stop - 1`` to their ends.

    Attributes
    ----------
    iteration, chunk
        As of :func:`run_until_settled`.
    seed, label
        What the random keys are made from.
    arguments
        Function that makes the arrays shared by all members. Launches whose arrays are equal can run together.
    member_arguments
        ``(start, stop) -> arguments`` of these members, ``(n, ...)`` each.
    most_steps
        ``(start, stop) -> caps`` of these members, ``(n,)``.
    finish
        ``(stopped, start) -> dataset`` of the members from ``start`` on.
    """

    iteration: StoppedIteration
    seed: int
    label: str
    arguments: Callable[[], Arguments]
    member_arguments: Callable[[int, int], Arguments]
    most_steps: Callable[[int, int], Int[np.ndarray, " n"]]
    chunk: int
    finish: Finish

    @cached_property
    def _shared(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in self.arguments().items()}

    @cached_property
    def group(self) -> Hashable:
        """Launches with equal groups can run together."""
        digest = hashlib.sha256()
        for name, value in sorted(self._shared.items()):
            digest.update(f"{name} {value.dtype} {value.shape}".encode())
            digest.update(value.tobytes())
        own = sorted(
            (name, np.shape(value)[1:], str(np.asarray(value).dtype))
            for name, value in self.member_arguments(0, 1).items()
        )
        return self.iteration, self.chunk, digest.hexdigest(), tuple(own)

    def __call__(self, start: int, stop: int) -> "xarray.Dataset":
        """Run the members ``start .. stop - 1``."""
        return self.together([(self, start, stop)])[0]

    @staticmethod
    def together(requests: Sequence[tuple["StoppedLaunch", int, int]]) -> "list[xarray.Dataset]":
        """Datasets of ``(launch, start, stop)`` each, from one queue of members; all of one :attr:`group`."""
        first = requests[0][0]
        bounds = np.cumsum([0, *(stop - start for _, start, stop in requests)])
        joined = lambda *parts: np.concatenate([np.asarray(part) for part in parts])  # noqa: E731
        keys = jax.tree.map(
            joined, *(member_keys(launch.seed, launch.label, start, stop) for launch, start, stop in requests)
        )
        own = jax.tree.map(joined, *(launch.member_arguments(start, stop) for launch, start, stop in requests))
        most = joined(*(launch.most_steps(start, stop) for launch, start, stop in requests))
        ended = run_until_settled(first.iteration, keys, first._shared, own, most, first.chunk)
        return [
            launch.finish(jax.tree.map(lambda a, s=slice(low, high): a[s], ended), start)
            for (launch, start, _), low, high in zip(requests, bounds[:-1], bounds[1:], strict=True)
        ]
