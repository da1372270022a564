"""Ensembles of full-matrix deep linear networks under SGD, gradient descent and the Langevin equation.

Everything runs in the teacher's frame, where ``M`` is diagonal: whitened Gaussian inputs and label noise look the
same in every orthonormal frame, a data set is rotated once beforehand. State: ``{"weights": (W_1, ..., W_L)}``, each
``(d_l, d_{l-1}, n)`` with the members along the last axis. Arguments: ``singular_values`` (the diagonal of M, length
at most min(d_0, d_L)), ``learning_rate``, ``label_noise``, and ``inputs``, ``outputs`` for a fixed data set; scalars as
Python floats, so that the dtype of the run is that of its weights.
SGD also carries ``state["roots"]``, ``(modes, n)``, where given: the aligned and balanced scalar chain ``a =
w^{1/L}`` of each mode on the *same* samples, so that network and reduction can be compared member by member. Descent
takes ``state["learning_rate"]``, ``(n,)``, where given: a rate of its own for each member, in place of the argument.
Each class is a :class:`separatrix.engines.ensemble.Step`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from separatrix.engines.counter_normals import Keys, normals
from separatrix.engines.ensemble import Arguments, State, noise_block
from separatrix.engines.lanes import outer_product, product, transposed_product
from separatrix.engines.minibatches import sample_numbers

_INPUT_STREAM, _LABEL_STREAM = 0, 1

#: What the hidden units do with their input.
Activation = Literal["linear", "tanh"]


def network_state(
    weights: Sequence[Float[np.ndarray, "... i j"]],
    members: int | None = None,
    dtype: str = "float64",
    stacked: bool = False,
) -> State:
    """State of an ensemble from weights ``(n, d_l, d_{l-1})``, or ``(d_l, d_{l-1})`` shared by ``members`` runs.

    With ``stacked`` the hidden layers, which must then have one shape, are one array ``(L - 2, d, d, n)``: a loop
    instead of a program that grows with depth. Descent takes either form, observers only layer by layer.
    """
    shared = lambda w: np.broadcast_to(w, (members or 1, *w.shape)) if w.ndim == 2 else w  # noqa: E731
    layers = tuple(np.moveaxis(shared(np.asarray(w)), 0, -1) for w in weights)
    if stacked and len(layers) > 2:
        layers = (layers[0], np.stack(layers[1:-1]), layers[-1])
    return {"weights": tuple(jnp.asarray(w, dtype) for w in layers)}


def member_weights(state: State) -> list[Float[Array, "n i j"]]:
    """Weights with the members first, as the theory functions take them."""
    return [jnp.moveaxis(w, -1, 0) for w in state["weights"]]


def _forward(weights: Sequence[Array], inputs: Array, activation: Activation = "linear") -> tuple[list[Array], Array]:
    """What every layer sees, ``(d, b, n)`` or ``(k, d, b, n)`` for a stack of k layers, and the output."""
    act = jnp.tanh if activation == "tanh" else lambda drive: drive
    seen, hidden = [], inputs
    for w in weights[:-1]:
        if w.ndim == 4:
            hidden, before = jax.lax.scan(lambda h, layer: (act(product(layer, h)), h), hidden, w)
        else:
            hidden, before = act(product(w, hidden)), hidden
        seen.append(before)
    return [*seen, hidden], product(weights[-1], hidden)


def _descend(
    weights: Sequence[Array],
    inputs: Array,
    residual: Callable[[Array], Array],
    rate: Array | float,
    activation: Activation = "linear",
) -> tuple[Array, ...]:
    """``W_l + rate * sum_b (A_l^T r_b)(B_l x_b)^T`` with ``r = residual(W x)``: one forward and one backward pass."""
    seen, output = _forward(weights, inputs, activation)

    def back(error: Array, layer: tuple[Array, Array]) -> tuple[Array, Array]:
        w, before = layer
        below = transposed_product(w, error)
        if activation == "tanh":
            below = below * (1 - before**2)
        return below, w + rate * outer_product(error, before)

    error, updated = residual(output), []
    for w, before in zip(reversed(weights[1:]), reversed(seen[1:]), strict=True):
        walk = partial(jax.lax.scan, back, reverse=True) if w.ndim == 4 else back
        error, new = walk(error, (w, before))
        updated.append(new)
    updated.append(weights[0] + rate * outer_product(error, seen[0]))
    return tuple(reversed(updated))


def _sgd_step(state: State, inputs: Array, targets: Array, rate: Array) -> State:
    """One step on a batch, ``(d, b, n)``; with ``state["roots"]`` also of the scalar chains on the same batch."""
    new = {"weights": _descend(state["weights"], inputs, lambda output: targets - output, rate)}
    if "roots" in state:
        roots, depth = state["roots"], len(state["weights"])
        x, y = inputs[: roots.shape[0]], targets[: roots.shape[0]]
        gradient = jnp.sum(x * (y - roots[:, None] ** depth * x), axis=1)
        new["roots"] = roots + rate * roots ** (depth - 1) * gradient
    return new


def _teacher_output(singular_values: Array, inputs: Array, outputs: int) -> Array:
    """``M x`` in the teacher's frame, ``(d_L, b, n)``."""
    rank = singular_values.shape[0]
    kept = singular_values[:, None, None] * inputs[:rank]
    return kept if outputs == rank else jnp.pad(kept, ((0, outputs - rank), (0, 0), (0, 0)))


