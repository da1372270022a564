"""Perturbed copies of training runs: spawned at several steps, trained on the same batches, compared on a grid.

A copy takes over the whole state of its run (parameters, momentum, whatever else there is), and only its parameters are
perturbed. All copies of all spawn steps advance together with their reference runs, in one compiled program
(:mod:`separatrix.engines.parallel_runs`). An unperturbed copy must keep the very bits of its run: without that, what
grows between two runs says nothing of the perturbation.

Source: Zhou, Yang, Sugiyama, Yan 2025 (arXiv 2505.13900), section on the chaos effect.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from separatrix.engines.parallel_runs import PIECE, BatchStep, advance, finite, places
from separatrix.probes.chaos.perturbation import norms
from separatrix.probes.operators import ProbeError

Parameters = Any
#: Parameters and all the rest (momentum, counters, an empty tuple).
State = tuple[Parameters, Any]
#: ``(begin, end) -> batches (n, end - begin, ...)`` of the n reference runs.
Batches = Callable[[int, int], Any]
#: ``(step, parameters (n, ...)) -> parameters (n, K, ...)`` of the copies.
Spawn = Callable[[int, Parameters], Parameters]
#: ``(parameters of the runs (m, ...), parameters of their copies (m, ...)) -> {name: (m,)}``.
Compare = Callable[[Parameters, Parameters], Mapping[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Separation:
    """Distances between n runs and their K copies, spawned at s steps and recorded at t.

    Attributes
    ----------
    spawn_steps, record_steps
        ``(s,)`` and ``(t,)``.
    distance
        ``(n, K, s, t)``: Euclidean distance of the parameters; NaN before a copy is spawned.
    initial_distance
        ``(n, K, s)``: the same at the moment of spawning, as realised in floating point.
    norm
        ``(n, t)`` of the reference parameters.
    dissimilarity
        ``(n, K, s, t)``: ``1 - cos`` between the parameters of copy and run.
    compared
        What ``compare`` returned, each ``(n, K, s, t)``.
    final
        Parameters of the copies at the last record, leaves ``(n, K, s, ...)``.
    reference
        Parameters of the runs at each record, leaves ``(n, ...)``.
    diverged_at_step
        ``(n, K, s)``: the first record at which copy or run was not finite, -1 where both always were.
    """

    spawn_steps: Int[np.ndarray, " s"]
    record_steps: Int[np.ndarray, " t"]
    distance: Float[np.ndarray, "n K s t"]
    initial_distance: Float[np.ndarray, "n K s"]
    norm: Float[np.ndarray, "n t"]
    dissimilarity: Float[np.ndarray, "n K s t"]
    compared: dict[str, Float[np.ndarray, "n K s t"]]
    final: Parameters
    reference: list[Parameters]
    diverged_at_step: Int[np.ndarray, "n K s"]

    @property
    def amplification(self) -> Float[np.ndarray, "n K s t"]:
        """``A(t0, t1)``: distance over initial distance; NaN or infinite for a copy that was not perturbed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.distance / self.initial_distance[..., None]


def copies_held(directions: int) -> int:
    """Copies of the parameters that a run with this many perturbed copies and tangents holds, momentum included."""
    return places() * (2 + 2 * directions)


