"""Runs of SGD until every sample is fitted: ours, many at once with per-run stopping, against loops in PyTorch.

Two tasks, the depleted-sign task with the hinge loss in both: the perceptron far above its crossover (d = 32, P =
1024, T = 100 margins, B = 4) and a lazy network (one hidden layer of 128, d = 10, P = 512, alpha = 1000, T = 100 /
alpha, B = 8). Every run has its own training set. Peers train one run after the other: (1) a module with autograd and
``torch.optim.SGD``; (2) the same updates written by hand without autograd. Both test the whole training set only after
P/2 consecutive fitted samples, then exactly, and take the step of the last move for the time, as ours does. A peer
runs in several forms (thread counts, with or without autograd) and counts with its fastest.

Before the race ours and the hand-written peer make the same steps on the same samples and must stop at the same step;
in the race itself the mean logarithms of the numbers of steps of all candidates must agree within statistical error.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.engines.counter_normals import member_keys
from separatrix.engines.minibatches import sample_numbers
from separatrix.engines.stopping_ensemble import SETTLED, StoppedIteration, run_until_settled
from separatrix.systems.feature_learning.hinge_networks import DenseNetwork
from separatrix.systems.feature_learning.hinge_training import HingeTraining
from separatrix.systems.feature_learning.noise_regimes.data import perceptron_sets, sign_sets
from separatrix.systems.feature_learning.perceptron_sgd import StoppedPerceptron

OURS, PEER = "separatrix", "PyTorch loop"
GOAL = 50.0
#: Steps whose batches a peer draws at once; drawing is then a small part of its time.
DRAWN = 4096


@dataclass
class Problem:
    """One task: what ours needs, and how PyTorch computes ``y F`` of a batch of one run and moves the weights."""

    title: str
    iteration: StoppedIteration
    shared: dict[str, np.ndarray]
    own: Callable[[int], dict[str, np.ndarray]]
    margin: float
    temperature: float
    chunk: int
    seeds: int
    make: Callable[[int, bool], Any]
    steps: dict[str, list[int]] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """P."""
        return self.iteration.samples  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def batch(self) -> int:
        """B."""
        return self.iteration.batch_size  # pyright: ignore[reportAttributeAccessIssue]

    def ours(self, runs: int) -> np.ndarray:
        """Steps of the last move of ``runs`` runs."""
        ended = run_until_settled(
            self.iteration, member_keys(7, "race", 0, runs), self.shared, self.own(runs), 10**7, self.chunk
        )
        if np.any(ended.outcome != SETTLED):
            raise harness.DisagreementError("a run was not fitted")
        return ended.steps

    def batches(self, runs: int, steps: int) -> np.ndarray:
        """The samples of our first steps, ``(steps, B, runs)``."""
        keys = member_keys(7, "race", 0, runs)
        block = 8 if isinstance(self.iteration, HingeTraining) else 1
        draw = jax.jit(jax.vmap(lambda b: sample_numbers(keys, b, block, self.batch, self.samples)))
        drawn = np.asarray(draw(jnp.arange(-(-steps // block), dtype=jnp.uint32)))
        return drawn.reshape(-1, self.batch, runs)

    def peer(self, run: int, autograd: bool, batches: np.ndarray | None = None) -> int:
        """Train one run step by step until all samples are fitted; the step of the last move."""
        model, generator = self.make(run % self.seeds, autograd), torch.Generator().manual_seed(run)
        t = last = quiet = 0
        rows = torch.empty(0)
        while True:
            k = t % DRAWN
            if k == 0:
                rows = torch.randint(self.samples, (DRAWN, self.batch), generator=generator)
            batch = rows[k] if batches is None else torch.tensor(batches[t]).long()
            t += 1
            if model.step(batch):
                last, quiet = t, 0
            else:
                quiet += self.batch
                if 2 * quiet >= self.samples:
                    if model.all_fitted():
                        return last
                    quiet = 0


class Perceptron:
    """``f = w . x / sqrt(d)`` on samples ``y x / sqrt(d)``."""

    def __init__(self, samples: np.ndarray, temperature: float, autograd: bool) -> None:
        self.x, self.temperature, self.autograd = torch.from_numpy(samples), temperature, autograd
        self.w = torch.zeros(samples.shape[1], requires_grad=autograd)
        self.optimizer = torch.optim.SGD([self.w], lr=temperature) if autograd else None

    def step(self, batch: torch.Tensor) -> bool:
        """One step; whether it moved the weights."""
        x = self.x[batch]
        if self.optimizer is not None:
            self.optimizer.zero_grad()
            loss = torch.relu(1 - x @ self.w).sum()
            moved = loss.item() > 0
            if moved:
                loss.backward()
                self.optimizer.step()
            return moved
        unfitted = x @ self.w < 1
        if not unfitted.any():
            return False
        self.w += self.temperature * x[unfitted].sum(0)
        return True

    @torch.no_grad()
    def all_fitted(self) -> bool:
        """Whether every sample is fitted."""
        return bool((self.x @ self.w >= 1).all())


class Network:
    """One hidden layer in the NTK parametrisation."""

    def __init__(self, x: np.ndarray, y: np.ndarray, weights: list[np.ndarray], alpha: float, temperature: float,
                 autograd: bool) -> None:  # fmt: skip
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)
        self.w = [torch.tensor(w, requires_grad=autograd) for w in weights]
        self.scale = [(2 / x.shape[1]) ** 0.5, weights[1].shape[0] ** -0.5]
        self.margin, self.temperature = 1 / alpha, temperature
        self.optimizer = torch.optim.SGD(self.w, lr=temperature) if autograd else None
        with torch.no_grad():
            self.initial = self.output(self.x)

    def output(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs of a batch."""
        return (torch.relu(x @ self.w[0] * self.scale[0]) @ self.w[1])[:, 0] * self.scale[1]

    def step(self, batch: torch.Tensor) -> bool:
        """One step; whether it moved the weights."""
        x, y, initial = self.x[batch], self.y[batch], self.initial[batch]
        if self.optimizer is not None:
            self.optimizer.zero_grad()
            loss = torch.relu(self.margin - y * (self.output(x) - initial)).sum()
            moved = loss.item() > 0
            if moved:
                loss.backward()
                self.optimizer.step()
            return moved
        hidden = torch.relu(x @ self.w[0] * self.scale[0])
        unfitted = y * ((hidden @ self.w[1])[:, 0] * self.scale[1] - initial) < self.margin
        if not unfitted.any():
            return False
        error = (self.temperature * self.scale[1] * y * unfitted)[:, None]
        below = (error @ self.w[1].T) * (hidden > 0) * self.scale[0]
        self.w[1] += hidden.T @ error
        self.w[0] += x.T @ below
        return True

    @torch.no_grad()
    def all_fitted(self) -> bool:
        """Whether every sample is fitted."""
        return bool((self.y * (self.output(self.x) - self.initial) >= self.margin).all())


