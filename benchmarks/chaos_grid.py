"""The grid of amplifications A(t0, T): all copies in one launch against one compiled run for each, and PyTorch.

Digits, perceptron 64 - 6 x 64 - 10 with GELU, SGD with momentum, batch 64, float64. Ours
(:func:`separatrix.probes.chaos.copies.separate`) trains reference runs and all copies side by side in one compiled
program. The first peer trains every copy alone, from the stored state of its run, in a program that is compiled once
and loops over the steps inside. The second trains one copy in PyTorch, as published code does, one step at a time; its
time is that of a single cell. The unit is one step of one copy, and the reference runs are part of our time.
"""

import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.datasets.multiclass import load_classes, split_classes
from separatrix.networks.mlp import MLP
from separatrix.probes.chaos.copies import separate
from separatrix.probes.chaos.perturbation import perturbed, random_direction
from separatrix.systems.training_phases.training import (
    BatchOrder,
    MomentumStep,
    fresh_states,
    train,
    training_arguments,
)

OURS, ALONE, TORCH = "separatrix, whole grid", "JAX, one run for each cell", "PyTorch, one cell"
RUNS = 4
SIGMA, RATE, MOMENTUM, DECAY = 1e-6, 0.05, 0.9, 1e-4


class Grid:
    """Runs, their perturbed copies, and three ways to train them."""

    def __init__(self, steps: int, spawns: list[int], width: int) -> None:
        data = split_classes(load_classes("digits"), 0.2, 0)
        self.steps, self.spawns = steps, spawns
        self.net = MLP((64, *(width,) * 6, 10))
        self.step = MomentumStep(self.net)
        self.arguments = training_arguments(data.inputs, data.labels, RATE, MOMENTUM, DECAY)
        self.order = BatchOrder(0, "batches", len(data.labels), 64)
        self.members = list(range(RUNS))
        self.state = fresh_states(self.net, 0, "start", self.members)
        self.course = train(self.step, self.state, self.order, self.members, [*spawns], self.arguments)
        self.all_batches = self.order(self.members, 0, steps)
        self._loop = jax.jit(self._one_run)
        self._placed = jax.device_put(self.arguments)

    @property
    def copy_steps(self) -> int:
        """Steps of all copies together."""
        return RUNS * sum(self.steps - spawn for spawn in self.spawns)

    def _spawn(self, step: int, parameters):
        rows = []
        for row in range(RUNS):
            one = jax.tree.map(lambda leaf, r=row: leaf[r], parameters)
            rows.append(perturbed(one, random_direction(np.random.default_rng([row, step]), one), SIGMA))
        return jax.tree.map(lambda *leaves: np.stack(leaves)[:, None], *rows)

    def ours(self) -> np.ndarray:
        """Distances at T, ``(runs, spawns)``."""
        batches = lambda begin, end: self.all_batches[:, begin:end]  # noqa: E731
        found = separate(self.step, self.state, batches, self.spawns, [self.steps], self._spawn, (self.arguments,))
        self.final = jax.tree.map(lambda leaf: leaf[:, 0], found.final)
        return found.distance[:, 0, :, 0]

    def _one_run(self, state, batches, begin, end, arguments):
        return jax.lax.fori_loop(begin, end, lambda t, s: self.step(s, batches[t], arguments), state)

    def _cell(self, row: int, spawn: int):
        parameters, velocity = self.course.at(spawn)
        copies = self._spawn(spawn, parameters)
        pick = lambda tree: jax.tree.map(lambda leaf: leaf[row], tree)  # noqa: E731
        return jax.tree.map(lambda leaf: leaf[row, 0], copies), pick(velocity)

    def alone(self) -> list:
        """Parameters at T of each copy, trained one after the other."""
        return [
            jax.block_until_ready(
                self._loop(self._cell(row, spawn), self.all_batches[row], spawn, self.steps, self._placed)
            )[0]
            for row in range(RUNS)
            for spawn in self.spawns
        ]

    def torch_cell(self) -> list[np.ndarray]:
        """Parameters at T of the copy of the first run spawned last, in PyTorch."""
        import torch

        spawn = self.spawns[-1]
        parameters, velocity = self._cell(0, spawn)
        layers = []
        for layer in parameters:
            linear = torch.nn.Linear(*layer["weight"].shape, dtype=torch.float64)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(layer["weight"].T.copy()))
                linear.bias.copy_(torch.from_numpy(layer["bias"].copy()))
            layers += [linear, torch.nn.GELU()]
        model = torch.nn.Sequential(*layers[:-1])
        optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
        for module, old in zip(layers[::2], velocity, strict=True):
            optimizer.state[module.weight]["momentum_buffer"] = torch.from_numpy(old["weight"].T.copy())
            optimizer.state[module.bias]["momentum_buffer"] = torch.from_numpy(old["bias"].copy())
        inputs = torch.from_numpy(self.arguments["inputs"])
        labels = torch.from_numpy(self.arguments["labels"].astype(np.int64))
        for batch in self.all_batches[0, spawn:]:
            chosen = torch.from_numpy(batch.astype(np.int64))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()
        with torch.no_grad():
            return [module.weight.numpy().T.copy() for module in layers[::2]]


def races(options: Options) -> list[Race]:
    """The grid of the default study, or a small one."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", len(harness.thread_counts()))
    steps, spawns, width = (60, [0, 20, 40], 16) if options.quick else (400, [0, 100, 200, 300], 64)
    grid = Grid(steps, spawns, width)

    def check() -> dict:
        """All ways reach the same parameters from the last spawn step, where chaos has not yet amplified rounding."""
        grid.ours()
        last = [leaf[0, -1] for leaf in jax.tree.leaves(grid.final)]
        alone = jax.tree.leaves(grid.alone()[len(spawns) - 1])
        found = {"one run for each cell": max(map(_distance, last, alone))}
        if importlib.util.find_spec("torch"):
            weights = [leaf for leaf in last if leaf.ndim == 2]
            found["PyTorch"] = max(map(_distance, weights, grid.torch_cell()))
        for words, value in found.items():
            harness.agree(words, 0.0, value, 1e-6)
        return {"largest relative distances": found}

    candidates = [Candidate(OURS, grid.ours, grid.copy_steps), Candidate(ALONE, grid.alone, grid.copy_steps)]
    comparisons = [Comparison(OURS, ALONE, 2.0)]
    if importlib.util.find_spec("torch"):
        import torch

        def threads(count: int) -> Callable[[], object]:
            return lambda: torch.set_num_threads(count)

        for count in harness.thread_counts():
            words = f"PyTorch loop, {count} thread{'s' if count > 1 else ''}"
            candidates.append(Candidate(words, grid.torch_cell, steps - spawns[-1], TORCH, threads(count)))
        comparisons.append(Comparison(OURS, TORCH, 2.0))
    title = f"Amplifications of {RUNS} runs and {len(spawns)} spawn steps, T = {steps}, width {width}"
    return [Race(title, "step of a copy", candidates, comparisons, check, {"copies": RUNS * len(spawns)})]


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    scale = float(jnp.linalg.norm(jnp.asarray(first))) or 1.0
    return float(np.linalg.norm(np.asarray(first) - np.asarray(second))) / scale


if __name__ == "__main__":
    harness.main("chaos_grid", __doc__, races)