def checked_grids(spawn_steps: Sequence[int], record_steps: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Both grids as arrays.

    Raises
    ------
    ProbeError
        If one is empty or does not increase from 0 or later, or nothing is recorded after the last spawn step.
    """
    grids = []
    for name, values in (("spawn_steps", spawn_steps), ("record_steps", record_steps)):
        grid = np.asarray(values)
        whole = grid.ndim == 1 and grid.size > 0 and np.issubdtype(grid.dtype, np.integer)
        if not whole or grid[0] < 0 or np.any(np.diff(grid) <= 0):
            raise ProbeError(f"{name} must be integers that increase from 0 or later, got {list(values)}")
        grids.append(grid.astype(np.int64))
    if grids[0][-1] >= grids[1][-1]:
        raise ProbeError(f"the last record must come after the last spawn step, got {grids[1][-1]} and {grids[0][-1]}")
    return grids[0], grids[1]


def separate(
    step: BatchStep, state: State, batches: Batches, spawn_steps: Sequence[int], record_steps: Sequence[int],
    spawn: Spawn, arguments: tuple = (), copy_batches: Batches | None = None, compare: Compare | None = None,
) -> Separation:  # fmt: skip
    """Train runs and their copies and record how far they are apart.

    Parameters
    ----------
    step
        ``step(state, batch, *arguments) -> state``.
    state
        States of n runs at step 0, leaves ``(n, ...)``.
    batches
        Of the runs, and of the copies unless ``copy_batches`` gives them others.
    spawn_steps, record_steps
        Steps at which copies are made, and at which all are compared.
    spawn
        Makes the copies' parameters.
    arguments
        Of the step.
    compare
        What else to record of a run and its copy.

    Raises
    ------
    ProbeError
        As of :func:`checked_grids`.
    """
    spawns, records = checked_grids(spawn_steps, record_steps)
    runs = len(jax.tree.leaves(state)[0])
    lanes, owner, begun, initial = state, np.arange(runs), [], []
    copies, diverged = 0, np.full(runs, -1, np.int64)
    recorded: dict[str, list[np.ndarray]] = {}
    reference: list[Parameters] = []
    time = 0
    for now in np.union1d(spawns, records):
        lanes = _train(step, lanes, owner, runs, batches, copy_batches or batches, time, int(now), arguments)
        time = int(now)
        if now in spawns:
            parameters, rest = jax.tree.map(lambda leaf: np.asarray(leaf)[:runs], lanes)
            perturbed = spawn(time, parameters)
            copies = jax.tree.leaves(perturbed)[0].shape[1]
            flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), perturbed)
            repeated = lambda tree, k=copies: jax.tree.map(lambda leaf: np.repeat(leaf, k, axis=0), tree)  # noqa: E731
            initial.append(norms(_difference(flat, repeated(parameters))).reshape(runs, copies))
            new = (flat, repeated(rest))
            lanes = jax.tree.map(lambda old, more: np.concatenate([old, more]), lanes, new)
            owner = np.concatenate([owner, np.repeat(np.arange(runs), copies)])
            diverged = np.concatenate([diverged, np.full(runs * copies, -1)])
            begun.append(time)
        if now in records:
            lost = ~finite(lanes)
            diverged = np.where((diverged < 0) & (lost | lost[owner]), time, diverged)
            parameters = jax.tree.map(lambda leaf: np.asarray(leaf)[:runs], lanes[0])
            reference.append(parameters)
            for name, values in _compare(lanes[0], owner, runs, compare).items():
                # (spawned so far, n, K) -> (s, n, K), NaN where nothing is spawned yet
                shape = (len(begun), runs, copies) if begun else (0, runs, max(copies, 1))
                recorded.setdefault(name, []).append(values.reshape(shape))
    arrays = {name: _filled(values, spawns.size, runs, copies) for name, values in recorded.items()}
    ordered = lambda leaf: np.moveaxis(leaf.reshape(spawns.size, runs, copies, *leaf.shape[1:]), 0, 2)  # noqa: E731
    final = jax.tree.map(lambda leaf: ordered(np.asarray(leaf)[runs:]), lanes[0])
    return Separation(
        spawns, records, arrays.pop("distance"), np.stack(initial, axis=-1),
        np.stack([norms(parameters) for parameters in reference], axis=-1), arrays.pop("dissimilarity"), arrays, final,
        reference, ordered(diverged[runs:]),
    )  # fmt: skip


def _train(
    step: BatchStep, lanes: State, owner: np.ndarray, runs: int, batches: Batches, copy_batches: Batches, begin: int,
    end: int, arguments: tuple,
) -> State:  # fmt: skip
    # In pieces, so that the batches of all lanes are never held for a whole interval between two records.
    for first in range(begin, end, PIECE):
        last = min(first + PIECE, end)
        own, others = batches(first, last), copy_batches(first, last)
        each = jax.tree.map(
            lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)[owner[runs:]]]), own, others
        )  # fmt: skip
        lanes = advance(step, lanes, each, arguments)
    return lanes


def _difference(first: Parameters, second: Parameters) -> Parameters:
    with np.errstate(invalid="ignore", over="ignore"):  # a run that blew up is counted by its own flag
        return jax.tree.map(lambda a, b: np.asarray(a, np.float64) - np.asarray(b, np.float64), first, second)


def _compare(parameters: Parameters, owner: np.ndarray, runs: int, compare: Compare | None) -> dict[str, np.ndarray]:
    copies = jax.tree.map(lambda leaf: np.asarray(leaf)[runs:], parameters)
    originals = jax.tree.map(lambda leaf: np.asarray(leaf)[owner[runs:]], parameters)
    with np.errstate(invalid="ignore", over="ignore"):  # a run that blew up has no distance; it is counted elsewhere
        measured = {
            "distance": norms(_difference(copies, originals)),
            "dissimilarity": dissimilarity(originals, copies),
        }
    others = compare(originals, copies) if compare is not None and owner.size > runs else {}
    return measured | {name: np.asarray(values, np.float64) for name, values in others.items()}


def dissimilarity(first: Parameters, second: Parameters) -> Float[np.ndarray, " n"]:
    """``1 - cos`` of the angle between the parameters of n pairs of runs, precise where they are nearly parallel.

    ``|a/|a| - b/|b||^2 / 2``: from the cosine itself, distances below the root of the rounding error would be lost.
    """
    a, b = norms(first), norms(second)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scaled = [
            np.sum((x.reshape(len(x), -1) / a[:, None] - y.reshape(len(y), -1) / b[:, None]) ** 2, axis=1)
            for x, y in zip(
                (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(first)),
                (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(second)),
                strict=True,
            )
        ]
    return np.asarray(sum(scaled) / 2)


def _filled(records: list[np.ndarray], spawns: int, runs: int, copies: int) -> Float[np.ndarray, "n K s t"]:
    whole = np.full((len(records), spawns, runs, copies), np.nan)
    for index, values in enumerate(records):
        if values.size:
            whole[index, : len(values)] = values
    return np.transpose(whole, (2, 3, 1, 0))
