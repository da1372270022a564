"""The compiled programs of a JAX model.

Parameters, data and linearisations are arguments of them, never closures. They are found again for an equal
:class:`Program` and equal shapes: another checkpoint of a model costs no compilation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Leaves = tuple[Array, ...]
Batch = Any


@dataclass(frozen=True)
class Program:
    """What a compiled program depends on beside the shapes of its arguments; equal for equal functions and pytrees."""

    function: Callable[[Any, Any], Any]
    loss: Callable[[Any, Any], Any] | None
    treedef: Any
    trained: tuple[bool, ...]
    shapes: tuple[tuple[int, ...], ...]

    def params(self, leaves: Leaves, constants: Leaves) -> Any:
        """The pytree of parameters."""
        own, fixed = iter(leaves), iter(constants)
        return self.treedef.unflatten([next(own if on else fixed) for on in self.trained])

    def outputs(self, leaves: Leaves, constants: Leaves, inputs: Any) -> Array:
        """Outputs, in full precision."""
        # products in the accelerators' short formats would leave a Hessian of noise
        with jax.default_matmul_precision("float32"):
            return self.function(self.params(leaves, constants), inputs)

    def value(self, leaves: Leaves, constants: Leaves, batch: Batch) -> Array:
        """Loss of a batch."""
        if self.loss is None:
            return self.outputs(leaves, constants, batch)
        inputs, targets = batch
        return self.loss(self.outputs(leaves, constants, inputs), targets)

    def split(self, flat: Array) -> Leaves:
        """A vector, ``(P,)``, as leaves."""
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in self.shapes]
        ends = np.cumsum([0, *sizes]).tolist()
        return tuple(
            jax.lax.slice(flat, (start,), (stop,)).reshape(shape)
            for start, stop, shape in zip(ends[:-1], ends[1:], self.shapes, strict=True)
        )


def join(leaves: Leaves) -> Array:
    """The leaves as one vector, ``(P,)``."""
    return jnp.concatenate([a.ravel() for a in leaves])


def _each_row(product: Callable[[Array], Array], rows: Array) -> Array:
    return product(rows[0])[None] if len(rows) == 1 else jax.vmap(product)(rows)


def traced_value(program: Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Array:
    """Loss of a batch."""
    return program.value(leaves, constants, batch)


value = jax.jit(traced_value, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def gradient(program: Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Array:
    """Gradient of the loss of a batch, ``(P,)``."""
    return join(jax.grad(program.value)(leaves, constants, batch))


@partial(jax.jit, static_argnums=0)
def hvp(program: Program, leaves: Leaves, constants: Leaves, batch: Batch, rows: Array) -> Array:
    """Products of the Hessian with vectors, ``(k, P)``."""
    gradient = lambda leaves: jax.grad(program.value)(leaves, constants, batch)  # noqa: E731
    return _each_row(lambda v: join(jax.jvp(gradient, (leaves,), (program.split(v),))[1]), rows)


@partial(jax.jit, static_argnums=0)
def linearise_gradient(program: Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Any:
    """The gradient's linear map with what it needs of the batch, for :func:`apply`."""
    return jax.linearize(lambda leaves: jax.grad(program.value)(leaves, constants, batch), leaves)[1]


@partial(jax.jit, static_argnums=0)
def apply(program: Program, linear: Any, rows: Array) -> Array:
    """A linear map of the parameters times vectors, ``(k, P)``."""
    return _each_row(lambda v: join(linear(program.split(v))), rows)


