"""The exact tangent kernel of a PyTorch module.

Layers that act once (linear, convolutional, embedding, normalisation) give the Jacobian of their weights as inputs and
back-propagated gradients, recorded by hooks during one forward and C backward passes over all examples; everything else
is differentiated example by example. The module is left as it is: its parameters, gradients, buffers, mode and hooks.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from separatrix.probes.operators import ProbeError
from separatrix.probes.tangent_kernel.blocks import checked_shape, from_blocks, refuse_unknown, with_other_half
from separatrix.probes.tangent_kernel.contraction import Contraction, block_of_examples, contract
from separatrix.probes.tangent_kernel.torch_layers import (
    applies_a_matrix,
    gradients_as_rows,
    inputs_as_rows,
    scale_and_shift,
    scales,
)
from separatrix.probes.torch_graphs import full_precision

if TYPE_CHECKING:
    import torch

#: Share by which the kernel may miss an independent derivative before layers are given up.
_TOLERANCE = {4: 1e-3, 8: 1e-9}


@dataclass
class _Record:
    """What passed through a layer in one forward pass."""

    calls: int = 0
    seen: Any = None
    put_out: Any = None


@dataclass(frozen=True)
class _Jacobian:
    """Jacobian of a block of examples: layers as (inputs, gradients), the rest as it is."""

    layers: list[tuple[Any, Any]] = field(default_factory=list)
    rest: list[Any] = field(default_factory=list)


class TorchTangentKernel:
    """``K = J J^T`` of a module on fixed examples, at its parameters of the moment.

    Rows are ordered by example, then by output. Parameters are those with ``requires_grad``; a tied one counts once.

    Parameters
    ----------
    module
        Maps a batch to outputs ``(N, C)``, on any device. Parameters of less than 32 bits are computed in float32.
    inputs
        Tensor with the examples along the first axis, on the module's device.
    contraction
        Which kernel; see :data:`~separatrix.probes.tangent_kernel.contraction.Contraction`.
    memory_bytes
        Bound of the memory for the kernel and what it is made from; examples are taken in blocks that fit.

    Attributes
    ----------
    samples, outputs
        N and C.
    block, predicted_bytes
        Examples taken together, and the memory that this takes.

    Raises
    ------
    ProbeError
        If there are fewer than two examples or no trained parameter; batch norm or dropout is in training mode; outputs
        are not ``(N, C)`` or not finite, or depend on the other examples; or the memory does not suffice: one sentence.
    ImportError
        If PyTorch is not installed.
    """

    def __init__(
        self,
        module: "torch.nn.Module",
        inputs: "torch.Tensor",
        *,
        contraction: Contraction = "full",
        memory_bytes: int = 2**30,
    ) -> None:
        import torch

        refuse_unknown(contraction)
        self.contraction: Contraction = contraction
        self._module = module
        if not any(p.requires_grad for p in module.parameters()):
            raise ProbeError("the module has no parameter with requires_grad")
        for name, part in module.named_modules():
            if part.training and isinstance(part, torch.nn.modules.batchnorm._NormBase):
                raise ProbeError(f"{name or 'the module'} normalises over the batch, so that an example has no tangent kernel: call eval() first")  # fmt: skip  # noqa: E501
            if part.training and isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.p > 0:
                raise ProbeError(f"{name or 'the module'} drops units at random: call eval() first")
        if not isinstance(inputs, torch.Tensor):
            raise ProbeError(
                f"inputs must be one tensor, got {type(inputs).__name__}: wrap the module in one of a single input, or "
                "take kernel_products of a TorchModel"
            )
        module = self._exact_module()
        self._inputs = inputs.detach()
        dtype = next(p.dtype for p in module.parameters() if p.requires_grad)
        if self._inputs.is_floating_point():
            self._inputs = self._inputs.to(dtype)
        with torch.no_grad():
            outputs = [module(x) for x in (self._inputs, self._inputs, with_other_half(self._inputs))]
        self.samples, self.outputs = checked_shape(*(one.cpu() for one in outputs))
        self._layers = self._find_layers(module)
        self._agreed = False
        self._plan_blocks(module, dtype.itemsize, memory_bytes)

    def __call__(self) -> "torch.Tensor":
        """Kernel at the module's parameters: ``(N C, N C)``, or ``(N, N)`` if it is contracted over outputs."""
        import torch

        with full_precision():
            return torch.as_tensor(self._checked_kernel(), device=self._inputs.device)

    def _checked_kernel(self) -> np.ndarray:
        module = self._exact_module()
        kernel = self._kernel(module)
        if not self._agreed:
            # v^T K v = |J^T v|^2, by one backward pass through the whole model
            if not self._agrees(module, kernel):
                self._layers = {}  # a weight is used outside its layer as well
                kernel = self._kernel(module)
                if not self._agrees(module, kernel):
                    raise ProbeError(
                        "the outputs of the module have no derivatives that can be taken example by example"
                    )
            self._agreed = True
        return kernel

    # -- the model ------------------------------------------------------------------------------------------------

    def _exact_module(self) -> "torch.nn.Module":
        """The module itself, or a copy in float32 if its parameters have fewer bits."""
        if all(p.dtype.itemsize >= 4 for p in self._module.parameters()):
            return self._module
        return copy.deepcopy(self._module).float()

    def _find_layers(self, module: "torch.nn.Module") -> dict[str, tuple[int, int, int]]:
        """Names of the layers that act once on all examples and own their weight, with (T, d_in, d_out).

        A normalisation counts as one number at each of its entries.
        """
        import torch

        owners: dict[int, int] = {}
        for part in module.modules():
            for p in part.parameters(recurse=False):
                owners[id(p)] = owners.get(id(p), 0) + 1
        with self._recorded(module, None) as records, torch.no_grad():
            module(self._inputs[:2])
        layers = {}
        for name, record in records.items():
            part = module.get_submodule(name)
            own = dict(part.named_parameters(recurse=False))  # not those of a parametrisation
            if record.calls != 1 or "weight" not in own or not len(record.seen) == len(record.put_out) == 2:
                continue
            if not all(p.requires_grad and owners[id(p)] == 1 for p in own.values()):
                continue
            if scales(part):
                layers[name] = record.put_out[0].numel(), 1, 1
            else:
                seen = inputs_as_rows(part, record.seen)
                layers[name] = seen.shape[1], seen.shape[2], own["weight"].numel() // seen.shape[2]
        return layers

    @contextmanager
    def _recorded(self, module: "torch.nn.Module", names: Any) -> "Iterator[dict[str, _Record]]":
        """Record what passes through the layers that can be read (those of these names, or all)."""
        records: dict[str, _Record] = {}
        handles = []

        def listen(name: str) -> Callable[..., Any]:
            def hook(_: Any, operands: tuple, put_out: Any) -> Any:
                record = records[name]
                record.calls += 1
                record.seen, record.put_out = operands[0].detach(), put_out
                # an activation that works in place would overwrite what was put out
                return put_out.clone() if put_out.requires_grad else None

            return hook

        for name, part in module.named_modules():
            if (applies_a_matrix(part) or scales(part)) and (names is None or name in names):
                records[name] = _Record()
                handles.append(part.register_forward_hook(listen(name)))
        try:
            yield records
        finally:
            for handle in handles:
                handle.remove()

    def _plan_blocks(self, module: "torch.nn.Module", itemsize: int, memory_bytes: int) -> None:
        differentiated = 1 if self.contraction == "sum-of-logits" else self.outputs
        total = sum(p.numel() for p in module.parameters() if p.requires_grad)
        matrices = [name for name in self._layers if not scales(module.get_submodule(name))]
        rest = total - sum(math.prod(self._layers[name][1:]) for name in matrices)
        self.block, self.predicted_bytes = block_of_examples(
            self.samples, self.outputs, differentiated, list(self._layers.values()), rest, max(itemsize, 4),
            memory_bytes, self.contraction == "class-trace",
        )  # fmt: skip

    # -- the kernel -------------------------------------------------------------------------------------------------

    def _kernel(self, module: "torch.nn.Module") -> np.ndarray:
        return from_blocks(
            self.samples, self.block, lambda start: self._jacobian(module, self._inputs[start : start + self.block]),
            self._pair,
        )  # fmt: skip

    def _pair(self, first: _Jacobian, second: _Jacobian) -> np.ndarray:
        trace_only = self.contraction == "class-trace"
        part = contract(
            list(zip(first.layers, second.layers, strict=True)), list(zip(first.rest, second.rest, strict=True)),
            trace_only,
        )  # fmt: skip
        part = part / self.outputs if trace_only else part.reshape(part.shape[0] * part.shape[1], -1)
        return part.cpu().numpy()

    def _projected(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """The outputs, or their sum over the root of their number."""
        return (
            outputs.sum(-1, keepdim=True) / math.sqrt(self.outputs) if self.contraction == "sum-of-logits" else outputs
        )

    def _jacobian(self, module: "torch.nn.Module", inputs: "torch.Tensor") -> _Jacobian:
        import torch

        found, covered = _Jacobian(), set()
        with self._recorded(module, self._layers) as records, torch.enable_grad():
            outputs = self._projected(module(inputs))
        if records:
            put_out = [record.put_out for record in records.values()]
            slopes = [
                torch.autograd.grad(outputs[:, c].sum(), put_out, retain_graph=True, allow_unused=True)
                for c in range(outputs.shape[1])
            ]
            for k, (name, record) in enumerate(records.items()):
                part = module.get_submodule(name)
                covered |= {f"{name}.{p}".lstrip(".") for p, _ in part.named_parameters(recurse=False)}
                gradients = torch.stack([torch.zeros_like(put_out[k]) if s[k] is None else s[k] for s in slopes], 1)
                if scales(part):
                    found.rest.extend(scale_and_shift(part, record.seen, gradients))
                    continue
                gradients = gradients_as_rows(part, gradients)
                found.layers.append((inputs_as_rows(part, record.seen), gradients))
                if getattr(part, "bias", None) is not None:
                    found.rest.append(gradients.sum(2))
        found.rest.extend(self._example_by_example(module, inputs, covered))
        return found

    def _example_by_example(self, module: "torch.nn.Module", inputs: "torch.Tensor", covered: set[str]) -> list[Any]:
        import torch

        named = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad and name not in covered}
        if not named:
            return []

        def one(parameters: dict[str, Any], x: Any) -> Any:
            return self._projected(torch.func.functional_call(module, parameters, (x[None],))[0])

        try:
            slopes = torch.func.vmap(torch.func.jacrev(one), (None, 0))(named, inputs)
        except RuntimeError:  # control flow that depends on values, as where attention masks are made
            alone = [torch.func.jacrev(one)(named, x) for x in inputs]
            slopes = {name: torch.stack([each[name] for each in alone]) for name in named}
        return [a.detach().reshape(a.shape[0], a.shape[1], -1) for a in slopes.values()]

    def _agrees(self, module: "torch.nn.Module", kernel: np.ndarray) -> bool:
        import torch

        if self.contraction == "class-trace":
            # the diagonal of one example is what a backward pass for each output gives
            rows = self._inputs[:1]
            with torch.enable_grad():
                outputs = module(rows)
            parts = [_squared(outputs[0, c], module) for c in range(self.outputs)]
            expected, found = sum(parts) / self.outputs, float(kernel[0, 0])
        else:
            signs = np.random.default_rng(0).choice([-1.0, 1.0], size=len(kernel))
            with torch.enable_grad():
                outputs = self._projected(module(self._inputs)).reshape(-1)
                expected = _squared(
                    outputs @ torch.as_tensor(signs, dtype=outputs.dtype, device=outputs.device), module
                )
            found = float(signs @ kernel.astype(np.float64) @ signs)
        return abs(found - expected) <= _TOLERANCE[kernel.dtype.itemsize] * max(abs(expected), abs(found))


def _squared(value: "torch.Tensor", module: "torch.nn.Module") -> float:
    """Squared length of the gradient of ``value``."""
    import torch

    trained = [p for p in module.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
    return float(sum(torch.sum(s.double() ** 2) for s in slopes if s is not None))
