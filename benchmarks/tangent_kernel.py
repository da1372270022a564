"""Empirical tangent kernels: the probe against the Jacobian contraction of torch.func and of JAX.

The work of one call is the full kernel of N inputs and ten outputs. The perceptron 784-256-256-10 (269,322 parameters)
has dense layers only, where the probe never forms the Jacobian; a small convolutional network and ResNet-20 (batch
normalisation in evaluation mode; in PyTorch) are the general case, in which it forms the Jacobian of each layer from
inputs and back-propagated gradients. torch.func runs the recipe of its documentation (vmap of jacrev of one example,
then one product for each parameter array), with one and with all threads; the JAX peer is the same recipe, compiled.
Where the recipe's Jacobian would fill more than half of the free memory it takes the inputs in the largest blocks whose
Jacobians fit two at a time. Everything is in float32.

Before the race the kernels must agree within 1e-5 of the largest entry, and the probe's must agree with the Jacobian
contraction in float64. The peak memory of each candidate is measured in a process of its own, and predicted for the
probe and the recipe. ``--full`` takes 512 inputs of the perceptron and 64 of ResNet-20 on 32 x 32 pixels: about a
minute for each call of a recipe, 12 GB, and nothing else running.
"""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import harness, networks, peak_memory
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.networks.cnn import CNN
from separatrix.networks.mlp import MLP
from separatrix.probes import memory
from separatrix.probes.tangent_kernel.jax_kernel import JaxTangentKernel
from separatrix.probes.tangent_kernel.torch_kernel import TorchTangentKernel

OURS, OURS_TORCH = "separatrix, JAX model", "separatrix, PyTorch model"
JAX, TORCH = "JAX, jacrev and product", "torch.func, jacrev and product"
ERROR = 1e-5
DENSE_GOAL, GENERAL_GOAL = 200.0, 2.0
CLASSES = 10


def perceptron(parameters: list) -> torch.nn.Module:
    """The same network in PyTorch."""
    modules: list[torch.nn.Module] = []
    for layer in parameters:
        weight, bias = (torch.from_numpy(np.array(layer[name])) for name in ("weight", "bias"))
        linear = torch.nn.Linear(*weight.shape)
        linear.load_state_dict({"weight": weight.T, "bias": bias})
        modules += [linear, torch.nn.GELU()]
    return torch.nn.Sequential(*modules[:-1])


class Convolutional(torch.nn.Module):
    """:class:`separatrix.networks.cnn.CNN` in PyTorch."""

    def __init__(self, parameters: list, side: int) -> None:
        super().__init__()
        self.side = side
        self.layers = torch.nn.ModuleList()
        for index, layer in enumerate(parameters[:-1]):
            weight = torch.from_numpy(np.array(layer["weight"])).permute(3, 2, 0, 1)
            convolution = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, 1 if index == 0 else 2, padding=1)
            convolution.load_state_dict({"weight": weight, "bias": torch.from_numpy(np.array(layer["bias"]))})
            self.layers.append(convolution)
        weight = torch.from_numpy(np.array(parameters[-1]["weight"]))
        self.head = torch.nn.Linear(*weight.shape)
        self.head.load_state_dict({"weight": weight.T, "bias": torch.from_numpy(np.array(parameters[-1]["bias"]))})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs for flat images."""
        x = x.reshape(len(x), 1, self.side, self.side)
        for layer in self.layers:
            x = torch.nn.functional.gelu(layer(x))
        return self.head(x.mean((2, 3)))


def torch_recipe(module: torch.nn.Module, x: torch.Tensor, block: int) -> Callable[[], np.ndarray]:
    """Jacobian contraction as the documentation of torch.func has it, ``block`` inputs at a time."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def one(parameters: dict, row: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, parameters, (row[None],))[0]

    def jacobian(start: int) -> list[torch.Tensor]:
        rows = x[start : start + block]
        slopes = torch.func.vmap(torch.func.jacrev(one), (None, 0))(parameters, rows)
        return [a.flatten(2).flatten(0, 1) for a in slopes.values()]

    def run() -> np.ndarray:
        kernel = torch.empty(len(x) * CLASSES, len(x) * CLASSES, dtype=x.dtype)
        for row in range(0, len(x), block):
            first = jacobian(row)
            for column in range(row, len(x), block):
                second = first if column == row else jacobian(column)
                part = sum(a @ b.T for a, b in zip(first, second, strict=True))
                at, to = CLASSES * row, CLASSES * column
                kernel[at : at + len(part), to : to + part.shape[1]] = part
                kernel[to : to + part.shape[1], at : at + len(part)] = part.T
        return kernel.numpy()

    return run


