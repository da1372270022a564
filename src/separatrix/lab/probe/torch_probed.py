"""A PyTorch module as the probes of the command line see it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from separatrix.probes.chaos.measure import Chaos
from separatrix.probes.chaos.torch_copies import measure_torch_chaos
from separatrix.probes.operators import ProbeError
from separatrix.probes.tangent_kernel.torch_kernel import TorchTangentKernel
from separatrix.probes.torch_model import TorchModel

if TYPE_CHECKING:
    from separatrix.lab.probe.settings import ProbeSettings


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """As PyTorch's, with the classes along the last axis where that is what the targets ask for (tokens)."""
    if outputs.shape[:-1] == targets.shape:
        outputs = outputs.movedim(-1, 1)
    return nn.functional.cross_entropy(outputs, targets)


_LOSSES = {"cross-entropy": cross_entropy, "mse": nn.functional.mse_loss}


class TorchProbed:
    """An ``nn.Module`` with data and a loss (:class:`.Model`), in evaluation mode unless it is trained.

    Parameters
    ----------
    make
        Makes the module; one of less than 32 bits is computed in float32.
    name
        Of ``make``, for sentences.
    data
        Inputs and targets; floating-point ones are computed in the type of the module.
    loss
        By name, or ``(outputs, targets) -> mean over the examples``.

    Raises
    ------
    ProbeError
        If nothing can be made, or what is made is no module or has no parameters.
    """

    def __init__(self, make: Callable, name: str, data: tuple[np.ndarray, np.ndarray], loss: str | Callable) -> None:
        try:
            module = make()
        except Exception as error:
            raise ProbeError(f"{name} cannot be called ({type(error).__name__}: {error})") from None
        if not isinstance(module, nn.Module):
            raise ProbeError(f"{name} must make an nn.Module, got {type(module).__name__}")
        types = {p.dtype for p in module.parameters()}
        if not types:
            raise ProbeError(f"the module that {name} makes has no parameters")
        self._module = (module.float() if any(dtype.itemsize < 4 for dtype in types) else module).eval()
        dtype = next(self._module.parameters()).dtype
        self._inputs, self._targets = (_in(torch.tensor(a), dtype) for a in data)
        self._loss = _LOSSES[loss] if isinstance(loss, str) else loss

    def load(self, tree: Any) -> dict[str, Tensor]:
        """Tensors by name, as the module holds them."""
        tensors = {name: _tensor(a) for name, a in tree.items()}
        try:
            self._module.load_state_dict(tensors)
        except RuntimeError as error:
            raise ProbeError(f"it does not fit the module: {' '.join(str(error).split())}") from None
        return {name: a.detach().clone() for name, a in self._module.state_dict().items()}

    def finite(self, parameters: dict[str, Tensor]) -> bool:
        """Whether all parameters and the loss are finite."""
        if not all(bool(torch.isfinite(a).all()) for a in parameters.values()):
            return False
        with torch.no_grad():
            return bool(np.isfinite(self.loss(self._at(parameters)(self._inputs))))

    def operators(self, parameters: dict[str, Tensor], examples: int | None = None) -> TorchModel:
        """Derivatives at these parameters, on the first examples or all."""
        return TorchModel(self._at(parameters), (self._inputs[:examples], self._targets[:examples]), self._loss)

    def outputs(self, parameters: dict[str, Tensor]) -> Tensor:
        """Outputs of all examples; batch normalisation uses the statistics of their units at these parameters."""
        module = copy.deepcopy(self._at(parameters))
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.train()
        with torch.no_grad():
            return module(self._inputs)

    def loss(self, outputs: Tensor) -> float:
        """Loss of the outputs of all examples."""
        return float(self._loss(outputs, self._targets))

    def example_losses(self, outputs: Tensor) -> Float[np.ndarray, " N"]:
        """Loss of each example."""
        pairs = zip(outputs.split(1), self._targets.split(1), strict=True)
        return np.array([float(self._loss(z, y)) for z, y in pairs])

    @property
    def targets(self) -> np.ndarray:
        """Of all examples."""
        return self._targets.numpy()

    def tangent_kernel(
        self, parameters: dict[str, Tensor], examples: int, contraction: Any, memory_bytes: int
    ) -> Callable[[], Float[np.ndarray, "n n"]]:
        """What computes the exact tangent kernel of the first examples."""
        kernel = TorchTangentKernel(
            self._at(parameters), self._inputs[:examples], contraction=contraction, memory_bytes=memory_bytes
        )
        return lambda: kernel().cpu().numpy()

    def chaos(
        self, parameters: dict[str, Tensor], batches: Int[np.ndarray, "T B"], records: int, s: ProbeSettings
    ) -> Chaos:
        """Perturbed copies, in training mode; dropout draws the same numbers in all of them."""
        assert s.learning_rate is not None
        module = copy.deepcopy(self._at(parameters)).train()
        trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, s.learning_rate, momentum=s.momentum)

        def value(module: nn.Module, batch: tuple[int, Tensor]) -> Tensor:
            number, examples = batch
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(number)
                return self._loss(module(self._inputs[examples]), self._targets[examples])

        def step(module: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[int, Tensor]) -> None:
            optimizer.zero_grad()
            value(module, batch).backward()
            optimizer.step()

        numbered = list(enumerate(map(torch.from_numpy, batches)))
        return measure_torch_chaos(
            step, module, optimizer, numbered, loss=value, sigma=s.sigma, directions=s.directions, records=records,
            seed=s.seed,
        )  # fmt: skip

    def _at(self, parameters: dict[str, Tensor]) -> nn.Module:
        self._module.load_state_dict(parameters)
        return self._module


def _tensor(array: Any) -> Tensor:
    if isinstance(array, Tensor):
        return array
    array = np.asarray(array)
    return torch.tensor(array.astype(np.float32) if array.dtype.name == "bfloat16" else array)


def _in(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
