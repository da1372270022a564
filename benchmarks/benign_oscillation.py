"""Batch-1 SGD of the two-feature network over many seeds, against PyTorch.

The network of the study `benign-oscillation`: patches of dimension 400, 40 points, 10 squared-ReLU units of each output
sign, 64 seeds with data, starts and visits of their own, float32. Ours is exact in the space that training moves, inner
products with the features and the training backgrounds, one compiled program for all seeds
(:mod:`separatrix.systems.feature_learning.two_feature_network`). The peers move all weights along whole patches:

- a module and its optimiser, one seed at a time (the plain loop; plain and fused SGD),
- the same written by hand for one seed, without automatic differentiation,
- all seeds together in batched products, written by hand,
- and, so that it is not the reduction alone that races, the reduced network batched in PyTorch.
"""

from functools import partial

import jax
import numpy as np
import torch

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import evolve
from separatrix.systems.feature_learning.oscillation_map import learning_rate
from separatrix.systems.feature_learning.two_feature_network import PatchSGD, network_state, observe
from separatrix.systems.feature_learning.two_feature_task import TwoFeatureTask, gaussian_start

OURS, MODULE, HAND = "separatrix", "PyTorch module, one seed", "PyTorch by hand, one seed"
BATCHED, REDUCED = "PyTorch, seeds batched by hand", "PyTorch, reduced network, seeds batched"
WIDTH, START, STEP = 10, 0.05, 1.2
TASK = TwoFeatureTask()


