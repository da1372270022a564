"""Perturbations in the limit of zero size: the tangent map of a training step, carried along a run.

One step of SGD with momentum maps ``(dtheta, dv)`` to ``dv' = mu dv + (H + w) dtheta``, ``dtheta' = dtheta - eta dv'``
with the Hessian H of the batch. Nothing of this is written out here: the derivative of whatever step is given is taken
by automatic differentiation, so that Adam, schedules and weight decay come for free. There is no floating-point floor
and no second run, and directions share the work of the step itself. Lengths are reset every few dozen steps and their
logarithms added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from separatrix.engines.parallel_runs import PIECE, BatchStep, advance
from separatrix.probes.chaos.copies import Batches, Spawn, State, checked_grids
from separatrix.probes.chaos.perturbation import norms
from separatrix.probes.operators import ProbeError


@dataclass(frozen=True)
class TangentStep:
    """``step`` together with its derivative along K directions.

    The state is a pair: the state of ``step``, and the floating-point leaves of its perturbation, each with a leading
    axis of length K. Integer leaves (counters) are not perturbed.
    """

    step: BatchStep

    def __call__(self, state: tuple[Any, list[Any]], batch: Any, *arguments: Any) -> tuple[Any, list[Any]]:
        """State and perturbations after a step."""
        base, tangents = state
        leaves, structure = jax.tree.flatten(base)
        moving = [index for index, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

        def through(floating: list[Any]) -> list[Any]:
            filled = list(leaves)
            for index, leaf in zip(moving, floating, strict=True):
                filled[index] = leaf
            after = jax.tree.leaves(self.step(jax.tree.unflatten(structure, filled), batch, *arguments))
            return [after[index] for index in moving]

        point = [leaves[index] for index in moving]
        pushed = jax.vmap(lambda tangent: jax.jvp(through, (point,), (tangent,))[1])(tangents)
        return self.step(base, batch, *arguments), pushed


def _floating(tree: Any) -> list[np.ndarray]:
    return [leaf for leaf in map(np.asarray, jax.tree.leaves(tree)) if np.issubdtype(leaf.dtype, np.floating)]


def tangent_growth(
    step: BatchStep, state: State, batches: Batches, spawn_steps: Sequence[int], record_steps: Sequence[int],
    directions: Spawn, arguments: tuple = (),
) -> Float[np.ndarray, "n K s t"]:  # fmt: skip
    """Logarithm of the length of the parameters' perturbation, for perturbations of length 1 spawned at several steps.

    The limit of the logarithm of :attr:`separatrix.probes.chaos.copies.Separation.amplification` for a vanishing
    perturbation.

    Parameters
    ----------
    step, state, batches, spawn_steps, record_steps, arguments
        As of :func:`separatrix.probes.chaos.copies.separate`.
    directions
        ``(step, parameters (n, ...)) -> (n, K, ...)``: directions of norm 1; the rest of the state starts unperturbed.

    Returns
    -------
    ``(n, K, s, t)``; NaN before a perturbation is spawned.

    Raises
    ------
    ProbeError
        As of :func:`separatrix.probes.chaos.copies.checked_grids`.
    """
    spawns, records = checked_grids(spawn_steps, record_steps)
    runs = len(jax.tree.leaves(state)[0])
    tangent_step = TangentStep(step)
    reference, lanes, logs, owner = state, None, np.zeros((0, 1)), np.zeros(0, int)
    recorded, time, spawned, width = [], 0, 0, 0
    for now in np.union1d(spawns, records):
        for first in range(time, int(now), PIECE):
            last = min(first + PIECE, int(now))
            own = jax.tree.map(np.asarray, batches(first, last))
            if spawned < spawns.size:
                reference = advance(step, reference, own, arguments)
            if lanes is not None:
                lanes = advance(tangent_step, lanes, jax.tree.map(lambda leaf, o=owner: leaf[o], own), arguments)
                lanes, lengths = _renormalised(lanes, width)
                logs = logs + np.log(lengths)
        time = int(now)
        if now in spawns:
            chosen = directions(time, reference[0])
            width = jax.tree.leaves(chosen)[0].shape[1]
            still = [np.zeros((runs, width, *leaf.shape[1:]), leaf.dtype) for leaf in _floating(reference[1])]
            start = [
                np.asarray(leaf, like.dtype)
                for leaf, like in zip(jax.tree.leaves(chosen), _floating(reference[0]), strict=True)
            ]
            new = (jax.tree.map(np.asarray, reference), start + still)
            lanes = new if lanes is None else jax.tree.map(lambda a, b: np.concatenate([a, b]), lanes, new)
            logs = np.concatenate([logs.reshape(-1, width), np.zeros((runs, width))])
            owner = np.concatenate([owner, np.arange(runs)])
            spawned += 1
        if now in records:
            recorded.append(logs.reshape(spawned, runs, -1))
    whole = np.full((records.size, spawns.size, runs, width), np.nan)
    for index, values in enumerate(recorded):
        if values.size:
            whole[index, : len(values)] = values
    return np.transpose(whole, (2, 3, 1, 0))


def _renormalised(lanes: tuple[Any, list[np.ndarray]], width: int) -> tuple[tuple[Any, list[np.ndarray]], np.ndarray]:
    """Tangents whose parameters' part has length 1 again, and the lengths ``(lanes, K)``."""
    base, tangents = lanes
    count = len(_floating(base[0]))
    parts: list[np.ndarray] = [np.asarray(leaf) for leaf in tangents]
    lengths = norms([leaf.reshape(-1, *leaf.shape[2:]) for leaf in parts[:count]]).reshape(-1, width)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = [
            (leaf / lengths.reshape(*lengths.shape, *(1,) * (leaf.ndim - 2))).astype(leaf.dtype) for leaf in parts
        ]
    return (base, scaled), lengths


