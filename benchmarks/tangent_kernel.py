"""Empirical tangent kernels: the probe against the Jacobian contraction of torch.func and of JAX.

The work of one call is the full kernel of N inputs and ten outputs. The perceptron 784-256-256-10 (269,322 parameters)
has dense layers only, where the probe never forms the Jacobian; a small convolutional network is the general case, in
which it forms the Jacobian of each layer from inputs and back-propagated gradients. torch.func runs the recipe of its
documentation (vmap of jacrev of one example, then one product for each parameter array), with one and with all threads;
the JAX peer is the same recipe, compiled. Everything is in float32.

Before the race the kernels must agree within 1e-5 of the largest entry, and the probe's must agree with the Jacobian
contraction in float64.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.networks.cnn import CNN
from separatrix.networks.mlp import MLP
from separatrix.probes.tangent_kernel.jax_kernel import JaxTangentKernel
from separatrix.probes.tangent_kernel.torch_kernel import TorchTangentKernel

OURS, OURS_TORCH = "separatrix, JAX model", "separatrix, PyTorch model"
JAX, TORCH = "JAX, jacrev and product", "torch.func, jacrev and product"
ERROR = 1e-5
GOAL = 200.0


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


def torch_recipe(module: torch.nn.Module, x: torch.Tensor) -> Callable[[], np.ndarray]:
    """Jacobian contraction as the documentation of torch.func has it."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def one(parameters: dict, row: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, parameters, (row[None],))[0]

    def run() -> np.ndarray:
        slopes = torch.func.vmap(torch.func.jacrev(one), (None, 0))(parameters, x)
        parts = (a.flatten(2).flatten(0, 1) for a in slopes.values())
        return sum(a @ a.T for a in parts).numpy()

    return run


def jax_recipe(function: Callable, parameters: Any, x: jax.Array) -> Callable[[], np.ndarray]:
    """The same in JAX, compiled."""

    @jax.jit
    def kernel(parameters: Any, x: jax.Array) -> jax.Array:
        slopes = jax.vmap(jax.jacrev(lambda p, row: function(p, row[None])[0]), (None, 0))(parameters, x)
        parts = (a.reshape(a.shape[0] * a.shape[1], -1) for a in jax.tree.leaves(slopes))
        return sum(a @ a.T for a in parts)

    return lambda: np.asarray(kernel(parameters, x))


def race(title: str, network: Any, module: Callable[[list], torch.nn.Module], samples: int, goal: float | None) -> Race:
    """One race on one network."""
    rng = np.random.default_rng(0)
    width = network.widths[0] if isinstance(network, MLP) else int(np.prod(network.image_shape))
    exact = network.init(rng)
    parameters = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), exact)
    x = rng.normal(size=(samples, width)).astype(np.float32)
    model, rows = module(jax.tree.map(np.asarray, parameters)), torch.from_numpy(x)
    probe, torch_probe = JaxTangentKernel(network, parameters, jnp.asarray(x)), TorchTangentKernel(model, rows)
    final: dict[str, np.ndarray] = {}

    def keep(name: str, run: Callable[[], Any]) -> None:
        final[name] = np.asarray(run())

    runs = {OURS: partial(probe, parameters), OURS_TORCH: torch_probe,
            JAX: jax_recipe(network, parameters, jnp.asarray(x))}  # fmt: skip
    candidates = [Candidate(name, partial(keep, name, run), 1) for name, run in runs.items()]
    for threads in harness.thread_counts():
        name = f"{TORCH}, {threads} thread{'s' if threads > 1 else ''}"
        candidates.append(
            Candidate(name, partial(keep, name, torch_recipe(model, rows)), 1, TORCH,
                      partial(torch.set_num_threads, threads))
        )  # fmt: skip

    def check() -> dict:
        few = min(8, samples)
        precise = np.asarray(jax_recipe(network, jax.tree.map(jnp.asarray, exact), jnp.asarray(x[:few], jnp.float64))())
        size = len(precise)
        return {
            f"largest difference over largest entry, {name}": harness.close(name, final[OURS], other, ERROR)
            for name, other in final.items()
            if name != OURS
        } | {"the same to float64": harness.close("float64", precise, final[OURS][:size, :size], ERROR)}

    comparisons = [Comparison(OURS, TORCH, goal), Comparison(OURS, JAX), Comparison(OURS_TORCH, TORCH)]
    details = {"parameters": sum(a.size for a in jax.tree.leaves(exact)), "predicted bytes": probe.predicted_bytes}
    return Race(title, "kernel", candidates, comparisons, check, details)


def races(options: Options) -> list[Race]:
    """The perceptron at 64 inputs, and the convolutional network; the goal is that of the former."""
    jax.config.update("jax_enable_x64", True)
    samples, widths, side = (8, (40, 16, 16, 10), 8) if options.quick else (64, (784, 256, 256, 10), 14)
    cnn = CNN((side, side), 10)
    return [
        race(f"Kernel of {samples} inputs, MLP {'-'.join(map(str, widths))}", MLP(widths), perceptron, samples, GOAL),
        race(f"Kernel of {samples} inputs, CNN on {side} x {side} pixels", cnn, partial(Convolutional, side=side),
             samples, None),
    ]  # fmt: skip


if __name__ == "__main__":
    harness.main("tangent_kernel", __doc__, races)