def perceptron_problem(quick: bool) -> Problem:
    """The perceptron in the noisy regime."""
    samples, seeds, T = (128, 16, 100.0) if quick else (1024, 64, 100.0)
    sets = perceptron_sets(3, 0, seeds, samples, 32, 1.0)

    def own(runs: int) -> dict[str, np.ndarray]:
        return {
            "data_set": (np.arange(runs) % seeds).astype(np.int32),
            "temperature": np.full(runs, T, np.float32),
            "margin": np.ones(runs, np.float32),
        }

    return Problem(
        f"Perceptron, d = 32, P = {samples}, T = 100", StoppedPerceptron(samples, 4, 32), sets, own, 1.0, T, 32, seeds,
        lambda run, autograd: Perceptron(sets["samples"][run], T, autograd),
    )  # fmt: skip


def network_problem(quick: bool) -> Problem:
    """The lazy network above its crossover."""
    samples, seeds, alpha, T = (64, 16, 1e3, 0.1) if quick else (512, 64, 1e3, 0.1)
    network = DenseNetwork(1, 128)
    sets = sign_sets(3, 1, seeds, samples, 10, 10, 1.0)
    starts = np.stack([np.asarray(key) for key in member_keys(7, "start", 0, seeds)], axis=1)
    weights = [np.asarray(w) for w in network.start(tuple(jnp.asarray(key) for key in starts.T), 10)]  # pyright: ignore[reportArgumentType]

    def own(runs: int) -> dict[str, np.ndarray]:
        data_set = (np.arange(runs) % seeds).astype(np.int32)
        return {
            "data_set": data_set,
            "start_key": starts[data_set],
            "alpha": np.full(runs, alpha, np.float32),
            "temperature": np.full(runs, T, np.float32),
        }

    def make(run: int, autograd: bool) -> Network:
        rows = sets["rows"][run]
        return Network(sets["inputs"][rows], sets["labels"][rows], [w[run] for w in weights], alpha, T, autograd)

    return Problem(
        f"Lazy network, h = 128, P = {samples}, T = 100 / alpha", HingeTraining(network, samples, 8), sets, own,
        1 / alpha, T, max(2, samples // 64), seeds, make,
    )  # fmt: skip


def race(problem: Problem, options: Options) -> Race:
    """Ours and the peers on one problem."""
    runs, peer_runs = (32, 2) if options.quick else (1024, 3)

    def ours() -> None:
        problem.steps.setdefault(OURS, []).extend(problem.ours(runs).tolist())

    def peer(autograd: bool, name: str) -> None:
        done = problem.steps.setdefault(name, [])
        done.extend([problem.peer(len(done) + k, autograd) for k in range(peer_runs)])

    candidates = [Candidate(OURS, ours, runs)]
    for autograd, form in ((True, "module"), (False, "by hand")):
        for threads in harness.thread_counts():
            name = f"PyTorch {form}, threads {threads}"
            candidates.append(
                Candidate(name, partial(peer, autograd, name), peer_runs, PEER, partial(torch.set_num_threads, threads))
            )

    def check() -> dict[str, Any]:
        torch.set_num_threads(1)
        few = 4
        steps = problem.ours(few)
        batches = problem.batches(few, int(steps.max()) + 4 * problem.samples)
        # Rounding may turn one comparison in thousands; all but one run must stop at the very same step.
        same = [problem.peer(run, False, batches[:, :, run]) == steps[run] for run in range(few)]
        if sum(same) < few - 1:
            raise harness.DisagreementError(f"{few - sum(same)} of {few} runs on the same samples stop at other steps")
        logs = {name: np.log(np.asarray(found, float)) for name, found in problem.steps.items()}
        # Peers repeat few runs; together they are one sample of the law of the number of steps.
        others = np.concatenate([found for name, found in logs.items() if name != OURS])
        error = np.sqrt(logs[OURS].var() / min(logs[OURS].size, problem.seeds) + others.var(ddof=1) / others.size)
        z = harness.agree("mean log of the steps", float(logs[OURS].mean()), float(others.mean()), float(error))
        return {"same_steps": f"{sum(same)} of {few} runs", "steps_apart_in_standard_errors": z}

    return Race(
        problem.title, "run", candidates, [Comparison(OURS, PEER, GOAL)], check,
        {"runs_of_ours": runs, "runs_of_a_peer": peer_runs},
    )  # fmt: skip


def races(options: Options) -> list[Race]:
    """Perceptron and network."""
    return [race(make(options.quick), options) for make in (perceptron_problem, network_problem)]


if __name__ == "__main__":
    from separatrix.lab.machine import usable_cores

    jax.config.update("jax_num_cpu_devices", usable_cores())
    harness.main("early_stopped_sgd", __doc__ or "", races)