def jax_recipe(function: Callable, parameters: Any, x: jax.Array) -> Callable[[], np.ndarray]:
    """The same in JAX, compiled, all inputs at once."""

    @jax.jit
    def kernel(parameters: Any, x: jax.Array) -> jax.Array:
        slopes = jax.vmap(jax.jacrev(lambda p, row: function(p, row[None])[0]), (None, 0))(parameters, x)
        parts = (a.reshape(a.shape[0] * a.shape[1], -1) for a in jax.tree.leaves(slopes))
        return sum(a @ a.T for a in parts)

    return lambda: np.asarray(kernel(parameters, x))


@dataclass(frozen=True)
class Task:
    """The kernel of some inputs of one network.

    Attributes
    ----------
    network
        ``"perceptron"``, ``"convolutional"`` or ``"resnet"``.
    samples, size
        Number of inputs; widths of the perceptron, or the side of the images and, of ResNet, channels and depth.
    memory_bytes
        What the probe may take.
    """

    network: str
    samples: int
    size: tuple[int, ...]
    memory_bytes: int = 2**30

    @functools.cached_property
    def function(self) -> Any:
        """The network in JAX, or None."""
        if self.network == "resnet":
            return None
        return MLP(self.size) if self.network == "perceptron" else CNN((self.size[0], self.size[0]), CLASSES)

    @functools.cached_property
    def parameters(self) -> Any:
        """Of the network in JAX."""
        start = self.function.init(np.random.default_rng(0))
        return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), start)

    @functools.cached_property
    def module(self) -> torch.nn.Module:
        """The network in PyTorch."""
        if self.network == "resnet":
            with torch.random.fork_rng():
                torch.manual_seed(0)
                return networks.resnet(*self.size[1:]).eval()
        same = jax.tree.map(np.asarray, self.parameters)
        return perceptron(same) if self.network == "perceptron" else Convolutional(same, self.size[0])

    @functools.cached_property
    def inputs(self) -> np.ndarray:
        """Random ones."""
        side = self.size[0]
        shape = {"perceptron": (side,), "convolutional": (side**2,), "resnet": (3, side, side)}[self.network]
        return np.random.default_rng(1).normal(size=(self.samples, *shape)).astype(np.float32)

    @property
    def parameter_count(self) -> int:
        """P."""
        return sum(p.numel() for p in self.module.parameters())

    @property
    def recipe_bytes(self) -> int:
        """Of the recipe's Jacobian."""
        return 4 * self.samples * CLASSES * self.parameter_count

    @property
    def recipe_block(self) -> int:
        """Inputs that the recipe takes at a time."""
        free = memory.SHARE * memory.free_host_memory()
        if self.recipe_bytes <= free:
            return self.samples
        return max(1, int(self.samples * free / (2 * self.recipe_bytes)))

    @functools.cached_property
    def probe(self) -> JaxTangentKernel:
        """Ours, in JAX."""
        x = jnp.asarray(self.inputs)
        return JaxTangentKernel(self.function, self.parameters, x, memory_bytes=self.memory_bytes)

    @functools.cached_property
    def torch_probe(self) -> TorchTangentKernel:
        """Ours, in PyTorch."""
        return TorchTangentKernel(self.module, torch.from_numpy(self.inputs), memory_bytes=self.memory_bytes)

    def run(self, name: str) -> Callable[[], np.ndarray]:
        """One call of a candidate."""
        if name == OURS:
            return lambda: np.asarray(self.probe(self.parameters))
        if name == OURS_TORCH:
            return lambda: self.torch_probe().numpy()
        if name == JAX:
            return jax_recipe(self.function, self.parameters, jnp.asarray(self.inputs))
        return torch_recipe(self.module, torch.from_numpy(self.inputs), self.recipe_block)

    def precise(self, few: int) -> np.ndarray:
        """Kernel of the first inputs in float64."""
        x = torch.from_numpy(self.inputs[:few]).double()
        return torch_recipe(copy.deepcopy(self.module).double(), x, few)()


