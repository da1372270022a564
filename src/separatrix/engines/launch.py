"""Ensembles that are ready to run: alone, or many that differ in numbers only as one compiled launch.

A sweep over a learning rate or a noise strength asks for many ensembles of the same program. Their members lie side by
side along the lanes, each with the arguments of its own ensemble, so that one launch serves all; since a member is
computed by the same instructions in an ensemble of any size, it gets the same bits as it would alone.
"""

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Int

from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import Observe, State, Step, evolve

if TYPE_CHECKING:
    import xarray

Finish = Callable[[Any, Int[np.ndarray, " n"], int], "xarray.Dataset"]


@dataclass(frozen=True, eq=False)
class Launch:
    """An ensemble that is ready to run; ``launch(start, stop)`` simulates the members ``start .. stop - 1``.

    Attributes
    ----------
    step, observe
        As of :func:`separatrix.engines.ensemble.evolve`.
    state
        ``(start, stop) -> state`` of these members.
    seed, label
        What their random keys are made from.
    arguments
        Function that makes the arguments of the step and of the observer. Those that are scalars may differ between
        ensembles in one launch; arrays must be equal.
    record_steps
        Steps after which to record, ``(t,)``.
    finish
        ``(records, diverged_at_step, start) -> dataset`` of the members from ``start`` on.
    """

    step: Step
    observe: Observe
    state: Callable[[int, int], State]
    seed: int
    label: str
    arguments: Callable[[], Mapping[str, Any]]
    record_steps: Int[np.ndarray, " t"]
    finish: Finish

    @cached_property
    def _arguments(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Arguments shared by all members, and scalars."""
        values = {name: np.asarray(value) for name, value in self.arguments().items()}
        shared = {name: value for name, value in values.items() if value.ndim}
        return shared, {name: value for name, value in values.items() if not value.ndim}

    @cached_property
    def group(self) -> Hashable:
        """Launches with equal groups can run together."""
        shared, scalars = self._arguments
        digest = hashlib.sha256(self.record_steps.tobytes())
        for name in sorted(shared):
            digest.update(f"{name} {shared[name].dtype} {shared[name].shape}".encode())
            digest.update(shared[name].tobytes())
        leaves, structure = jax.tree.flatten(self.state(0, 1))
        member = tuple((leaf.shape[:-1], str(leaf.dtype)) for leaf in leaves)
        types = tuple((name, str(value.dtype)) for name, value in sorted(scalars.items()))
        return self.step, self.observe, digest.hexdigest(), structure, member, types

    def __call__(self, start: int, stop: int) -> "xarray.Dataset":
        """Simulate the members ``start .. stop - 1``."""
        return self.together([(self, start, stop)])[0]

    @staticmethod
    def together(requests: Sequence[tuple["Launch", int, int]]) -> "list[xarray.Dataset]":
        """Datasets of ``(launch, start, stop)`` each, from one compiled launch; all of one :attr:`group`."""
        first = requests[0][0]
        bounds = np.cumsum([0, *(stop - start for _, start, stop in requests)])
        joined = lambda *parts: parts[0] if len(parts) == 1 else np.concatenate([np.asarray(p) for p in parts], -1)  # noqa: E731
        state = jax.tree.map(joined, *(launch.state(start, stop) for launch, start, stop in requests))
        keys = jax.tree.map(
            joined, *(member_keys(launch.seed, launch.label, start, stop) for launch, start, stop in requests)
        )
        shared, scalars = first._arguments
        own = {
            name: np.repeat(np.stack([launch._arguments[1][name] for launch, _, _ in requests]), np.diff(bounds))
            for name in scalars
        }
        records, diverged = evolve(first.step, first.observe, state, keys, shared, first.record_steps, own)
        return [
            launch.finish(jax.tree.map(lambda a, s=slice(low, high): a[..., s], records), diverged[low:high], start)
            for (launch, start, _), low, high in zip(requests, bounds[:-1], bounds[1:], strict=True)
        ]
