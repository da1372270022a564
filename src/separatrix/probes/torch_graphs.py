"""Graphs of the gradient and of the outputs of a PyTorch model, passed through backward for every vector."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from separatrix.probes.torch_reading import import_torch, join

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor
else:
    Tensor = Any


class GradientGraph:
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
        """The Hessian times ``v``, ``(P,)``."""
        if not self.gradient:
            return import_torch().zeros_like(v)
        directions = [v[place].reshape(g.shape) for place, g in zip(self.places, self.gradient, strict=True)]
        made = import_torch().autograd.grad(
            self.gradient, self.leaves, directions, retain_graph=True, allow_unused=True
        )
        return join([import_torch().zeros_like(p) if g is None else g for g, p in zip(made, self.leaves, strict=True)])


class OutputGraph:
    """The outputs of one tile as a function of the parameters, and their loss as a function of the outputs."""

    def __init__(self, leaves: list[Tensor], outputs: Tensor, loss: Callable | None, targets: Any) -> None:
        torch = import_torch()
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
        """Change of the outputs along ``v``."""
        directions = [v[self._place[i] : self._place[i + 1]].reshape(self.leaves[i].shape) for i, _ in self._pulled]
        (made,) = import_torch().autograd.grad([g for _, g in self._pulled], self._dual, directions, retain_graph=True)
        return made

    def bend(self, change: Tensor) -> Tensor:
        """Hessian of the loss by the outputs times a change of the outputs."""
        if not self._slope.requires_grad:
            return import_torch().zeros_like(change)
        (made,) = import_torch().autograd.grad(self._slope, self._point, change, retain_graph=True)
        return made

    def vjp(self, u: Tensor) -> Tensor:
        """``J^T u``, ``(P,)``."""
        made = import_torch().autograd.grad(self.outputs, self.leaves, u, retain_graph=True, allow_unused=True)
        return join([import_torch().zeros_like(p) if g is None else g for g, p in zip(made, self.leaves, strict=True)])


@contextmanager
def full_precision() -> Iterator[None]:
    """No products in short formats, attention in a form that has second derivatives, and nothing compiled."""
    torch = import_torch()
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
    known = "torch._dynamo" in sys.modules and hasattr(import_torch().compiler, "set_stance")
    return import_torch().compiler.set_stance("force_eager") if known else nullcontext()
