"""The operators of a JAX model: a function of a pytree of parameters.

The gradient is linearised once and its linear map is then applied to every vector: a Hessian product costs about as
much as a gradient. Parameters, data and linearisations are arguments of the compiled programs, never closures, and the
programs are found again for the same function and shapes: another checkpoint of a model costs no compilation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from separatrix.probes import memory
from separatrix.probes.operators import ProbeError, as_rows, parameter_blocks

Leaves = tuple[Array, ...]
Batch = Any

#: Vectors multiplied together, 16 if not said: on a CPU a batched product is slower than as many single ones.
_ROWS = {"cpu": 1}
_CHUNK_BYTES = 2**24  # per-example gradients at a time


class JaxModel:
    """A function of a pytree of parameters, with data and a loss (:class:`.ModelOperators`).

    Parameters
    ----------
    function
        ``function(params, inputs) -> outputs``, an array with the examples along its first axis; pure. Without
        ``loss`` it is ``function(params, batch) -> loss``, a scalar.
    params
        Pytree of arrays. Leaves that are not floating-point numbers are constants; all others are differentiated, a
        leaf that is used twice counts once. Leaves of less than 32 bits are computed in float32.
    batches
        ``(inputs, targets)``, pytrees of arrays whose first axis counts the examples, or a list of such batches.
        Without ``loss`` a batch is whatever the function takes.
    loss
        ``loss(outputs, targets)``, the mean (or sum) over the examples of a batch; None if the function is the loss.
    reduction
        Whether the loss of a batch is the ``"mean"`` or the ``"sum"`` over its examples. Batches are weighted by their
        number of examples accordingly.
    available_memory
        Bytes that linearisations may take; by default half of what is free on the device.

    Raises
    ------
    ProbeError
        If the parameters, data or loss cannot be used, or the loss is random: one sentence.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        params: Any,
        batches: Any,
        loss: Callable[[Any, Any], Any] | None = None,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        available_memory: int | None = None,
    ) -> None:
        if reduction not in ("mean", "sum"):
            raise ProbeError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        names, leaves, trained, treedef = _read_parameters(params)
        wide = any(leaf.dtype == jnp.float64 for leaf, on in zip(leaves, trained, strict=True) if on)
        self._dtype = jnp.float64 if wide else jnp.float32
        self._leaves = tuple(leaf.astype(self._dtype) for leaf, on in zip(leaves, trained, strict=True) if on)
        self._constants = tuple(leaf for leaf, on in zip(leaves, trained, strict=True) if not on)
        names = [name for name, on in zip(names, trained, strict=True) if on]
        self._program = _Program(function, loss, treedef, tuple(trained), tuple(a.shape for a in self._leaves))
        self._blocks = parameter_blocks(names, [a.size for a in self._leaves])
        self.reduction: str = reduction
        self._separable = False
        self._batches = _read_batches(batches, loss is not None, self._dtype)
        self._sizes = [_examples(batch) for batch in self._batches]
        self._check_loss()
        available = self.free_memory() if available_memory is None else available_memory
        self._plan = memory.plan(self._bytes_per_example(), self._sizes, available)

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return sum(a.size for a in self._leaves)

    @property
    def examples(self) -> int:
        """Number of examples N."""
        return sum(self._sizes)

    @property
    def dtype(self) -> np.dtype:
        """Of vectors and products."""
        return np.dtype(self._dtype)

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Place of each leaf in a flat vector, named by its path in the pytree: ``layers.0.weight``."""
        return self._blocks

    @property
    def memory_needed(self) -> int:
        """Bytes that the linearisation of the gradient over all examples takes, predicted from shapes alone."""
        return self._plan.needed

    @cached_property
    def parameters(self) -> Array:
        """The parameters as one vector, ``(P,)``."""
        return _join(self._leaves)

    def vector(self, values: np.ndarray) -> Array:
        """NumPy values as an array on the device."""
        return jax.device_put(np.asarray(values, self.dtype), self._leaves[0].sharding)

    def flatten(self, values: Any) -> Array:
        """Pytree like the parameters as a vector, ``(P,)``."""
        leaves, treedef = jax.tree.flatten(values)
        if treedef != self._program.treedef:
            raise ProbeError(f"the pytree must have the structure of the parameters, got {treedef}")
        kept = [jnp.asarray(a, self._dtype) for a, on in zip(leaves, self._program.trained, strict=True) if on]
        if [a.shape for a in kept] != list(self._program.shapes):
            raise ProbeError("the leaves must have the shapes of the parameters")
        return _join(tuple(kept))

    def subset(self, examples: Sequence[int] | np.ndarray) -> "JaxModel":
        """The same model on some of its examples, as one batch."""
        self._require_separable("a subset of the examples")
        chosen = np.asarray(examples, np.int64)
        if chosen.ndim != 1 or chosen.size == 0 or chosen.min() < 0 or chosen.max() >= self.examples:
            raise ProbeError(f"examples must be numbers from 0 to {self.examples - 1}")
        ends = np.cumsum([0, *self._sizes])
        parts = [
            _take(batch, chosen[(chosen >= start) & (chosen < stop)] - start)
            for batch, start, stop in zip(self._batches, ends[:-1], ends[1:], strict=True)
            if np.any((chosen >= start) & (chosen < stop))
        ]
        try:
            joined = parts[0] if len(parts) == 1 else jax.tree.map(lambda *a: jnp.concatenate(a), *parts)
        except (ValueError, TypeError):
            raise ProbeError("batches of different shapes cannot be joined to one mini-batch") from None
        other = object.__new__(JaxModel)
        other.__dict__ = {name: value for name, value in self.__dict__.items() if name not in _DERIVED}
        other._batches, other._sizes = [joined], [_examples(joined)]
        # Few products are made with a mini-batch: its linearisation is not worth a program of its own.
        other._plan = memory.Plan(None, False, self._plan.needed * chosen.size // self.examples)
        return other

    def at(self, parameters: Any) -> "JaxModel":
        """The same function and data at other parameters, a pytree like the first."""
        _, leaves, trained, treedef = _read_parameters(parameters)
        kept = tuple(leaf.astype(self._dtype) for leaf, on in zip(leaves, trained, strict=True) if on)
        if treedef != self._program.treedef or tuple(a.shape for a in kept) != self._program.shapes:
            raise ProbeError("the parameters must have the structure and the shapes of those of the model")
        other = object.__new__(JaxModel)
        gone = (*_DERIVED, "parameters")
        other.__dict__ = {name: value for name, value in self.__dict__.items() if name not in gone}
        other._leaves = kept
        other._constants = tuple(leaf for leaf, on in zip(leaves, trained, strict=True) if not on)
        return other

    # -- the loss -----------------------------------------------------------------------------------------------

    def loss(self) -> float:
        """Loss over all examples."""
        return float(sum(w * float(_value(*self._at(batch))) for batch, w in self._tiles))

    def gradient(self) -> Array:
        """Gradient of the loss, ``(P,)``."""
        return self._sum(lambda batch: _gradient(*self._at(batch)))

    def hvp(self, v: Array) -> Array:
        """Products of the Hessian of the loss with ``v``, ``(P,)`` or ``(k, P)``."""
        if self._plan.hold:
            return self._rows(v, lambda row: self._sum_of(self._linear_gradients, partial(_apply, self._program), row))
        return self._rows(v, lambda row: self._sum(lambda batch: _hvp(*self._at(batch), row)))

    def gauss_newton(self, v: Array) -> Array:
        """Products of the Gauss-Newton matrix with ``v``, ``(P,)`` or ``(k, P)``."""
        self._require_outputs()
        if self._plan.hold:
            return self._rows(
                v, lambda row: self._sum_of(self._linear_outputs, partial(_apply_gauss_newton, self._program), row)
            )
        return self._rows(v, lambda row: self._sum(lambda batch: _gauss_newton(*self._at(batch), row)))

    # -- the outputs --------------------------------------------------------------------------------------------

    def outputs(self) -> Array:
        """Outputs of all examples, ``(N, ...)``."""
        self._require_outputs()
        return self._joined([_outputs(*self._at(batch)) for batch, _ in self._tiles], 0)

    def jvp(self, v: Array) -> Array:
        """Change of the outputs along ``v``: ``outputs`` for ``(P,)``, ``(k, *outputs)`` for ``(k, P)``."""
        self._require_outputs()
        rows, single = as_rows(v, self.size)
        made = [
            jnp.concatenate([_jvp(*self._at(batch), part) for part in self._parts(rows)]) for batch, _ in self._tiles
        ]
        product = self._joined(made, 1)
        return product[0] if single else product

    def vjp(self, u: Array) -> Array:
        """``J^T u``: ``(P,)`` for ``u`` of shape ``outputs``, ``(k, P)`` for ``(k, *outputs)``."""
        self._require_outputs()
        shape = self._output_shape
        if tuple(u.shape) != shape and tuple(u.shape[1:]) != shape:
            raise ProbeError(f"the outputs have shape {shape}, got {tuple(u.shape)}")
        single = tuple(u.shape) == shape
        rows = u[None] if single else u
        products = []
        for part in self._parts(rows):
            ends = np.cumsum([0, *(_examples(batch) for batch, _ in self._tiles)])
            products.append(
                sum(
                    _vjp(*self._at(batch), part[:, start:stop])
                    for (batch, _), start, stop in zip(self._tiles, ends[:-1], ends[1:], strict=True)
                )
            )
        product = jnp.concatenate(products)
        return product[0] if single else product

    def per_example_gradients(self, chunk: int | None = None) -> Iterator[Array]:
        """Gradient of every example's own loss, ``(m, P)`` for at most ``chunk`` examples at a time, in order."""
        self._require_separable("gradients of single examples")
        if chunk is None:
            by_memory = int(self.free_memory() / (4 * self.size * self.dtype.itemsize))
            chunk = max(1, min(_CHUNK_BYTES // (self.size * self.dtype.itemsize), by_memory))
        if chunk < 1:
            raise ProbeError(f"chunk must be at least 1, got {chunk}")
        for batch, size in zip(self._batches, self._sizes, strict=True):
            # equal chunks compile once; the last is filled up with copies of the last example, which are cut off
            most = -(-size // -(-size // min(chunk, size)))
            for start in range(0, size, most):
                index = np.minimum(np.arange(start, start + most), size - 1)
                yield _per_example(*self._at(_take(batch, index)))[: min(most, size - start)]

    # -- parts --------------------------------------------------------------------------------------------------

    def _at(self, batch: Batch) -> tuple["_Program", Leaves, Leaves, Batch]:
        return self._program, self._leaves, self._constants, batch

    @cached_property
    def _tiles(self) -> list[tuple[Batch, float]]:
        """Pieces of the data that are worked through one at a time, and their weights in the loss."""
        if self._plan.tile is not None:
            self._require_separable(f"{max(self._sizes)} examples at a time do not fit the memory, and tiles of them")
        pieces = []
        for batch, size in zip(self._batches, self._sizes, strict=True):
            step = min(size, self._plan.tile or size)
            for start in range(0, size, step):
                part = batch if step == size else _take(batch, np.arange(start, min(start + step, size)))
                pieces.append((part, _examples(part) / self.examples if self.reduction == "mean" else 1.0))
        return pieces

    @cached_property
    def _linear_gradients(self) -> list[tuple[Any, float]]:
        return [(_linearise_gradient(*self._at(batch)), w) for batch, w in self._tiles]

    @cached_property
    def _linear_outputs(self) -> list[tuple[Any, float]]:
        return [(_linearise_outputs(*self._at(batch)), w) for batch, w in self._tiles]

    @cached_property
    def _output_shape(self) -> tuple[int, ...]:
        shapes = [jax.eval_shape(partial(_outputs, self._program), *self._at(b)[1:]).shape for b in self._batches]
        if any(shape[1:] != shapes[0][1:] for shape in shapes):
            raise ProbeError("the outputs of the batches must have the same shape beside the number of examples")
        return (self.examples, *shapes[0][1:])

    def _rows(self, v: Array, product: Callable[[Array], Array]) -> Array:
        rows, single = as_rows(v, self.size)
        made = [product(part) for part in self._parts(rows)]
        joined = made[0] if len(made) == 1 else jnp.concatenate(made)
        return joined[0] if single else joined

    def _parts(self, rows: Array) -> list[Array]:
        most = max(
            1, int(self.free_memory() / max(self._plan.needed, 1))
        )  # each vector takes about as much as the linearisation
        step = min(_ROWS.get(next(iter(self._leaves[0].devices())).platform, 16), most)
        return [rows] if len(rows) <= step else [rows[i : i + step] for i in range(0, len(rows), step)]

    def _sum(self, product: Callable[[Batch], Array]) -> Array:
        total = None
        for batch, w in self._tiles:
            part = product(batch)
            part = part if w == 1.0 else part * w
            total = part if total is None else total + part
        assert total is not None
        return total

    def _sum_of(self, linear: list[tuple[Any, float]], apply: Callable[[Any, Array], Array], rows: Array) -> Array:
        total = None
        for one, w in linear:
            part = apply(one, rows)
            part = part if w == 1.0 else part * w
            total = part if total is None else total + part
        assert total is not None
        return total

    def _joined(self, parts: list[Array], axis: int) -> Array:
        if len(parts) == 1:
            return parts[0]
        assert self._output_shape  # refuses outputs that cannot be joined
        return jnp.concatenate(parts, axis)

    # -- checks -------------------------------------------------------------------------------------------------

    def _check_loss(self) -> None:
        first = self._batches[0]
        shaped = jax.eval_shape(partial(_value, self._program), *self._at(first)[1:])
        if not hasattr(shaped, "shape") or shaped.shape != ():
            raise ProbeError(f"the loss of a batch must be a scalar, got shape {getattr(shaped, 'shape', shaped)}")
        if not jnp.issubdtype(shaped.dtype, jnp.floating):
            raise ProbeError(f"the loss of a batch must be a floating-point number, got {shaped.dtype}")
        # random numbers drawn while tracing (NumPy's) are frozen differently into every compiled program
        one, two = (jax.make_jaxpr(partial(_raw_value, self._program))(*self._at(first)[1:]) for _ in range(2))
        if str(one) != str(two) or not all(_same(a, b) for a, b in zip(one.consts, two.consts, strict=True)):
            raise ProbeError("the loss changes from call to call: it must not draw random numbers or keep a state")
        a, b = float(_value(*self._at(first))), float(_value(*self._at(first)))
        if not np.isfinite(a):
            raise ProbeError(f"the loss is {a} at these parameters: it has no derivatives to measure")
        if abs(a - b) > 100 * np.finfo(self.dtype).eps * abs(a):
            raise ProbeError("the loss changes from call to call: it must not draw random numbers or keep a state")

    def _require_outputs(self) -> None:
        if self._program.loss is None:
            raise ProbeError("this needs the outputs of the model: give JaxModel a function of inputs and a loss")

    def _require_separable(self, what: str) -> None:
        """That the loss of the first batch is the mean (or sum) of the losses of its examples."""
        if self._separable:
            return
        batch, size = self._batches[0], min(self._sizes[0], 8)
        some = _take(batch, np.arange(size))
        whole = float(_value(*self._at(some)))
        single = [float(_value(*self._at(_take(some, np.arange(i, i + 1))))) for i in range(size)]
        expected = float(np.mean(single)) if self.reduction == "mean" else float(np.sum(single))
        if not abs(whole - expected) <= 1e-3 * max(abs(whole), float(np.mean(np.abs(single)))):
            raise ProbeError(
                f"{what} cannot be taken: the loss of a batch is not the {self.reduction} of the losses of its "
                f"examples ({whole:.6g} and {expected:.6g}), as with batch statistics or another reduction"
            )
        self._separable = True

    def _bytes_per_example(self) -> float:
        """Of the linearised gradient beyond the parameters, from shapes alone."""
        batch, size = self._batches[0], self._sizes[0]
        kept = jax.eval_shape(partial(_linearise_gradient, self._program), *self._at(batch)[1:])
        total = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(kept))
        return max(total - self.size * self.dtype.itemsize, 0) / size

    def free_memory(self) -> int:
        """Bytes that vectors and linearisations may take: half of what is free on the device."""
        device = next(iter(self._leaves[0].devices()))
        stats = device.memory_stats() if device.platform != "cpu" else None
        free = stats["bytes_limit"] - stats["bytes_in_use"] if stats else memory.free_host_memory()
        return int(memory.SHARE * free)


#: Attributes that are made from the data when first needed.
_DERIVED = ("_tiles", "_linear_gradients", "_linear_outputs", "_output_shape")


# -- compiled programs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Program:
    """What a compiled program depends on beside the shapes of its arguments; equal for equal functions and pytrees."""

    function: Callable[[Any, Any], Any]
    loss: Callable[[Any, Any], Any] | None
    treedef: Any
    trained: tuple[bool, ...]
    shapes: tuple[tuple[int, ...], ...]

    def params(self, leaves: Leaves, constants: Leaves) -> Any:
        own, fixed = iter(leaves), iter(constants)
        return self.treedef.unflatten([next(own if on else fixed) for on in self.trained])

    def outputs(self, leaves: Leaves, constants: Leaves, inputs: Any) -> Array:
        # products in the accelerators' short formats would leave a Hessian of noise
        with jax.default_matmul_precision("float32"):
            return self.function(self.params(leaves, constants), inputs)

    def value(self, leaves: Leaves, constants: Leaves, batch: Batch) -> Array:
        if self.loss is None:
            return self.outputs(leaves, constants, batch)
        inputs, targets = batch
        return self.loss(self.outputs(leaves, constants, inputs), targets)

    def split(self, flat: Array) -> Leaves:
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in self.shapes]
        ends = np.cumsum([0, *sizes]).tolist()
        return tuple(
            jax.lax.slice(flat, (start,), (stop,)).reshape(shape)
            for start, stop, shape in zip(ends[:-1], ends[1:], self.shapes, strict=True)
        )


def _join(leaves: Leaves) -> Array:
    return jnp.concatenate([a.ravel() for a in leaves])


def _each_row(product: Callable[[Array], Array], rows: Array) -> Array:
    return product(rows[0])[None] if len(rows) == 1 else jax.vmap(product)(rows)


def _raw_value(program: _Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Array:
    return program.value(leaves, constants, batch)


_value = jax.jit(_raw_value, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def _gradient(program: _Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Array:
    return _join(jax.grad(program.value)(leaves, constants, batch))


@partial(jax.jit, static_argnums=0)
def _hvp(program: _Program, leaves: Leaves, constants: Leaves, batch: Batch, rows: Array) -> Array:
    gradient = lambda leaves: jax.grad(program.value)(leaves, constants, batch)  # noqa: E731
    return _each_row(lambda v: _join(jax.jvp(gradient, (leaves,), (program.split(v),))[1]), rows)


@partial(jax.jit, static_argnums=0)
def _linearise_gradient(program: _Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Any:
    return jax.linearize(lambda leaves: jax.grad(program.value)(leaves, constants, batch), leaves)[1]


@partial(jax.jit, static_argnums=0)
def _apply(program: _Program, linear: Any, rows: Array) -> Array:
    return _each_row(lambda v: _join(linear(program.split(v))), rows)


@partial(jax.jit, static_argnums=0)
def _outputs(program: _Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Array:
    return program.outputs(leaves, constants, batch[0])


@partial(jax.jit, static_argnums=0)
def _jvp(program: _Program, leaves: Leaves, constants: Leaves, batch: Batch, rows: Array) -> Array:
    outputs = lambda leaves: program.outputs(leaves, constants, batch[0])  # noqa: E731
    return _each_row(lambda v: jax.jvp(outputs, (leaves,), (program.split(v),))[1], rows)


@partial(jax.jit, static_argnums=0)
def _vjp(program: _Program, leaves: Leaves, constants: Leaves, batch: Batch, rows: Array) -> Array:
    _, pullback = jax.vjp(lambda leaves: program.outputs(leaves, constants, batch[0]), leaves)
    return _each_row(lambda u: _join(pullback(u)[0]), rows)


@partial(jax.jit, static_argnums=0)
def _linearise_outputs(program: _Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Any:
    outputs, linear = jax.linearize(lambda leaves: program.outputs(leaves, constants, batch[0]), leaves)
    return outputs, batch[1], linear, leaves


@partial(jax.jit, static_argnums=0)
def _apply_gauss_newton(program: _Program, held: Any, rows: Array) -> Array:
    outputs, targets, linear, leaves = held
    return _gauss_newton_rows(program, outputs, targets, linear, leaves, rows)


@partial(jax.jit, static_argnums=0)
def _gauss_newton(program: _Program, leaves: Leaves, constants: Leaves, batch: Batch, rows: Array) -> Array:
    outputs, linear = jax.linearize(lambda leaves: program.outputs(leaves, constants, batch[0]), leaves)
    return _gauss_newton_rows(program, outputs, batch[1], linear, leaves, rows)


def _gauss_newton_rows(
    program: _Program, outputs: Array, targets: Any, linear: Any, leaves: Leaves, rows: Array
) -> Array:
    assert program.loss is not None
    loss = program.loss
    transposed = jax.linear_transpose(linear, leaves)
    slope = jax.grad(lambda outputs: loss(outputs, targets))

    def one(v: Array) -> Array:
        bent = jax.jvp(slope, (outputs,), (linear(program.split(v)),))[1]
        return _join(transposed(bent)[0])

    return _each_row(one, rows)


@partial(jax.jit, static_argnums=0)
def _per_example(program: _Program, leaves: Leaves, constants: Leaves, batch: Batch) -> Array:
    arrays, treedef = jax.tree.flatten(batch)
    axes = [0 if a.ndim else None for a in arrays]

    def gradient(*example: Array) -> Array:
        alone = [a[None] if axis == 0 else a for a, axis in zip(example, axes, strict=True)]  # a batch of one
        return _join(jax.grad(program.value)(leaves, constants, treedef.unflatten(alone)))

    return jax.vmap(gradient, in_axes=axes)(*arrays)


# -- reading parameters and data ----------------------------------------------------------------------------------


def _read_parameters(params: Any) -> tuple[list[str], list[Array], list[bool], Any]:
    """Names, leaves, whether each is differentiated, and the structure."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    names, leaves, trained = [], [], []
    for path, leaf in paths:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "params"
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, float, int)):
            raise ProbeError(f"the leaf {name} of the parameters is of type {type(leaf).__name__}, not an array")
        if np.dtype(getattr(leaf, "dtype", np.int32)) == np.float64 and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
            raise ProbeError(
                f"the leaf {name} of the parameters is float64, and JAX computes in float32: set jax_enable_x64 or "
                "convert the parameters"
            )
        array = jnp.asarray(leaf)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise ProbeError(f"the leaf {name} of the parameters is complex: give real and imaginary parts")
        names.append(name)
        leaves.append(array)
        trained.append(bool(jnp.issubdtype(array.dtype, jnp.floating)))
    if not any(trained):
        raise ProbeError("the parameters hold no floating-point numbers to differentiate")
    return names, leaves, trained, treedef


def _read_batches(batches: Any, with_targets: bool, dtype: Any) -> list[Batch]:
    given = batches if isinstance(batches, list) else [batches]
    if not given:
        raise ProbeError("the data hold no batch")
    read = []
    for batch in given:
        if with_targets and (not isinstance(batch, tuple) or len(batch) != 2):
            raise ProbeError(f"a batch must be a tuple (inputs, targets), got {type(batch).__name__}")
        arrays = jax.tree.map(lambda a: _widened(jnp.asarray(a), dtype), batch)
        sizes = {a.shape[0] for a in jax.tree.leaves(arrays) if a.ndim}
        if len(sizes) != 1 or 0 in sizes:
            raise ProbeError(
                f"all arrays of a batch must have the same positive number of examples, got {sorted(sizes)}"
            )
        read.append(arrays)
    return read


def _widened(array: Array, dtype: Any) -> Array:
    """Numbers of less than 32 bits in the computing dtype, as the parameters are."""
    narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
    return array.astype(dtype) if narrow else array


def _examples(batch: Batch) -> int:
    return next(a.shape[0] for a in jax.tree.leaves(batch) if a.ndim)


def _take(batch: Batch, index: np.ndarray) -> Batch:
    if len(index) and index[-1] - index[0] == len(index) - 1 and np.all(np.diff(index) == 1):
        return jax.tree.map(lambda a: a[int(index[0]) : int(index[-1]) + 1] if a.ndim else a, batch)
    return jax.tree.map(lambda a: a[index] if a.ndim else a, batch)


def _same(a: Any, b: Any) -> bool:
    return np.shape(a) == np.shape(b) and bool(np.all(np.asarray(a) == np.asarray(b)))