def race(title: str, task: Task, goal: float, options: Options) -> Race:
    """One race on one network."""
    final: dict[str, np.ndarray] = {}
    names = [OURS_TORCH, TORCH] if task.function is None else [OURS, OURS_TORCH, JAX, TORCH]
    if task.recipe_block < task.samples and JAX in names:
        names.remove(JAX)
    reference = names[0]

    def keep(label: str, run: Callable[[], np.ndarray]) -> None:
        final[label] = run()

    counts = harness.thread_counts()
    # tiny products lose their time in threads that wait for each other
    most = counts[0] if options.quick else counts[-1]
    candidates = [
        Candidate(name, partial(keep, name, task.run(name)), 1, prepare=partial(torch.set_num_threads, most))
        for name in names
        if name != TORCH
    ]
    for threads in counts if not (options.quick or options.full) else [most]:
        label = f"{TORCH}, {threads} thread{'s' if threads > 1 else ''}"
        recipe = partial(keep, label, task.run(TORCH))
        candidates.append(Candidate(label, recipe, 1, TORCH, partial(torch.set_num_threads, threads)))

    def check() -> dict:
        few = min(4, task.samples)
        precise = task.precise(few)
        found = {
            f"largest difference over largest entry, {name}": harness.close(name, final[reference], other, ERROR)
            for name, other in final.items()
            if name != reference
        }
        size = len(precise)
        found["the same to float64"] = harness.close("float64", precise, final[reference][:size, :size], ERROR)
        if not options.quick:
            fresh = replace(task)  # without what it has made so far, which no other process can be given
            found["peak bytes"] = {name: peak_memory.of_call(fresh.run, name) for name in names}
        return found

    ours = [name for name in names if name in (OURS, OURS_TORCH)]
    comparisons = [Comparison(name, TORCH, goal if name == ours[0] else None) for name in ours]
    comparisons += [Comparison(OURS, JAX)] if JAX in names else []
    predicted = {OURS_TORCH: task.torch_probe.predicted_bytes, TORCH: task.recipe_bytes}
    if OURS in names:
        predicted[OURS] = task.probe.predicted_bytes
    details = {"parameters": task.parameter_count, "predicted bytes": predicted, "recipe's block": task.recipe_block}
    return Race(title, "kernel", candidates, comparisons, check, details)


def races(options: Options) -> list[Race]:
    """The perceptron and the general case."""
    if options.quick:
        return [
            race("Kernel of an MLP", Task("perceptron", 8, (40, 16, 16, CLASSES)), DENSE_GOAL, options),
            race("Kernel of a ResNet", Task("resnet", 4, (8, 4, 1)), GENERAL_GOAL, options),
        ]
    samples, side, images = (512, 32, 64) if options.full else (64, 16, 32)
    mlp = Task("perceptron", samples, (784, 256, 256, CLASSES))
    resnet = Task("resnet", images, (side, 16, 3), 2**32)
    return [
        race(f"Kernel of {samples} inputs, MLP 784-256-256-10", mlp, DENSE_GOAL, options),
        race(f"Kernel of {samples} inputs, CNN on 14 x 14 pixels", Task("convolutional", samples, (14,)),
             GENERAL_GOAL, options),
        race(f"Kernel of {images} inputs, ResNet-20 on {side} x {side} pixels", resnet, GENERAL_GOAL, options),
    ]  # fmt: skip


if __name__ == "__main__":
    harness.main("tangent_kernel", __doc__, races)