@partial(jax.jit, static_argnums=0)
def outputs(program: Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Array:
    """Outputs of a batch, ``(n, ...)``."""
    return program.outputs(leaves, constants, batch[0])


@partial(jax.jit, static_argnums=0)
def jvp(program: Program, leaves: Leaves, constants: Leaves, batch: Batch, rows: Array) -> Array:
    """Changes of the outputs along vectors, ``(k, n, ...)``."""
    outputs = lambda leaves: program.outputs(leaves, constants, batch[0])  # noqa: E731
    return _each_row(lambda v: jax.jvp(outputs, (leaves,), (program.split(v),))[1], rows)


@partial(jax.jit, static_argnums=0)
def vjp(program: Program, leaves: Leaves, constants: Leaves, batch: Batch, rows: Array) -> Array:
    """``J^T u`` for vectors of the shape of the outputs, ``(k, P)``."""
    _, pullback = jax.vjp(lambda leaves: program.outputs(leaves, constants, batch[0]), leaves)
    return _each_row(lambda u: join(pullback(u)[0]), rows)


@partial(jax.jit, static_argnums=0)
def linearise_outputs(program: Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Any:
    """The outputs' linear map with what it needs of the batch, for :func:`apply_gauss_newton`."""
    outputs, linear = jax.linearize(lambda leaves: program.outputs(leaves, constants, batch[0]), leaves)
    return outputs, batch[1], linear, leaves


@partial(jax.jit, static_argnums=0)
def apply_gauss_newton(program: Program, held: Any, rows: Array) -> Array:
    """Products of the Gauss-Newton matrix, with a linearisation that was kept, ``(k, P)``."""
    outputs, targets, linear, leaves = held
    return _gauss_newton_rows(program, outputs, targets, linear, leaves, rows)


@partial(jax.jit, static_argnums=0)
def gauss_newton(program: Program, leaves: Leaves, constants: Leaves, batch: Batch, rows: Array) -> Array:
    """Products of the Gauss-Newton matrix with vectors, ``(k, P)``."""
    outputs, linear = jax.linearize(lambda leaves: program.outputs(leaves, constants, batch[0]), leaves)
    return _gauss_newton_rows(program, outputs, batch[1], linear, leaves, rows)


def _gauss_newton_rows(
    program: Program, outputs: Array, targets: Any, linear: Any, leaves: Leaves, rows: Array
) -> Array:
    assert program.loss is not None
    loss = program.loss
    transposed = jax.linear_transpose(linear, leaves)
    slope = jax.grad(lambda outputs: loss(outputs, targets))

    def one(v: Array) -> Array:
        bent = jax.jvp(slope, (outputs,), (linear(program.split(v)),))[1]
        return join(transposed(bent)[0])

    return _each_row(one, rows)


@partial(jax.jit, static_argnums=0)
def example_gradients(program: Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Array:
    """Gradient of the loss of every example of a batch, ``(n, P)``."""
    varying, alone = _examples(batch)
    return jax.vmap(lambda *one: join(jax.grad(program.value)(leaves, constants, alone(one))))(*varying)


@partial(jax.jit, static_argnums=(0, 5))
def example_moments(
    program: Program, leaves: Leaves, constants: Leaves, batch: Batch, centre: Array, together: int
) -> tuple[Array, Array]:
    """Of every example's gradient less a vector, ``|g_i - c|^2`` and ``(g_i - c) . c`` in each leaf, ``(n, leaves)``.

    The gradients of ``together`` examples at a time are differentiated and reduced leaf by leaf in one program, so that
    they need not be joined and pass through the caches once.
    """
    varying, alone = _examples(batch)
    centres = program.split(centre)

    def moments(one: Leaves) -> tuple[Array, Array]:
        slopes = jax.grad(program.value)(leaves, constants, alone(one))
        away = [g - c for g, c in zip(slopes, centres, strict=True)]
        squares = jnp.stack([jnp.sum(a * a) for a in away])
        return squares, jnp.stack([jnp.sum(a * c) for a, c in zip(away, centres, strict=True)])

    return jax.lax.map(moments, varying, batch_size=together)


def _examples(batch: Batch) -> tuple[Leaves, Callable[[Sequence[Array]], Batch]]:
    """Arrays of a batch that count the examples, and the batch of one that one entry of each makes."""
    arrays, treedef = jax.tree.flatten(batch)

    def alone(one: Sequence[Array]) -> Batch:
        entries = iter(one)
        return treedef.unflatten([next(entries)[None] if a.ndim else a for a in arrays])

    return tuple(a for a in arrays if a.ndim), alone
