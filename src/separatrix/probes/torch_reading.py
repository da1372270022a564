"""Parameters and batches of a PyTorch model: what is differentiated, and which examples there are."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from separatrix.probes.operators import ProbeError

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor
else:
    Tensor = Any

Batch = Any


def import_torch() -> Any:
    """The package, or what to install."""
    try:
        import torch
    except ImportError as error:
        raise ImportError("reading a PyTorch model needs PyTorch: pip install separatrix[torch]") from error
    return torch


def check_parameters(named: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> None:
    """Raise ProbeError unless there are trained parameters, with values, real and on one device."""
    torch = import_torch()
    if not trained:
        raise ProbeError("the module has no parameter with requires_grad: there is nothing to differentiate")
    for name, p in named.items():
        if isinstance(p, torch.nn.parameter.UninitializedParameter):
            raise ProbeError(f"the parameter {name} has no values yet: pass a batch through the module first")
        if p.is_complex():
            raise ProbeError(f"the parameter {name} is complex: give real and imaginary parts")
        if p.device != next(iter(named.values())).device:
            raise ProbeError(f"the parameter {name} is on {p.device}: all parameters must be on one device")


def refuse_sparse(module: "torch.nn.Module") -> None:
    """Refuse embeddings whose gradients are sparse."""
    tables = import_torch().nn.Embedding, import_torch().nn.EmbeddingBag
    for name, part in module.named_modules():
        if isinstance(part, tables) and part.sparse and part.weight.requires_grad:
            name = name or type(part).__name__
            raise ProbeError(f"{name} has sparse gradients, which have no derivatives: make it with sparse=False")


def read_batches(batches: Any, with_targets: bool, own: Callable, device: Any) -> list[Batch]:
    """The batches as tensors on the device, ``own`` made of those of less than 32 bits."""
    given = [batches] if isinstance(batches, (tuple, dict)) or hasattr(batches, "ndim") else list(batches)
    if not given:
        raise ProbeError("the data hold no batch")
    read = []
    for batch in given:
        if with_targets and isinstance(batch, list):  # as a DataLoader collates
            batch = tuple(batch)
        if with_targets and (not isinstance(batch, tuple) or len(batch) != 2):
            raise ProbeError(f"a batch must be a tuple (inputs, targets), got {type(batch).__name__}")
        tensors = map_batch(lambda a: _as_tensor(a, own, device), batch)
        sizes = {a.shape[0] for a in _tensors(tensors) if a.ndim}
        if len(sizes) != 1 or 0 in sizes:
            raise ProbeError(
                f"all tensors of a batch must have the same positive number of examples, got {sorted(sizes)}"
            )
        read.append(tensors)
    return read


def _as_tensor(value: Any, own: Callable, device: Any) -> Any:
    torch = import_torch()
    if not isinstance(value, torch.Tensor):
        if not isinstance(value, (np.ndarray, np.generic, int, float)):
            raise ProbeError(f"a batch must be made of tensors or arrays, got {type(value).__name__}")
        value = torch.as_tensor(np.array(value))
        return own(value.to(device))
    value = value.detach().to(device)
    narrow = value.is_floating_point() and value.dtype.itemsize < 4
    return own(value) if narrow else value


def map_batch(function: Callable, *batches: Any) -> Any:
    """The function of every tensor of a batch, in its structure; of several batches together."""
    first = batches[0]
    if isinstance(first, dict):
        return {name: map_batch(function, *(b[name] for b in batches)) for name in first}
    if isinstance(first, (tuple, list)):
        return type(first)(map_batch(function, *parts) for parts in zip(*batches, strict=True))
    return function(*batches)


def _tensors(batch: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_batch(found.append, batch)
    return found


def examples_of(batch: Batch) -> int:
    """Number of examples of a batch."""
    return next(a.shape[0] for a in _tensors(batch) if a.ndim)


def take(batch: Batch, index: np.ndarray) -> Batch:
    """Some examples of a batch."""
    if len(index) and index[-1] - index[0] == len(index) - 1 and np.all(np.diff(index) == 1):
        return map_batch(lambda a: a[int(index[0]) : int(index[-1]) + 1] if a.ndim else a, batch)
    chosen = import_torch().as_tensor(index)
    return map_batch(lambda a: a[chosen.to(a.device)] if a.ndim else a, batch)


def join(tensors: list[Tensor]) -> Tensor:
    """The tensors as one vector."""
    return import_torch().cat([a.reshape(-1) for a in tensors])