class Problem:
    """Data, starts and visits of all seeds, and the candidates' first state."""

    def __init__(self, seeds: int, steps: int) -> None:
        self.seeds, self.steps = seeds, steps
        self.rate = float(learning_rate(STEP, TASK.strong_norm, WIDTH))
        self.data, self.starts = [], []
        for seed in range(seeds):
            rng = np.random.default_rng([0, seed])
            self.data.append(TASK.draw(rng))
            self.starts.append(gaussian_start(rng, WIDTH, START, TASK.weak_norm, TASK.strong_norm, TASK.dimension - 2))
        self.state = network_state(self.data, self.starts, "float32")
        self.keys = member_keys(0, "visits", 0, seeds)
        self.arguments = {
            name: np.float32(value)
            for name, value in {
                "learning_rate": self.rate, "weak_norm": TASK.weak_norm, "strong_norm": TASK.strong_norm,
                "threshold": 0.1, "decay_at": np.inf, "decay_factor": 0.1,
            }.items()
        }  # fmt: skip
        self.sgd = PatchSGD(TASK.samples)
        draw = jax.jit(self.sgd.draw)
        blocks = [np.asarray(draw(self.keys, block)) for block in range(-(-steps // self.sgd.block))]
        self.visits = np.concatenate(blocks)[:steps]
        weights = [
            np.column_stack([s.weak / TASK.weak_norm, s.strong / TASK.strong_norm, s.background]) for s in self.starts
        ]
        self.weights = torch.tensor(np.stack(weights), dtype=torch.float32)
        self.patches = torch.tensor(np.stack([self._patches(one) for one in self.data]), dtype=torch.float32)
        self.labels = torch.tensor(np.stack([one.labels for one in self.data]), dtype=torch.float32)
        self.signs = torch.cat([torch.ones(WIDTH), -torch.ones(WIDTH)])

    @staticmethod
    def _patches(data) -> np.ndarray:
        """``(N, 3, d)``, the features along the first two axes."""
        found = np.zeros((len(data.labels), 3, TASK.dimension))
        found[:, 0, 0] = data.labels * TASK.weak_norm
        found[:, 1, 1] = data.labels * data.strong * TASK.strong_norm
        found[:, 2, 2:] = data.backgrounds
        return found

    def ours(self, steps: int) -> np.ndarray:
        """Inner products with the weak feature after ``steps`` steps, ``(seeds, 2m)``."""
        records, _ = evolve(self.sgd, observe, self.state, self.keys, self.arguments, np.array([steps]))
        return records["weak_units"][0].T

    def module(self, steps: int, seed: int = 0, fused: bool = False) -> np.ndarray:
        """One seed by automatic differentiation and an optimiser, ``(2m,)``."""
        layer = torch.nn.Linear(TASK.dimension, 2 * WIDTH, bias=False)
        with torch.no_grad():
            layer.weight.copy_(self.weights[seed])
        optimizer = torch.optim.SGD(layer.parameters(), lr=self.rate, fused=fused)
        points, labels = list(self.patches[seed]), self.labels[seed].tolist()
        for i in self.visits[:steps, seed].tolist():
            hidden = torch.relu(layer(points[i])) ** 2
            loss = (labels[i] - (hidden.sum(0) @ self.signs) / WIDTH) ** 2 / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return TASK.weak_norm * layer.weight.detach()[:, 0].numpy()

    def hand(self, steps: int, seed: int = 0) -> np.ndarray:
        """One seed with the gradient written out, ``(2m,)``."""
        w, points, labels = self.weights[seed].clone(), list(self.patches[seed]), self.labels[seed].tolist()
        with torch.inference_mode():
            for i in self.visits[:steps, seed].tolist():
                hidden = torch.relu(w @ points[i].T)
                residual = labels[i] - float(self.signs @ (hidden * hidden).sum(1)) / WIDTH
                w.addmm_(hidden * self.signs[:, None], points[i], alpha=2 * self.rate / WIDTH * residual)
        return TASK.weak_norm * w[:, 0].numpy()

    def batched(self, steps: int) -> np.ndarray:
        """All seeds together, ``(seeds, 2m)``."""
        w, visits = self.weights.clone(), torch.tensor(self.visits[:steps], dtype=torch.int64)
        every = torch.arange(self.seeds)
        with torch.inference_mode():
            for i in visits:
                points, labels = self.patches[every, i], self.labels[every, i]
                hidden = torch.relu(torch.bmm(w, points.mT))
                residual = labels - (self.signs @ (hidden * hidden).sum(2).T) / WIDTH
                pull = hidden * (2 * self.rate / WIDTH * residual[:, None] * self.signs)[:, :, None]
                w.baddbmm_(pull, points)
        return TASK.weak_norm * w[:, :, 0].numpy()

    def reduced(self, steps: int) -> np.ndarray:
        """All seeds together in the reduced coordinates, ``(seeds, 2m)``."""
        first = {name: torch.tensor(np.moveaxis(value, -1, 0).copy()) for name, value in self.state.items()}
        weak, strong, background = (first[name].clone() for name in ("weak", "strong", "background"))
        gram, labels, present, every = first["gram"], first["labels"], first["present"], torch.arange(self.seeds)
        with torch.inference_mode():
            for i in torch.tensor(self.visits[:steps], dtype=torch.int64):
                y, p = labels[every, i][:, None], present[every, i][:, None]
                a, b = torch.relu(y * weak), p * torch.relu(y * strong)
                c = torch.relu(background[every, :, i])
                residual = 1 - y * ((a * a + b * b + c * c) @ self.signs)[:, None] / WIDTH
                pull = 2 * self.rate / WIDTH * residual * self.signs
                weak.addcmul_(pull * TASK.weak_norm**2, a)
                strong.addcmul_(pull * TASK.strong_norm**2, b)
                background.addcmul_((y * pull * c)[:, :, None], gram[every, i][:, None])
        return weak.numpy()


def check(problem: Problem) -> dict:
    """All candidates give the same inner products on the same visits, before rounding has grown.

    Raises
    ------
    harness.DisagreementError
        If they do not.
    """
    few, kept = 25, min(4, problem.seeds)
    ours = problem.ours(few)
    start = problem.state["weak"].T
    others = {
        BATCHED: problem.batched(few),
        REDUCED: problem.reduced(few),
        MODULE: np.stack([problem.module(few, seed) for seed in range(kept)]),
        HAND: np.stack([problem.hand(few, seed) for seed in range(kept)]),
    }
    return {
        "largest relative difference of the distance moved": {
            name: harness.close(f"units of {name}", (ours - start)[: len(other)], other - start[: len(other)], 1e-3)
            for name, other in others.items()
        },
        "distance moved": float(np.abs(ours - start).max()),
    }


def races(options: Options) -> list[Race]:
    """One race, all peers."""
    problem = Problem(8 if options.quick else 64, 60 if options.quick else 2000)
    steps, single = problem.steps, problem.steps if options.quick else 500
    work = problem.seeds * steps
    candidates = [Candidate(OURS, partial(problem.ours, steps), work)]
    for threads in harness.thread_counts():
        prepare = partial(torch.set_num_threads, threads)
        words = f"{threads} thread{'s' if threads > 1 else ''}"
        for kind, fused in (("", False), (", fused optimizer", True)):
            run = partial(problem.module, single, fused=fused)
            candidates.append(Candidate(f"{MODULE}{kind}, {words}", run, single, MODULE, prepare))
        candidates.append(Candidate(f"{HAND}, {words}", partial(problem.hand, single), single, HAND, prepare))
        candidates.append(Candidate(f"{BATCHED}, {words}", partial(problem.batched, single),
                                    problem.seeds * single, BATCHED, prepare))  # fmt: skip
        candidates.append(Candidate(f"{REDUCED}, {words}", partial(problem.reduced, single),
                                    problem.seeds * single, REDUCED, prepare))  # fmt: skip
    return [
        Race(
            f"Two-feature network, batch 1, d = {TASK.dimension}, n = {TASK.samples}, {problem.seeds} seeds",
            "seed-step",
            candidates,
            [
                Comparison(OURS, MODULE, 30.0, note="for each seed"),
                Comparison(OURS, HAND, 30.0, note="for each seed"),
                Comparison(OURS, BATCHED),
                Comparison(OURS, REDUCED),
            ],
            partial(check, problem),
            {"strong step": STEP, "steps": steps},
            lambda medians: {"seed-steps per second": {name: 1 / seconds for name, seconds in medians.items()}},
        )
    ]


if __name__ == "__main__":
    harness.main("benign_oscillation", __doc__, races)
