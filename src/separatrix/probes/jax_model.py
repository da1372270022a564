"""The operators of a JAX model: a function of a pytree of parameters.

The gradient is linearised once and its linear map is then applied to every vector: a Hessian product costs about as
much as a gradient.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from separatrix.probes import jax_programs as programs
from separatrix.probes import memory
from separatrix.probes.checks import check_reduction, check_separable, check_values
from separatrix.probes.jax_programs import Batch, Leaves, Program
from separatrix.probes.jax_reading import examples_of, read_batches, read_parameters, take
from separatrix.probes.operators import (
    ProbeError,
    as_cotangents,
    as_rows,
    examples_together,
    parameter_blocks,
    rows_of_batches,
    weighted_sum,
)

#: Vectors multiplied together, 16 if not said: on a CPU a batched product is slower than as many single ones.
_ROWS = {"cpu": 1}
_CHUNK_BYTES = 2**24  # per-example gradients at a time
_MOMENTS_BYTES = 2**22  # the same where they are reduced at once: they should not leave the caches
_RANDOM = ": it must not draw random numbers or keep a state"


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
        check_reduction(reduction)
        names, leaves, trained, treedef = read_parameters(params)
        wide = any(leaf.dtype == jnp.float64 for leaf, on in zip(leaves, trained, strict=True) if on)
        self._dtype = jnp.float64 if wide else jnp.float32
        self._leaves = tuple(leaf.astype(self._dtype) for leaf, on in zip(leaves, trained, strict=True) if on)
        self._constants = tuple(leaf for leaf, on in zip(leaves, trained, strict=True) if not on)
        names = [name for name, on in zip(names, trained, strict=True) if on]
        self._program = Program(function, loss, treedef, tuple(trained), tuple(a.shape for a in self._leaves))
        self._blocks = parameter_blocks(names, [a.size for a in self._leaves])
        self.reduction: str = reduction
        self._separable = False
        self._batches = read_batches(batches, loss is not None, self._dtype)
        self._sizes = [examples_of(batch) for batch in self._batches]
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
        return programs.join(self._leaves)

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
        return programs.join(tuple(kept))

    def subset(self, examples: Sequence[int] | np.ndarray) -> "JaxModel":
        """The same model on some of its examples, as one batch."""
        self._require_separable("a subset of the examples")
        parts = [take(self._batches[number], rows) for number, rows in rows_of_batches(examples, self._sizes)]
        try:
            joined = parts[0] if len(parts) == 1 else jax.tree.map(lambda *a: jnp.concatenate(a), *parts)
        except (ValueError, TypeError):
            raise ProbeError("batches of different shapes cannot be joined to one mini-batch") from None
        other = object.__new__(JaxModel)
        other.__dict__ = {name: value for name, value in self.__dict__.items() if name not in _DERIVED}
        other._batches, other._sizes = [joined], [examples_of(joined)]
        # Few products are made with a mini-batch: its linearisation is not worth a program of its own.
        other._plan = memory.Plan(None, False, self._plan.needed * examples_of(joined) // self.examples)
        return other

    def at(self, parameters: Any) -> "JaxModel":
        """The same function and data at other parameters, a pytree like the first."""
        _, leaves, trained, treedef = read_parameters(parameters)
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
        return float(sum(w * float(programs.value(*self._at(batch))) for batch, w in self._tiles))

    def gradient(self) -> Array:
        """Gradient of the loss, ``(P,)``."""
        return weighted_sum((programs.gradient(*self._at(batch)), w) for batch, w in self._tiles)

    def hvp(self, v: Array) -> Array:
        """Products of the Hessian of the loss with ``v``, ``(P,)`` or ``(k, P)``."""
        return self._rows(v, lambda: self._linear_gradients, programs.apply, programs.hvp)

    def gauss_newton(self, v: Array) -> Array:
        """Products of the Gauss-Newton matrix with ``v``, ``(P,)`` or ``(k, P)``."""
        self._require_outputs()
        return self._rows(v, lambda: self._linear_outputs, programs.apply_gauss_newton, programs.gauss_newton)

    # -- the outputs --------------------------------------------------------------------------------------------

    def outputs(self) -> Array:
        """Outputs of all examples, ``(N, ...)``."""
        self._require_outputs()
        return self._joined([programs.outputs(*self._at(batch)) for batch, _ in self._tiles], 0)

    def jvp(self, v: Array) -> Array:
        """Change of the outputs along ``v``: ``outputs`` for ``(P,)``, ``(k, *outputs)`` for ``(k, P)``."""
        self._require_outputs()
        rows, single = as_rows(v, self.size)
        made = [
            jnp.concatenate([programs.jvp(*self._at(batch), part) for part in self._parts(rows)])
            for batch, _ in self._tiles
        ]
        product = self._joined(made, 1)
        return product[0] if single else product

    def vjp(self, u: Array) -> Array:
        """``J^T u``: ``(P,)`` for ``u`` of shape ``outputs``, ``(k, P)`` for ``(k, *outputs)``."""
        self._require_outputs()
        rows, single = as_cotangents(u, self._output_shape)
        products = []
        for part in self._parts(rows):
            ends = np.cumsum([0, *(examples_of(batch) for batch, _ in self._tiles)])
            products.append(
                sum(
                    programs.vjp(*self._at(batch), part[:, start:stop])
                    for (batch, _), start, stop in zip(self._tiles, ends[:-1], ends[1:], strict=True)
                )
            )
        product = jnp.concatenate(products)
        return product[0] if single else product

    def per_example_gradients(self, chunk: int | None = None) -> Iterator[Array]:
        """Gradient of every example's own loss, ``(m, P)`` for at most ``chunk`` examples at a time, in order."""
        for batch, together in self._examples_together(chunk, _CHUNK_BYTES):
            size = examples_of(batch)
            # equal chunks compile once; the last is filled up with copies of the last example, which are cut off
            for start in range(0, size, together):
                index = np.minimum(np.arange(start, start + together), size - 1)
                yield programs.example_gradients(*self._at(take(batch, index)))[: min(together, size - start)]

    def per_example_moments(
        self, centre: Array, chunk: int | None = None
    ) -> tuple[Float[np.ndarray, "N B"], Float[np.ndarray, "N B"]]:
        """``|g_i - c|^2`` and ``(g_i - c) . c`` of every example's gradient in every block."""
        made = [
            programs.example_moments(*self._at(batch), centre, together)
            for batch, together in self._examples_together(chunk, _MOMENTS_BYTES)
        ]
        squares, overlaps = (
            np.concatenate([np.asarray(a, np.float64) for a in part]) for part in zip(*made, strict=True)
        )
        return squares, overlaps

    def _examples_together(self, chunk: int | None, together_bytes: int) -> Iterator[tuple[Batch, int]]:
        """Each batch, and the number of its examples at a time: about equal chunks of it."""
        self._require_separable("gradients of single examples")
        most = examples_together(chunk, self.size * self.dtype.itemsize, together_bytes, self.free_memory())
        for batch, size in zip(self._batches, self._sizes, strict=True):
            yield batch, -(-size // -(-size // min(most, size)))

    # -- parts --------------------------------------------------------------------------------------------------

    def _at(self, batch: Batch) -> tuple[Program, Leaves, Leaves, Batch]:
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
                part = batch if step == size else take(batch, np.arange(start, min(start + step, size)))
                pieces.append((part, examples_of(part) / self.examples if self.reduction == "mean" else 1.0))
        return pieces

    @cached_property
    def _linear_gradients(self) -> list[tuple[Any, float]]:
        return [(programs.linearise_gradient(*self._at(batch)), w) for batch, w in self._tiles]

    @cached_property
    def _linear_outputs(self) -> list[tuple[Any, float]]:
        return [(programs.linearise_outputs(*self._at(batch)), w) for batch, w in self._tiles]

    @cached_property
    def _output_shape(self) -> tuple[int, ...]:
        shapes = [
            jax.eval_shape(partial(programs.outputs, self._program), *self._at(b)[1:]).shape for b in self._batches
        ]
        if any(shape[1:] != shapes[0][1:] for shape in shapes):
            raise ProbeError("the outputs of the batches must have the same shape beside the number of examples")
        return (self.examples, *shapes[0][1:])

    def _rows(self, v: Array, held: Callable[[], list[tuple[Any, float]]], apply: Callable, anew: Callable) -> Array:
        """Products from the linearisations that are held, or from those that a program makes anew."""
        rows, single = as_rows(v, self.size)
        made = []
        for part in self._parts(rows):
            if self._plan.hold:
                made.append(weighted_sum((apply(self._program, linear, part), w) for linear, w in held()))
            else:
                made.append(weighted_sum((anew(*self._at(batch), part), w) for batch, w in self._tiles))
        joined = made[0] if len(made) == 1 else jnp.concatenate(made)
        return joined[0] if single else joined

    def _parts(self, rows: Array) -> list[Array]:
        # each vector takes about as much as the linearisation
        most = max(1, int(self.free_memory() / max(self._plan.needed, 1)))
        step = min(_ROWS.get(next(iter(self._leaves[0].devices())).platform, 16), most)
        return [rows] if len(rows) <= step else [rows[i : i + step] for i in range(0, len(rows), step)]

    def _joined(self, parts: list[Array], axis: int) -> Array:
        if len(parts) == 1:
            return parts[0]
        assert self._output_shape  # refuses outputs that cannot be joined
        return jnp.concatenate(parts, axis)

    # -- checks -------------------------------------------------------------------------------------------------

    def _check_loss(self) -> None:
        first = self._batches[0]
        shaped = jax.eval_shape(partial(programs.value, self._program), *self._at(first)[1:])
        if not hasattr(shaped, "shape") or shaped.shape != ():
            raise ProbeError(f"the loss of a batch must be a scalar, got shape {getattr(shaped, 'shape', shaped)}")
        if not jnp.issubdtype(shaped.dtype, jnp.floating):
            raise ProbeError(f"the loss of a batch must be a floating-point number, got {shaped.dtype}")
        # random numbers drawn while tracing (NumPy's) are frozen differently into every compiled program
        one, two = (
            jax.make_jaxpr(partial(programs.traced_value, self._program))(*self._at(first)[1:]) for _ in range(2)
        )
        if str(one) != str(two) or not all(np.array_equal(a, b) for a, b in zip(one.consts, two.consts, strict=True)):
            raise ProbeError(f"the loss changes from call to call{_RANDOM}")
        a, b = (float(programs.value(*self._at(first))) for _ in range(2))
        check_values(a, b, self.dtype, _RANDOM)

    def _require_outputs(self) -> None:
        if self._program.loss is None:
            raise ProbeError("this needs the outputs of the model: give JaxModel a function of inputs and a loss")

    def _require_separable(self, what: str) -> None:
        """That the loss of the first batch is the mean (or sum) of the losses of its examples."""
        if self._separable:
            return
        batch, size = self._batches[0], min(self._sizes[0], 8)
        some = take(batch, np.arange(size))
        whole = float(programs.value(*self._at(some)))
        single = [float(programs.value(*self._at(take(some, np.arange(i, i + 1))))) for i in range(size)]
        check_separable(whole, single, self.reduction, what)
        self._separable = True

    def _bytes_per_example(self) -> float:
        """Of the linearised gradient beyond the parameters, from shapes alone."""
        batch, size = self._batches[0], self._sizes[0]
        kept = jax.eval_shape(partial(programs.linearise_gradient, self._program), *self._at(batch)[1:])
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
