"""The operators of a PyTorch model: any ``nn.Module``.

The module is called functionally, with copies of its parameters and buffers, so that its gradients, its buffers, its
training mode and the random state stay as they are. The graph of the gradient is built once and passed through backward
for every vector.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from separatrix.probes import memory
from separatrix.probes.checks import check_reduction, check_separable, check_values
from separatrix.probes.operators import (
    ProbeError,
    as_cotangents,
    as_rows,
    examples_together,
    parameter_blocks,
    rows_of_batches,
    weighted_sum,
)
from separatrix.probes.torch_graphs import GradientGraph, OutputGraph, full_precision
from separatrix.probes.torch_reading import (
    Batch,
    check_parameters,
    examples_of,
    import_torch,
    join,
    map_batch,
    read_batches,
    refuse_sparse,
    take,
)

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor
else:
    Tensor = Any

_CHUNK_BYTES = 2**24  # per-example gradients at a time


class TorchModel:
    """An ``nn.Module`` with data and a loss (:class:`.ModelOperators`); needs the extra ``torch``.

    Parameters
    ----------
    module
        Trained are its parameters with ``requires_grad``; a tied parameter counts once. Modes are taken as they are: a
        module in training mode normalises by the statistics of each batch. Parameters of less than 32 bits are computed
        in float32.
    batches
        ``(inputs, targets)`` with the examples along the first axis of every tensor, or an iterable of such batches (a
        list, a ``DataLoader``), which is read once and kept. ``inputs`` is a tensor, a tuple of positional or a dict of
        keyword arguments. Without ``loss`` a batch as a whole is that.
    loss
        ``loss(outputs, targets)``, the mean (or sum) over the examples of a batch: ``nn.functional.cross_entropy``.
        None if the module itself returns the loss.
    reduction
        Whether the loss of a batch is the ``"mean"`` or the ``"sum"`` over its examples. Batches are weighted by their
        number of examples accordingly.
    available_memory
        Bytes that graphs may take; by default half of what is free on the device.

    Raises
    ------
    ProbeError
        If the module, data or loss cannot be used, or the loss is random: one sentence.
    ImportError
        If PyTorch is not installed.
    """

    def __init__(
        self,
        module: "torch.nn.Module",
        batches: Any,
        loss: Callable[[Any, Any], Any] | None = None,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        available_memory: int | None = None,
    ) -> None:
        torch = import_torch()
        check_reduction(reduction)
        if not isinstance(module, torch.nn.Module):
            raise ProbeError(f"module must be an nn.Module, got {type(module).__name__}")
        named = dict(module.named_parameters())
        trained = {name: p for name, p in named.items() if p.requires_grad}
        check_parameters(named, trained)
        refuse_sparse(module)
        self._module, self._loss = module, loss
        self.reduction: str = reduction
        self._torch_dtype = torch.float32
        for p in trained.values():
            self._torch_dtype = torch.promote_types(self._torch_dtype, p.dtype)
        with self._apart():
            self._params = {name: self._own(p) for name, p in trained.items()}
            fixed = {name: p for name, p in named.items() if name not in trained} | dict(module.named_buffers())
            self._fixed = {name: self._own(p) for name, p in fixed.items()}
            first = next(iter(self._params.values()))
            self._device = first.device
            self._batches = read_batches(batches, loss is not None, self._own, self._device)
        self._sizes = [examples_of(batch) for batch in self._batches]
        self._blocks = parameter_blocks(list(self._params), [p.numel() for p in self._params.values()])
        self._separable = False
        self._check_loss()
        available = self.free_memory() if available_memory is None else available_memory
        self._plan = memory.plan(self._bytes_per_example(), self._sizes, available)

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return sum(p.numel() for p in self._params.values())

    @property
    def examples(self) -> int:
        """Number of examples N."""
        return sum(self._sizes)

    @property
    def dtype(self) -> np.dtype:
        """Of vectors and products."""
        return np.dtype(str(self._torch_dtype).removeprefix("torch."))

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Place of each parameter in a flat vector, by its name in the module."""
        return self._blocks

    @property
    def memory_needed(self) -> int:
        """Bytes that the graph of the gradient over all examples takes, measured on a few of them."""
        return self._plan.needed

    @cached_property
    def parameters(self) -> Tensor:
        """The parameters as one vector, ``(P,)``."""
        return join([p.detach() for p in self._params.values()])

    def vector(self, values: np.ndarray) -> Tensor:
        """NumPy values as a tensor on the device."""
        return import_torch().from_numpy(np.ascontiguousarray(values, self.dtype)).to(self._device)

    def flatten(self, values: Any) -> Tensor:
        """Tensors by parameter name, or in the order of the trained parameters, as a vector, ``(P,)``."""
        if isinstance(values, Mapping):
            if missing := [name for name in self._params if name not in values]:
                raise ProbeError(f"there is no tensor for the parameter {missing[0]}")
            values = [values[name] for name in self._params]
        shapes = [tuple(p.shape) for p in self._params.values()]
        given = [tuple(a.shape) for a in values]
        if given != shapes:
            raise ProbeError("the tensors must have the shapes of the trained parameters, in their order")
        return join([a.detach().to(self._device, self._torch_dtype) for a in values])

    def subset(self, examples: Sequence[int] | np.ndarray) -> "TorchModel":
        """The same model on some of its examples, as one batch."""
        self._require_separable("a subset of the examples")
        parts = [take(self._batches[number], rows) for number, rows in rows_of_batches(examples, self._sizes)]
        try:
            joined = (
                parts[0]
                if len(parts) == 1
                else map_batch(lambda *a: import_torch().cat(a) if a[0].ndim else a[0], *parts)
            )
        except (RuntimeError, TypeError, ValueError):
            raise ProbeError("batches of different shapes cannot be joined to one mini-batch") from None
        other = object.__new__(TorchModel)
        other.__dict__ = {name: value for name, value in self.__dict__.items() if name not in _DERIVED}
        other._batches, other._sizes = [joined], [examples_of(joined)]
        other._plan = memory.Plan(None, False, self._plan.needed * examples_of(joined) // self.examples)
        return other

    def at(self, module: "torch.nn.Module") -> "TorchModel":
        """The same data and modes with the parameters and buffers of another module: a copy that is being trained."""
        named = dict(module.named_parameters()) | dict(module.named_buffers())
        for name, own in (self._params | self._fixed).items():
            if name not in named or named[name].shape != own.shape:
                raise ProbeError(f"the module has no {name} of shape {tuple(own.shape)}, which the model has")
        other = object.__new__(TorchModel)
        gone = (*_DERIVED, "parameters")
        other.__dict__ = {name: value for name, value in self.__dict__.items() if name not in gone}
        with self._apart():
            other._params = {name: self._own(named[name]) for name in self._params}
            other._fixed = {name: self._own(named[name]) for name in self._fixed}
        return other

    # -- the loss -----------------------------------------------------------------------------------------------

    def loss(self) -> float:
        """Loss over all examples."""
        with self._apart(), import_torch().no_grad():
            return float(sum(w * float(self._value(batch, self._params)) for batch, w in self._tiles))

    def gradient(self) -> Tensor:
        """Gradient of the loss, ``(P,)``."""
        with self._apart():
            return weighted_sum(
                (join(self._gradient(batch, self._leaves(), create_graph=False)), w) for batch, w in self._tiles
            )

    def hvp(self, v: Tensor) -> Tensor:
        """Products of the Hessian of the loss with ``v``, ``(P,)`` or ``(k, P)``."""
        return self._rows(v, self._gradient_graphs, lambda graph, row: graph.product(row))

    def gauss_newton(self, v: Tensor) -> Tensor:
        """Products of the Gauss-Newton matrix with ``v``, ``(P,)`` or ``(k, P)``."""
        return self._rows(v, self._output_graphs, lambda graph, row: graph.vjp(graph.bend(graph.jvp(row))))

    # -- the outputs --------------------------------------------------------------------------------------------

    def outputs(self) -> Tensor:
        """Outputs of all examples, ``(N, ...)``."""
        self._require_outputs()
        with self._apart(), import_torch().no_grad():
            return self._joined([self._outputs(batch, self._params) for batch, _ in self._tiles], 0)

    def jvp(self, v: Tensor) -> Tensor:
        """Change of the outputs along ``v``: ``outputs`` for ``(P,)``, ``(k, *outputs)`` for ``(k, P)``."""
        rows, single = as_rows(v, self.size)
        with self._apart():
            made = [import_torch().stack([graph.jvp(row) for row in rows]) for graph, _ in self._output_graphs()]
            product = self._joined(made, 1)
        return product[0] if single else product

    def vjp(self, u: Tensor) -> Tensor:
        """``J^T u``: ``(P,)`` for ``u`` of shape ``outputs``, ``(k, P)`` for ``(k, *outputs)``."""
        self._require_outputs()
        rows, single = as_cotangents(u, self._output_shape)
        with self._apart():
            products, start = [], 0
            for graph, _ in self._output_graphs():
                stop = start + len(graph.outputs)
                products.append((import_torch().stack([graph.vjp(row[start:stop]) for row in rows]), 1.0))
                start = stop
            product = weighted_sum(products)
        return product[0] if single else product

    def per_example_gradients(self, chunk: int | None = None) -> Iterator[Tensor]:
        """Gradient of every example's own loss, ``(m, P)`` for at most ``chunk`` examples at a time, in order."""
        for piece in self._chunks(chunk):
            with self._apart():
                slopes = self._example_gradients(piece)
                made = import_torch().cat([g.flatten(1) for g in slopes], 1)
            yield made

    def per_example_moments(
        self, centre: Tensor, chunk: int | None = None
    ) -> tuple[Float[np.ndarray, "N B"], Float[np.ndarray, "N B"]]:
        """``|g_i - c|^2`` and ``(g_i - c) . c`` of every example's gradient in every block."""
        torch = import_torch()
        centres = [centre[place] for place in self._blocks.values()]
        squares, overlaps = [], []
        for piece in self._chunks(chunk):
            with self._apart():
                slopes = self._example_gradients(piece)
                away = [g.flatten(1).sub_(c) for g, c in zip(slopes, centres, strict=True)]
                squares.append(torch.stack([torch.linalg.vector_norm(a, dim=1) ** 2 for a in away], 1).cpu())
                overlaps.append(torch.stack([a @ c for a, c in zip(away, centres, strict=True)], 1).cpu())
        return tuple(torch.cat(parts).double().numpy() for parts in (squares, overlaps))

    def _chunks(self, chunk: int | None) -> Iterator[Batch]:
        """The examples a few at a time, for gradients of each."""
        self._require_separable("gradients of single examples")
        most = examples_together(chunk, self.size * self.dtype.itemsize, _CHUNK_BYTES, self.free_memory())
        for batch, size in zip(self._batches, self._sizes, strict=True):
            for start in range(0, size, most):
                yield take(batch, np.arange(start, min(start + most, size)))

    def _example_gradients(self, batch: Batch) -> list[Tensor]:
        """Gradients of every example by each parameter, ``(m, *shape)``."""
        torch = import_torch()
        axes = map_batch(lambda a: 0 if a.ndim else None, batch)

        def gradient(example: Batch) -> dict[str, Tensor]:
            alone = map_batch(lambda a, axis: a if axis is None else a[None], example, axes)  # a batch of one
            return torch.func.grad(lambda params: self._value(alone, params))(self._params)

        try:
            return list(torch.func.vmap(gradient, in_dims=(axes,))(batch).values())
        except RuntimeError:  # control flow that depends on values, as where attention masks are made
            ones = [take(batch, np.arange(i, i + 1)) for i in range(examples_of(batch))]
            alone = [self._gradient(one, self._leaves(), create_graph=False) for one in ones]
            return [torch.stack(slopes) for slopes in zip(*alone, strict=True)]

    # -- parts --------------------------------------------------------------------------------------------------

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Graphs as we need them, whatever the caller's modes; full precision; the caller's random state kept."""
        torch = import_torch()
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            device = getattr(self, "_device", None)
            cuda = [device] if device is not None and device.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices=cuda))
            if device is not None and device.type in ("cpu", "cuda"):
                stack.enter_context(torch.autocast(device.type, enabled=False))
            stack.enter_context(full_precision())
            yield

    def _own(self, tensor: Tensor) -> Tensor:
        """A copy in the computing dtype if it is one of floating-point numbers of less than 32 bits or a parameter."""
        copy = tensor.detach().clone()
        return copy.to(self._torch_dtype) if copy.is_floating_point() and copy.dtype != self._torch_dtype else copy

    def _leaves(self) -> dict[str, Tensor]:
        return {name: p.detach().requires_grad_() for name, p in self._params.items()}

    def _outputs(self, batch: Batch, params: Mapping[str, Tensor]) -> Any:
        inputs = batch if self._loss is None else batch[0]
        args, kwargs = (), {}
        if isinstance(inputs, dict):
            kwargs = inputs
        else:
            args = inputs if isinstance(inputs, tuple) else (inputs,)
        # running statistics are written to copies
        state = {name: b.clone() if b.is_floating_point() or b.ndim == 0 else b for name, b in self._fixed.items()}
        return import_torch().func.functional_call(self._module, (dict(params), state), args, kwargs)

    def _value(self, batch: Batch, params: Mapping[str, Tensor]) -> Tensor:
        outputs = self._outputs(batch, params)
        return outputs if self._loss is None else self._loss(outputs, batch[1])

    def _gradient(self, batch: Batch, leaves: dict[str, Tensor], *, create_graph: bool) -> list[Tensor]:
        grads = import_torch().autograd.grad(
            self._value(batch, leaves), list(leaves.values()), create_graph=create_graph, allow_unused=True
        )
        return [import_torch().zeros_like(p) if g is None else g for g, p in zip(grads, leaves.values(), strict=True)]

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

    def _gradient_graphs(self) -> "Iterator[tuple[GradientGraph, float]]":
        if self._plan.hold:
            yield from self._held_gradients
        else:
            for batch, w in self._tiles:
                yield self._gradient_graph(batch), w

    def _output_graphs(self) -> "Iterator[tuple[OutputGraph, float]]":
        self._require_outputs()
        if self._plan.hold:
            yield from self._held_outputs
        else:
            for batch, w in self._tiles:
                yield self._output_graph(batch), w

    def _gradient_graph(self, batch: Batch) -> "GradientGraph":
        leaves = self._leaves()
        return GradientGraph(list(leaves.values()), self._gradient(batch, leaves, create_graph=True))

    def _output_graph(self, batch: Batch) -> "OutputGraph":
        leaves = self._leaves()
        return OutputGraph(list(leaves.values()), self._outputs(batch, leaves), self._loss, batch[1])

    @cached_property
    def _held_gradients(self) -> "list[tuple[GradientGraph, float]]":
        return [(self._gradient_graph(batch), w) for batch, w in self._tiles]

    @cached_property
    def _held_outputs(self) -> "list[tuple[OutputGraph, float]]":
        return [(self._output_graph(batch), w) for batch, w in self._tiles]

    @cached_property
    def _output_shape(self) -> tuple[int, ...]:
        return tuple(self.outputs().shape)

    def _rows(self, v: Tensor, graphs: Callable[[], Iterator[tuple[Any, float]]], product: Callable) -> Tensor:
        """Weighted sum over the tiles of each vector's products."""
        rows, single = as_rows(v, self.size)
        with self._apart():
            total = weighted_sum(
                (import_torch().stack([product(graph, row) for row in rows]), w) for graph, w in graphs()
            )
        return total[0] if single else total

    def _joined(self, parts: list[Tensor], axis: int) -> Tensor:
        if any(p.shape[axis + 1 :] != parts[0].shape[axis + 1 :] for p in parts):
            raise ProbeError("the outputs of the batches must have the same shape beside the number of examples")
        return parts[0] if len(parts) == 1 else import_torch().cat(parts, axis)

    # -- checks -------------------------------------------------------------------------------------------------

    def _check_loss(self) -> None:
        torch = import_torch()
        first = self._batches[0]
        with self._apart(), torch.no_grad():
            if self._loss is not None:
                outputs = self._first_outputs(first)
                if not isinstance(outputs, torch.Tensor):
                    raise ProbeError(
                        f"the module must return one tensor, got {type(outputs).__name__}: wrap it in a module that "
                        "does, or in one that returns the loss"
                    )
            a, b = self._value(first, self._params), self._value(first, self._params)
        if not isinstance(a, torch.Tensor) or a.ndim or not a.is_floating_point():
            found = f"shape {tuple(a.shape)}" if isinstance(a, torch.Tensor) else type(a).__name__
            raise ProbeError(f"the loss of a batch must be a scalar tensor, got {found}")
        advice = ", as with dropout in training mode: call module.eval() or remove what is random"
        check_values(float(a), float(b), self.dtype, advice)

    def _first_outputs(self, batch: Batch) -> Any:
        try:
            return self._outputs(batch, self._params)
        except RuntimeError as error:
            if "same dtype" not in str(error):
                raise
            raise ProbeError(
                f"the module does not run in {self.dtype}, in which its parameters are computed ({error}): it must not "
                "cast to a shorter format itself"
            ) from error

    def _require_outputs(self) -> None:
        if self._loss is None:
            raise ProbeError("this needs the outputs of the model: give TorchModel a module of inputs and a loss")

    def _require_separable(self, what: str) -> None:
        """That the loss of the first batch is the mean (or sum) of the losses of its examples."""
        if self._separable:
            return
        for name, part in self._module.named_modules():
            if isinstance(part, import_torch().nn.modules.batchnorm._BatchNorm) and part.training:
                raise ProbeError(
                    f"{what} cannot be taken: {name} is a {type(part).__name__} in training mode, which mixes the "
                    "examples of a batch; call module.eval()"
                )
        some = take(self._batches[0], np.arange(min(self._sizes[0], 8)))
        with self._apart(), import_torch().no_grad():
            whole = float(self._value(some, self._params))
            single = [
                float(self._value(take(some, np.arange(i, i + 1)), self._params)) for i in range(examples_of(some))
            ]
        check_separable(whole, single, self.reduction, what)
        self._separable = True

    def _bytes_per_example(self) -> float:
        """Of the graph of the gradient, measured on a few examples; each storage counts once, parameters do not."""
        torch = import_torch()
        size = min(self._sizes[0], 4)
        leaves = self._leaves()
        known = {p.untyped_storage().data_ptr() for p in leaves.values()}
        seen: dict[int, int] = {}
        kept = []  # so that no storage is used twice while we count

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                seen[storage.data_ptr()] = storage.nbytes()
                kept.append(tensor)
            return tensor

        some = take(self._batches[0], np.arange(size))
        with self._apart(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._gradient(some, leaves, create_graph=True)
        return sum(seen.values()) / size

    def free_memory(self) -> int:
        """Bytes that vectors and linearisations may take: half of what is free on the device."""
        torch = import_torch()
        free = torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else memory.free_host_memory()
        return int(memory.SHARE * free)


#: Attributes that are made from the data when first needed.
_DERIVED = ("_tiles", "_held_gradients", "_held_outputs", "_output_shape")