@dataclass(frozen=True)
class OnlineSGD:
    """One-pass SGD: a fresh mini-batch ``y = M x + label_noise z`` at every step.

    Attributes
    ----------
    inputs, outputs
        ``d_0`` and ``d_L``.
    batch_size
        Samples per step.
    noisy_labels
        Whether label noise is drawn at all (its size is the argument ``label_noise``). The inputs drawn are the same
        either way.
    """

    inputs: int
    outputs: int
    batch_size: int = 1
    noisy_labels: bool = True

    @property
    def block(self) -> int:
        """Steps drawn together."""
        return noise_block(self.batch_size * max(self.inputs, self.outputs))

    def draw(self, keys: Keys, block: Array) -> dict[str, Array]:
        """Inputs ``(block, d_0, B, n)`` and label noise ``(block, d_L, B, n)``."""
        one = lambda width, stream: normals(keys, block, self.block * width * self.batch_size, stream=stream).reshape(  # noqa: E731
            self.block, width, self.batch_size, -1)  # fmt: skip
        noise = {"x": one(self.inputs, _INPUT_STREAM)}
        return noise | {"z": one(self.outputs, _LABEL_STREAM)} if self.noisy_labels else noise

    def __call__(self, state: State, noise: dict[str, Array], t: Array, arguments: Arguments) -> State:
        """One SGD step."""
        del t
        weights = state["weights"]
        s = arguments["singular_values"].astype(weights[0].dtype)
        x = noise["x"].astype(weights[0].dtype)
        target = _teacher_output(s, x, self.outputs)
        if self.noisy_labels:
            target = target + arguments["label_noise"] * noise["z"].astype(x.dtype)
        return _sgd_step(state, x, target, arguments["learning_rate"] / self.batch_size)


@dataclass(frozen=True)
class GradientDescent:
    """Descent on the population loss with the same learning rate: the control without gradient noise."""

    block: int = 1 << 16

    def draw(self, keys: Keys, block: Array) -> tuple[()]:
        """Nothing is drawn."""
        del keys, block
        return ()

    def __call__(self, state: State, noise: tuple[()], t: Array, arguments: Arguments) -> State:
        """One step ``W_l += learning_rate A_l^T E B_l^T``."""
        del noise, t
        weights = state["weights"]
        basis = _basis(weights)
        target = _teacher_output(arguments["singular_values"].astype(basis.dtype), basis, weights[-1].shape[0])
        rate = state.get("learning_rate", arguments["learning_rate"])
        return state | {"weights": _descend(weights, basis, lambda output: target - output, rate)}


def population_loss(state: State, arguments: Arguments) -> Float[Array, " n"]:
    """``|M - W|^2 / 2`` of every member, by one forward pass along the lanes."""
    basis = _basis(state["weights"])
    output = _forward(state["weights"], basis)[1]
    target = _teacher_output(arguments["singular_values"].astype(basis.dtype), basis, output.shape[0])
    return 0.5 * jnp.sum((target - output) ** 2, axis=(0, 1))


@dataclass(frozen=True)
class FullBatchDescent:
    """Descent on the mean loss over a fixed data set (arguments ``inputs`` ``(N, d_0)``, ``outputs`` ``(N, d_L)``).

    Attributes
    ----------
    activation
        Of the hidden layers; the output layer is linear.
    """

    activation: Activation = "linear"
    block: int = 1 << 16

    def draw(self, keys: Keys, block: Array) -> tuple[()]:
        """Nothing is drawn."""
        del keys, block
        return ()

    def __call__(self, state: State, noise: tuple[()], t: Array, arguments: Arguments) -> State:
        """One step on all samples."""
        del noise, t
        x, y = batch(state, arguments)
        rate = arguments["learning_rate"] / x.shape[1]
        return state | {"weights": _descend(state["weights"], x, lambda output: y - output, rate, self.activation)}