@dataclass(frozen=True, eq=False)
class LyapunovSpectrum:
    """Finite-time Lyapunov exponents of n runs.

    Attributes
    ----------
    exponents
        ``(n, K)``: the K largest, per step, over the second half of the time, in order.
    first_half
        ``(n, K)``: the same over the first half; the difference is what the time average still depends on.
    growth
        ``(n, K, t)``: logarithm of the stretching in each interval.
    """

    exponents: Float[np.ndarray, "n K"]
    first_half: Float[np.ndarray, "n K"]
    growth: Float[np.ndarray, "n K t"]


def lyapunov_spectrum(
    step: BatchStep, state: State, batches: Batches, steps: int, count: int, seed: int = 0, arguments: tuple = (),
    interval: int = 10,
) -> LyapunovSpectrum:  # fmt: skip
    """The ``count`` largest finite-time Lyapunov exponents along runs, by repeated orthogonalisation.

    Perturbations live in the whole state (parameters and momentum), so that with momentum their number is twice that
    of the parameters. Benettin, Galgani, Giorgilli and Strelcyn 1980.

    Parameters
    ----------
    step, state, batches, arguments
        As of :func:`separatrix.probes.chaos.copies.separate`.
    steps
        How far to follow the runs.
    count
        K.
    seed
        Of the first directions.
    interval
        Steps between two orthogonalisations.

    Raises
    ------
    ProbeError
        If there are fewer than two intervals, or more directions than dimensions.
    """
    runs = len(jax.tree.leaves(state)[0])
    shapes = [leaf.shape[1:] for leaf in _floating(state)]
    sizes = [int(np.prod(shape)) for shape in shapes]
    if steps < 2 * interval or interval < 1:
        raise ProbeError(f"steps must be at least two intervals of {interval}, got {steps}")
    if not 1 <= count <= sum(sizes):
        raise ProbeError(f"count must lie between 1 and the {sum(sizes)} dimensions of a state, got {count}")
    first = np.random.default_rng(seed).normal(size=(runs, sum(sizes), count))
    basis = np.linalg.qr(first)[0]
    tangent_step, base, growth = TangentStep(step), state, []
    cuts = np.cumsum(sizes)[:-1]
    for begin in range(0, steps // interval * interval, interval):
        rows = np.split(np.swapaxes(basis, 1, 2), cuts, axis=2)
        tangents = [
            part.reshape(runs, count, *shape).astype(leaf.dtype)
            for part, shape, leaf in zip(rows, shapes, _floating(base), strict=True)
        ]
        own = batches(begin, begin + interval)
        base, tangents = advance(tangent_step, (base, tangents), own, arguments)
        columns = np.concatenate([np.reshape(part, (runs, count, -1)) for part in tangents], axis=2)
        basis, triangle = np.linalg.qr(np.swapaxes(columns, 1, 2).astype(np.float64))
        with np.errstate(divide="ignore"):
            growth.append(np.log(np.abs(np.diagonal(triangle, axis1=1, axis2=2))))
    whole = np.stack(growth, axis=-1)
    half = whole.shape[-1] // 2
    early, late = (np.mean(part, axis=-1) / interval for part in (whole[..., :half], whole[..., half:]))
    return LyapunovSpectrum(late, early, whole)
