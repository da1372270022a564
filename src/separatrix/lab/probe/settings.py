"""What to measure, of which model, on which data."""

from dataclasses import dataclass
from typing import Literal

from separatrix.lab.probe.kinds import KINDS
from separatrix.lab.settings import setting


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of ``separatrix probe``."""

    checkpoints: str = setting("", "folder of the checkpoints: .npz, .safetensors, .pt, .pth or Orbax folders")
    model: str = setting("", "module:function that makes the nn.Module, or is the JAX function (params, inputs)")
    data: str = setting("", ".npz file with the arrays inputs and targets")
    loss: str = setting("cross-entropy", "mean over the examples: cross-entropy, mse or module:function (outputs, targets)")  # fmt: skip  # noqa: E501
    subtree: str = setting("", "where in a checkpoint the parameters lie, keys joined by dots; everything if empty")
    probe: tuple[str, ...] = setting(("sharpness", "trace", "noise"), "what to measure", choices=tuple(KINDS))
    examples: int | None = setting(None, "number of examples used, the first ones; all if none", low=3)
    learning_rate: float | None = setting(None, "step size of gradient descent, for chaos and the edge of stability", low=0, low_open=True)  # fmt: skip  # noqa: E501
    momentum: float = setting(0.0, "its momentum", low=0, high=1, high_open=True)
    batch_size: int = setting(32, "examples of a mini-batch, for batch-sharpness and chaos", low=1)
    tolerance: float = setting(1e-3, "residual of an eigenvalue, relative to it", low=0, low_open=True)
    vectors: int = setting(32, "random vectors of trace and kernel, or mini-batches of batch-sharpness", low=2, high=100_000)  # fmt: skip  # noqa: E501
    blocks: tuple[str, ...] = setting(("none",), "groups of parameters for blocks, as NAME=REGEX, which is sought in the names of parameters")  # fmt: skip  # noqa: E501
    lanczos_vectors: int = setting(8, "random vectors of density", low=2, high=1000)
    lanczos_steps: int = setting(60, "products of density with each of them", low=2, high=1000)
    kernel_examples: int = setting(64, "most examples of the tangent kernel, the first ones", low=2)
    contraction: Literal["full", "class-trace", "sum-of-logits"] = setting("full", "which tangent kernel")
    sigma: float = setting(1e-5, "perturbation of chaos, relative to the norm of the parameters", low=0, low_open=True)
    directions: int = setting(3, "random directions of chaos", low=2, high=1000)
    chaos_steps: int = setting(100, "steps that the perturbed copies are trained on", low=1, high=1_000_000, unit="steps")  # fmt: skip  # noqa: E501
    seed: int = setting(0, "seed of all random numbers", low=0)
