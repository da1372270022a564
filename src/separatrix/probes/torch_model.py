"""The operators of a PyTorch model: any ``nn.Module``.

The module is called functionally, with copies of its parameters and buffers, so that its gradients, its buffers, its
training mode and the random state stay as they are. The graph of the gradient is built once and passed through backward
for every vector.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from separatrix.probes import memory
from separatrix.probes.operators import ProbeError, as_rows, parameter_blocks

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor
else:
    Tensor = Any

Batch = Any

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
        torch = _torch()
        if reduction not in ("mean", "sum"):
            raise ProbeError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        if not isinstance(module, torch.nn.Module):
            raise ProbeError(f"module must be an nn.Module, got {type(module).__name__}")
        named = dict(module.named_parameters())
        trained = {name: p for name, p in named.items() if p.requires_grad}
        _check_parameters(named, trained)
        _refuse_sparse(module)
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
            self._batches = _read_batches(batches, loss is not None, self._own, self._device)
        self._sizes = [_examples(batch) for batch in self._batches]
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
        return _join([p.detach() for p in self._params.values()])

    def vector(self, values: np.ndarray) -> Tensor:
        """NumPy values as a tensor on the device."""
        return _torch().from_numpy(np.ascontiguousarray(values, self.dtype)).to(self._device)

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
        return _join([a.detach().to(self._device, self._torch_dtype) for a in values])

    def subset(self, examples: Sequence[int] | np.ndarray) -> "TorchModel":
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
            joined = parts[0] if len(parts) == 1 else _map(lambda *a: _torch().cat(a) if a[0].ndim else a[0], *parts)
        except (RuntimeError, TypeError, ValueError):
            raise ProbeError("batches of different shapes cannot be joined to one mini-batch") from None
        other = object.__new__(TorchModel)
        other.__dict__ = {name: value for name, value in self.__dict__.items() if name not in _DERIVED}
        other._batches, other._sizes = [joined], [_examples(joined)]
        other._plan = memory.Plan(None, False, self._plan.needed * chosen.size // self.examples)
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
        with self._apart(), _torch().no_grad():
            return float(sum(w * float(self._value(batch, self._params)) for batch, w in self._tiles))

    def gradient(self) -> Tensor:
        """Gradient of the loss, ``(P,)``."""
        with self._apart():
            return self._sum(lambda batch: _join(self._gradient(batch, self._leaves(), create_graph=False)))

    def hvp(self, v: Tensor) -> Tensor:
        """Products of the Hessian of the loss with ``v``, ``(P,)`` or ``(k, P)``."""
        rows, single = as_rows(v, self.size)
        with self._apart():
            total = None
            for graph, w in self._gradient_graphs():
                part = _torch().stack([graph.product(row) for row in rows]) * w
                total = part if total is None else total + part
        assert total is not None
        return total[0] if single else total

    def gauss_newton(self, v: Tensor) -> Tensor:
        """Products of the Gauss-Newton matrix with ``v``, ``(P,)`` or ``(k, P)``."""
        rows, single = as_rows(v, self.size)
        with self._apart():
            total = None
            for graph, w in self._output_graphs():
                part = _torch().stack([graph.vjp(graph.bend(graph.jvp(row))) for row in rows]) * w
                total = part if total is None else total + part
        assert total is not None
        return total[0] if single else total

    # -- the outputs --------------------------------------------------------------------------------------------

    def outputs(self) -> Tensor:
        """Outputs of all examples, ``(N, ...)``."""
        self._require_outputs()
        with self._apart(), _torch().no_grad():
            return self._joined([self._outputs(batch, self._params) for batch, _ in self._tiles], 0)

    def jvp(self, v: Tensor) -> Tensor:
        """Change of the outputs along ``v``: ``outputs`` for ``(P,)``, ``(k, *outputs)`` for ``(k, P)``."""
        rows, single = as_rows(v, self.size)
        with self._apart():
            made = [_torch().stack([graph.jvp(row) for row in rows]) for graph, _ in self._output_graphs()]
            product = self._joined(made, 1)
        return product[0] if single else product

    def vjp(self, u: Tensor) -> Tensor:
        """``J^T u``: ``(P,)`` for ``u`` of shape ``outputs``, ``(k, P)`` for ``(k, *outputs)``."""
        self._require_outputs()
        shape = self._output_shape
        if tuple(u.shape) != shape and tuple(u.shape[1:]) != shape:
            raise ProbeError(f"the outputs have shape {shape}, got {tuple(u.shape)}")
        single = tuple(u.shape) == shape
        rows = u[None] if single else u
        with self._apart():
            total, start = None, 0
            for graph, _ in self._output_graphs():
                stop = start + len(graph.outputs)
                part = _torch().stack([graph.vjp(row[start:stop]) for row in rows])
                total, start = part if total is None else total + part, stop
        assert total is not None
        return total[0] if single else total

    def per_example_gradients(self, chunk: int | None = None) -> Iterator[Tensor]:
        """Gradient of every example's own loss, ``(m, P)`` for at most ``chunk`` examples at a time, in order."""
        self._require_separable("gradients of single examples")
        if chunk is None:
            by_memory = int(self.free_memory() / (4 * self.size * self.dtype.itemsize))
            chunk = max(1, min(_CHUNK_BYTES // (self.size * self.dtype.itemsize), by_memory))
        if chunk < 1:
            raise ProbeError(f"chunk must be at least 1, got {chunk}")
        for batch, size in zip(self._batches, self._sizes, strict=True):
            for start in range(0, size, chunk):
                piece = _take(batch, np.arange(start, min(start + chunk, size)))
                with self._apart():
                    made = self._example_gradients(piece)
                yield made

    def _example_gradients(self, batch: Batch) -> Tensor:
        torch = _torch()
        axes = _map(lambda a: 0 if a.ndim else None, batch)

        def gradient(example: Batch) -> Tensor:
            alone = _map(lambda a, axis: a if axis is None else a[None], example, axes)  # a batch of one
            made = torch.func.grad(lambda params: self._value(alone, params))(self._params)
            return _join(list(made.values()))

        try:
            return torch.func.vmap(gradient, in_dims=(axes,))(batch)
        except RuntimeError:  # control flow that depends on values, as where attention masks are made
            ones = [_take(batch, np.arange(i, i + 1)) for i in range(_examples(batch))]
            return torch.stack([_join(self._gradient(one, self._leaves(), create_graph=False)) for one in ones])

    # -- parts --------------------------------------------------------------------------------------------------

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Graphs as we need them, whatever the caller's modes; full precision; the caller's random state kept."""
        torch = _torch()
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
        return _torch().func.functional_call(self._module, (dict(params), state), args, kwargs)

    def _value(self, batch: Batch, params: Mapping[str, Tensor]) -> Tensor:
        outputs = self._outputs(batch, params)
        return outputs if self._loss is None else self._loss(outputs, batch[1])

    def _gradient(self, batch: Batch, leaves: dict[str, Tensor], *, create_graph: bool) -> list[Tensor]:
        grads = _torch().autograd.grad(
            self._value(batch, leaves), list(leaves.values()), create_graph=create_graph, allow_unused=True
        )
        return [_torch().zeros_like(p) if g is None else g for g, p in zip(grads, leaves.values(), strict=True)]

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

    def _gradient_graphs(self) -> "Iterator[tuple[_GradientGraph, float]]":
        if self._plan.hold:
            yield from self._held_gradients
        else:
            for batch, w in self._tiles:
                yield self._gradient_graph(batch), w

    def _output_graphs(self) -> "Iterator[tuple[_OutputGraph, float]]":
        self._require_outputs()
        if self._plan.hold:
            yield from self._held_outputs
        else:
            for batch, w in self._tiles:
                yield self._output_graph(batch), w

    def _gradient_graph(self, batch: Batch) -> "_GradientGraph":
        leaves = self._leaves()
        return _GradientGraph(list(leaves.values()), self._gradient(batch, leaves, create_graph=True))

    def _output_graph(self, batch: Batch) -> "_OutputGraph":
        leaves = self._leaves()
        return _OutputGraph(list(leaves.values()), self._outputs(batch, leaves), self._loss, batch[1])

    @cached_property
    def _held_gradients(self) -> "list[tuple[_GradientGraph, float]]":
        return [(self._gradient_graph(batch), w) for batch, w in self._tiles]

    @cached_property
    def _held_outputs(self) -> "list[tuple[_OutputGraph, float]]":
        return [(self._output_graph(batch), w) for batch, w in self._tiles]

    @cached_property
    def _output_shape(self) -> tuple[int, ...]:
        return tuple(self.outputs().shape)

    def _sum(self, product: Callable[[Batch], Tensor]) -> Tensor:
        total = None
        for batch, w in self._tiles:
            part = product(batch) * w
            total = part if total is None else total + part
        assert total is not None
        return total

    def _joined(self, parts: list[Tensor], axis: int) -> Tensor:
        if any(p.shape[axis + 1 :] != parts[0].shape[axis + 1 :] for p in parts):
            raise ProbeError("the outputs of the batches must have the same shape beside the number of examples")
        return parts[0] if len(parts) == 1 else _torch().cat(parts, axis)

    # -- checks -------------------------------------------------------------------------------------------------

    def _check_loss(self) -> None:
        torch = _torch()
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
        a, b = float(a), float(b)
        if not np.isfinite(a):
            raise ProbeError(f"the loss is {a} at these parameters: it has no derivatives to measure")
        if abs(a - b) > 100 * np.finfo(self.dtype).eps * abs(a):
            raise ProbeError(
                "the loss changes from call to call, as with dropout in training mode: call module.eval() or remove "
                "what is random"
            )

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
        reason = "as with batch statistics or another reduction"
        for name, part in self._module.named_modules():
            if isinstance(part, _torch().nn.modules.batchnorm._BatchNorm) and part.training:
                raise ProbeError(
                    f"{what} cannot be taken: {name} is a {type(part).__name__} in training mode, which mixes the "
                    "examples of a batch; call module.eval()"
                )
        some = _take(self._batches[0], np.arange(min(self._sizes[0], 8)))
        with self._apart(), _torch().no_grad():
            whole = float(self._value(some, self._params))
            single = [
                float(self._value(_take(some, np.arange(i, i + 1)), self._params)) for i in range(_examples(some))
            ]
        expected = float(np.mean(single)) if self.reduction == "mean" else float(np.sum(single))
        if not abs(whole - expected) <= 1e-3 * max(abs(whole), float(np.mean(np.abs(single)))):
            raise ProbeError(
                f"{what} cannot be taken: the loss of a batch is not the {self.reduction} of the losses of its "
                f"examples ({whole:.6g} and {expected:.6g}), {reason}"
            )
        self._separable = True

    def _bytes_per_example(self) -> float:
        """Of the graph of the gradient, measured on a few examples; each storage counts once, parameters do not."""
        torch = _torch()
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

        some = _take(self._batches[0], np.arange(size))
        with self._apart(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._gradient(some, leaves, create_graph=True)
        return sum(seen.values()) / size

    def free_memory(self) -> int:
        """Bytes that vectors and linearisations may take: half of what is free on the device."""
        torch = _torch()
        free = torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else memory.free_host_memory()
        return int(memory.SHARE * free)


#: Attributes that are made from the data when first needed.
_DERIVED = ("_tiles", "_held_gradients", "_held_outputs", "_output_shape")


class _GradientGraph:
    """The gradient of the loss of one tile as a function of the parameters."""

    def __init__(self, leaves: list[Tensor], gradient: list[Tensor]) -> None:
        self.leaves = leaves
        # a gradient that depends on no parameter (a loss linear in it) has no graph and no curvature
        self.gradient, self.places = [g for g in gradient if g.requires_grad], []
        start = 0
        for g in gradient:
            if g.requires_grad:
                self.places.append(slice(start, start + g.numel()))
            start += g.numel()

    def product(self, v: Tensor) -> Tensor:
        if not self.gradient:
            return _torch().zeros_like(v)
        directions = [v[place].reshape(g.shape) for place, g in zip(self.places, self.gradient, strict=True)]
        made = _torch().autograd.grad(self.gradient, self.leaves, directions, retain_graph=True, allow_unused=True)
        return _join([_torch().zeros_like(p) if g is None else g for g, p in zip(made, self.leaves, strict=True)])


class _OutputGraph:
    """The outputs of one tile as a function of the parameters, and their loss as a function of the outputs."""

    def __init__(self, leaves: list[Tensor], outputs: Tensor, loss: Callable | None, targets: Any) -> None:
        torch = _torch()
        self.leaves, self.outputs = leaves, outputs
        self._place = [0, *np.cumsum([p.numel() for p in leaves]).tolist()]
        # J v is the derivative of v . J^T u by u: backward alone serves, which more operations support than forward
        self._dual = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(outputs, leaves, self._dual, create_graph=True, allow_unused=True)
        self._pulled = [(i, g) for i, g in enumerate(pulled) if g is not None and g.requires_grad]
        point = outputs.detach().requires_grad_()
        assert loss is not None
        (slope,) = torch.autograd.grad(loss(point, targets), point, create_graph=True)
        self._point, self._slope = point, slope

    def jvp(self, v: Tensor) -> Tensor:
        directions = [v[self._place[i] : self._place[i + 1]].reshape(self.leaves[i].shape) for i, _ in self._pulled]
        (made,) = _torch().autograd.grad([g for _, g in self._pulled], self._dual, directions, retain_graph=True)
        return made

    def bend(self, change: Tensor) -> Tensor:
        """Hessian of the loss by the outputs times a change of the outputs."""
        if not self._slope.requires_grad:
            return _torch().zeros_like(change)
        (made,) = _torch().autograd.grad(self._slope, self._point, change, retain_graph=True)
        return made

    def vjp(self, u: Tensor) -> Tensor:
        made = _torch().autograd.grad(self.outputs, self.leaves, u, retain_graph=True, allow_unused=True)
        return _join([_torch().zeros_like(p) if g is None else g for g, p in zip(made, self.leaves, strict=True)])


# -- reading the module and data ------------------------------------------------------------------------------------


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError("reading a PyTorch model needs PyTorch: pip install separatrix[torch]") from error
    return torch


@contextmanager
def full_precision() -> Iterator[None]:
    """No products in short formats, attention in a form that has second derivatives, and nothing compiled."""
    torch = _torch()
    products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with _plain_attention(), _nothing_compiled():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions


def _plain_attention() -> Any:
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:  # before PyTorch 2.3
        return nullcontext()
    return sdpa_kernel(SDPBackend.MATH)


def _nothing_compiled() -> Any:
    # since PyTorch 2.6; the compiler is slow to import, and where it is not imported nothing is compiled
    known = "torch._dynamo" in sys.modules and hasattr(_torch().compiler, "set_stance")
    return _torch().compiler.set_stance("force_eager") if known else nullcontext()


def _check_parameters(named: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> None:
    torch = _torch()
    if not trained:
        raise ProbeError("the module has no parameter with requires_grad: there is nothing to differentiate")
    for name, p in named.items():
        if isinstance(p, torch.nn.parameter.UninitializedParameter):
            raise ProbeError(f"the parameter {name} has no values yet: pass a batch through the module first")
        if p.is_complex():
            raise ProbeError(f"the parameter {name} is complex: give real and imaginary parts")
        if p.device != next(iter(named.values())).device:
            raise ProbeError(f"the parameter {name} is on {p.device}: all parameters must be on one device")


def _refuse_sparse(module: "torch.nn.Module") -> None:
    tables = _torch().nn.Embedding, _torch().nn.EmbeddingBag
    for name, part in module.named_modules():
        if isinstance(part, tables) and part.sparse and part.weight.requires_grad:
            name = name or type(part).__name__
            raise ProbeError(f"{name} has sparse gradients, which have no derivatives: make it with sparse=False")


def _read_batches(batches: Any, with_targets: bool, own: Callable, device: Any) -> list[Batch]:
    given = [batches] if isinstance(batches, (tuple, dict)) or hasattr(batches, "ndim") else list(batches)
    if not given:
        raise ProbeError("the data hold no batch")
    read = []
    for batch in given:
        if with_targets and isinstance(batch, list):  # as a DataLoader collates
            batch = tuple(batch)
        if with_targets and (not isinstance(batch, tuple) or len(batch) != 2):
            raise ProbeError(f"a batch must be a tuple (inputs, targets), got {type(batch).__name__}")
        tensors = _map(lambda a: _as_tensor(a, own, device), batch)
        sizes = {a.shape[0] for a in _tensors(tensors) if a.ndim}
        if len(sizes) != 1 or 0 in sizes:
            raise ProbeError(
                f"all tensors of a batch must have the same positive number of examples, got {sorted(sizes)}"
            )
        read.append(tensors)
    return read


def _as_tensor(value: Any, own: Callable, device: Any) -> Any:
    torch = _torch()
    if not isinstance(value, torch.Tensor):
        if not isinstance(value, (np.ndarray, np.generic, int, float)):
            raise ProbeError(f"a batch must be made of tensors or arrays, got {type(value).__name__}")
        value = torch.as_tensor(np.array(value))
        return own(value.to(device))
    value = value.detach().to(device)
    narrow = value.is_floating_point() and value.dtype.itemsize < 4
    return own(value) if narrow else value


def _map(function: Callable, *batches: Any) -> Any:
    first = batches[0]
    if isinstance(first, dict):
        return {name: _map(function, *(b[name] for b in batches)) for name in first}
    if isinstance(first, (tuple, list)):
        return type(first)(_map(function, *parts) for parts in zip(*batches, strict=True))
    return function(*batches)


def _tensors(batch: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _map(found.append, batch)
    return found


def _examples(batch: Batch) -> int:
    return next(a.shape[0] for a in _tensors(batch) if a.ndim)


def _take(batch: Batch, index: np.ndarray) -> Batch:
    if len(index) and index[-1] - index[0] == len(index) - 1 and np.all(np.diff(index) == 1):
        return _map(lambda a: a[int(index[0]) : int(index[-1]) + 1] if a.ndim else a, batch)
    chosen = _torch().as_tensor(index)
    return _map(lambda a: a[chosen.to(a.device)] if a.ndim else a, batch)


def _join(tensors: list[Tensor]) -> Tensor:
    return _torch().cat([a.reshape(-1) for a in tensors])
