"""Training of classifiers by SGD with momentum and weight decay, many runs at once, kept on a grid of checkpoints.

A run is determined by its start and its sequence of batches, and both by (seed, label, member): batches run through the
training set epoch by epoch, each in a random order of its own, so that the batch of a step does not depend on where
the course is cut, resumed or copied.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from separatrix.engines.parallel_runs import advance, finite
from separatrix.networks.cnn import CNN
from separatrix.networks.mlp import MLP
from separatrix.networks.scaled_difference import ScaledDifference
from separatrix.networks.transformer import Transformer

Network = MLP | CNN | Transformer | ScaledDifference
Parameters = Any
#: Parameters and momentum buffer.
State = tuple[Parameters, Parameters]


def cross_entropy(outputs: Float[Array, "*b c"], labels: Int[Array, "*b"]) -> Float[Array, ""]:
    """Mean over the batch, and over the positions of a text, of ``-log softmax(outputs)[label]``, in nats."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs), labels[..., None], axis=-1)
    return -jnp.mean(chosen)


@dataclass(frozen=True)
class MomentumStep:
    """One step ``v <- mu v + g(theta) + w theta, theta <- theta - eta v`` on the mean cross-entropy of a batch.

    The update of Polyak's momentum as deep-learning frameworks write it; ``w`` is the weight decay.

    Attributes
    ----------
    network
        What is trained.
    """

    network: Network

    def loss(self, parameters: Parameters, batch: Int[Array, " b"], arguments: Mapping[str, Array]) -> Array:
        """Mean cross-entropy over the samples with these indices, without weight decay."""
        inputs, labels = arguments["inputs"][batch], arguments["labels"][batch]
        return cross_entropy(self.network(parameters, inputs), labels)

    def __call__(self, state: State, batch: Int[Array, " b"], arguments: Mapping[str, Array]) -> State:
        """The state after a step; ``batch`` holds indices, ``arguments`` is made by :func:`training_arguments`."""
        parameters, velocity = state
        gradient = jax.grad(self.loss)(parameters, batch, arguments)
        velocity = jax.tree.map(
            lambda v, g, p: arguments["momentum"] * v + g + arguments["weight_decay"] * p,
            velocity,
            gradient,
            parameters,
        )
        return jax.tree.map(lambda p, v: p - arguments["learning_rate"] * v, parameters, velocity), velocity


def as_inputs(inputs: np.ndarray, dtype: str) -> Float[np.ndarray, "N d"] | Int[np.ndarray, "N T"]:
    """Inputs of a network: pixels in this floating-point type, tokens as whole numbers."""
    return np.asarray(inputs, np.int32 if np.issubdtype(inputs.dtype, np.integer) else dtype)