def batch(state: State, arguments: Arguments) -> tuple[Float[Array, "d_0 N n"], Float[Array, "d_L N 1"]]:
    """The whole data set as one batch for every member."""
    first = state["weights"][0]
    x, y = (jnp.asarray(arguments[name], first.dtype).T[..., None] for name in ("inputs", "outputs"))
    return jnp.broadcast_to(x, (*x.shape[:2], first.shape[-1])), y


def network_output(state: State, inputs: Float[Array, "d_0 b n"], activation: Activation) -> Float[Array, "d_L b n"]:
    """Outputs of every member for one batch."""
    return _forward(state["weights"], inputs, activation)[1]


@dataclass(frozen=True)
class Langevin:
    """Euler-Maruyama for ``d theta = -grad L dt + sqrt(kappa Sigma(theta)) dB`` with the exact full covariance.

    ``kappa = learning_rate / batch_size``; ``step_size`` (in gradient-flow time) is an argument of its own. The noise
    of layer l is ``A_l^T N B_l^T`` with ``N = E (Z + Z^T) / sqrt 2 + label_noise Z'``, Z and Z' standard Gaussian:
    this N has exactly the covariance of the one-sample gradient of the product, so layers are correlated as they
    should be. Source: the Langevin equation of Corlouer et al. 2026 (arXiv 2604.06366); the factorisation is derived
    here.
    """

    inputs: int
    outputs: int

    @property
    def block(self) -> int:
        """Steps drawn together."""
        return noise_block(self.inputs * max(self.inputs, self.outputs))

    def draw(self, keys: Keys, block: Array) -> dict[str, Array]:
        """Z ``(block, d_0, d_0, n)`` and Z' ``(block, d_L, d_0, n)``."""
        one = lambda width, stream: normals(keys, block, self.block * width * self.inputs, stream=stream).reshape(  # noqa: E731
            self.block, width, self.inputs, -1)  # fmt: skip
        return {"x": one(self.inputs, _INPUT_STREAM), "z": one(self.outputs, _LABEL_STREAM)}

    def __call__(self, state: State, noise: dict[str, Array], t: Array, arguments: Arguments) -> State:
        """One step of size ``step_size``."""
        del t
        weights, dt = state["weights"], arguments["step_size"]
        basis = _basis(weights)
        target = _teacher_output(arguments["singular_values"].astype(basis.dtype), basis, self.outputs)
        z = noise["x"].astype(basis.dtype)
        symmetric = (z + jnp.swapaxes(z, 0, 1)) * (0.5**0.5)
        scale = jnp.sqrt(arguments["noise_scale"] * dt)

        def kick(output: Array) -> Array:
            error = target - output
            gradient_noise = product(error, symmetric) + arguments["label_noise"] * noise["z"].astype(basis.dtype)
            return dt * error + scale * gradient_noise

        return {"weights": _descend(weights, basis, kick, 1.0)}


@dataclass(frozen=True)
class DatasetSGD:
    """SGD on a fixed data set (arguments ``inputs`` ``(N, d_0)`` and ``outputs`` ``(N, d_L)``, in the teacher's frame).

    Attributes
    ----------
    samples
        N, below ``2**24``.
    batch_size
        Samples per step, at most N without replacement.
    replacement
        Draw each batch with replacement, or as B distinct samples. Batches are independent of each other either way.
    """

    samples: int
    batch_size: int = 1
    replacement: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.samples < 2**24:
            raise ValueError(f"samples must lie between 1 and 2**24 - 1, got {self.samples}")
        if not self.replacement and self.batch_size > self.samples:
            raise ValueError(
                f"batch_size must be at most the {self.samples} samples when drawn without replacement, "
                f"got {self.batch_size}"
            )

    @property
    def block(self) -> int:
        """Steps drawn together."""
        return noise_block(self.batch_size)

    def draw(self, keys: Keys, block: Array) -> Array:
        """Sample numbers, ``(block, B, n)``."""
        return sample_numbers(
            keys, block, self.block, self.batch_size, self.samples, replacement=self.replacement, stream=_INPUT_STREAM
        )

    def __call__(self, state: State, noise: Array, t: Array, arguments: Arguments) -> State:
        """One SGD step."""
        del t
        dtype = state["weights"][0].dtype
        x, y = (jnp.moveaxis(arguments[name][noise].astype(dtype), -1, 0) for name in ("inputs", "outputs"))
        return _sgd_step(state, x, y, arguments["learning_rate"] / self.batch_size)


def _basis(weights: Sequence[Array]) -> Array:
    """The unit vectors of the input space as one batch, ``(d_0, d_0, n)``."""
    first = weights[0]
    return jnp.broadcast_to(jnp.eye(first.shape[1], dtype=first.dtype)[..., None], (first.shape[1], *first.shape[1:]))