def training_arguments(
    inputs: Float[np.ndarray, "N d"] | Int[np.ndarray, "N T"], labels: Int[np.ndarray, "N ..."], learning_rate: float,
    momentum: float, weight_decay: float, dtype: str = "float64",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Arguments of :class:`MomentumStep`: the training set and the three numbers of the optimiser."""
    numbers = {"learning_rate": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
    return {
        "inputs": as_inputs(inputs, dtype),
        "labels": np.asarray(labels, np.int32),
        **{name: np.asarray(value, dtype) for name, value in numbers.items()},
    }


@dataclass(frozen=True)
class BatchOrder:
    """Batches of sample numbers, epoch by epoch in random order; the samples left over at the end of one are skipped.

    Attributes
    ----------
    seed, label
        What the orders are made from, together with the number of the member.
    samples, batch_size
        Size of the training set and of a batch, at most that of the set.
    """

    seed: int
    label: str
    samples: int
    batch_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.samples:
            raise ValueError(f"batch_size must lie between 1 and the {self.samples} samples, got {self.batch_size}")

    def __call__(self, members: Sequence[int], begin: int, end: int) -> Int[np.ndarray, "n k b"]:
        """Batches of the steps ``begin .. end - 1`` of each member."""
        return np.stack([self._batches(member, begin, end) for member in members])

    def _batches(self, member: int, begin: int, end: int) -> Int[np.ndarray, "k b"]:
        in_epoch = self.samples // self.batch_size
        order = {epoch: _epoch_order(self, member, epoch) for epoch in range(begin // in_epoch, -(-end // in_epoch))}
        return np.stack([order[step // in_epoch][step % in_epoch] for step in range(begin, end)])


@lru_cache(maxsize=256)
def _epoch_order(order: BatchOrder, member: int, epoch: int) -> Int[np.ndarray, "k b"]:
    word = int.from_bytes(hashlib.blake2b(order.label.encode(), digest_size=4).digest(), "little")
    shuffled = np.random.default_rng([order.seed, word, member, epoch]).permutation(order.samples)
    whole = order.samples // order.batch_size * order.batch_size
    return shuffled[:whole].reshape(-1, order.batch_size).astype(np.int32)


def fresh_states(network: Network, seed: int, label: str, members: Iterable[int], dtype: str = "float64") -> State:
    """Random parameters and a momentum of zero for each member, arrays ``(n, ...)``."""
    word = int.from_bytes(hashlib.blake2b(label.encode(), digest_size=4).digest(), "little")
    starts = [network.init(np.random.default_rng([seed, word, member])) for member in members]
    parameters = jax.tree.map(lambda *leaves: np.stack(leaves).astype(dtype), *starts)
    return parameters, jax.tree.map(np.zeros_like, parameters)


@dataclass(frozen=True, eq=False)
class Course:
    """States of several runs on a grid of steps.

    Attributes
    ----------
    grid
        Steps after which the states were kept, ``(t,)``, increasing.
    states
        One for each step of the grid: pytrees of NumPy arrays ``(n, ...)``.
    diverged_at_step
        ``(n,)``: the first step of the grid at which a state was not finite, -1 where it always was.
    """

    grid: Int[np.ndarray, " t"]
    states: list[Any]
    diverged_at_step: Int[np.ndarray, " n"]

    def at(self, step: int) -> Any:
        """The states after this step of the grid.

        Raises
        ------
        KeyError
            If the step is not on the grid.
        """
        found = np.flatnonzero(self.grid == step)
        if found.size == 0:
            raise KeyError(f"step {step} is not on the grid {self.grid.tolist()}")
        return self.states[found[0]]


def train(
    step: Any, state: Any, batches: BatchOrder, members: Sequence[int], grid: Sequence[int], arguments: Any,
    start: int = 0,
) -> Course:  # fmt: skip
    """Train from ``state``, the states at step ``start``, and keep the states on a grid.

    Parameters
    ----------
    step
        ``step(state, batch, arguments) -> state``: :class:`MomentumStep`, or anything that fits
        :func:`separatrix.engines.parallel_runs.advance`.
    state
        Pytree of arrays ``(n, ...)``.
    batches
        Their batches.
    members
        Number of the member whose batches each run gets; copies of a run have the same.
    grid
        Steps to keep, increasing, none before ``start``.
    arguments
        Of the step.

    Raises
    ------
    ValueError
        If the grid is empty, does not increase, or begins before ``start``.
    """
    kept = np.asarray(grid, np.int64)
    if kept.ndim != 1 or kept.size == 0 or kept[0] < start or np.any(np.diff(kept) <= 0):
        raise ValueError(f"the grid must increase from step {start} or later, got {kept.tolist()}")
    states, now = [], start
    diverged = np.full(len(members), -1, np.int64)
    for end in map(int, kept):
        if end > now:
            state = advance(step, state, batches(members, now, end), (arguments,))
            now = end
        diverged = np.where((diverged < 0) & ~finite(state), end, diverged)
        states.append(state)
    return Course(kept, states, diverged)
