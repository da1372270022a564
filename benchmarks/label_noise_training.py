"""Descent of the two-patch network under label noise: coefficients of signal and noise against explicit weights.

n = 100 samples of 20 % flipped labels in d = 1000 and 4000 dimensions, m = 10 filters per output, 8 networks with data
of their own, full-batch descent, float64. Ours steps in the coefficients with the Gram matrix of the data, in O(m n^2),
all networks in one compiled program (:mod:`separatrix.systems.feature_learning.signal_noise_decomposition`). The peer
is PyTorch with explicit weights, in O(m n d): automatic differentiation network by network, automatic differentiation
of all networks as one batch, and the gradient of the batch written out; with one thread and with all. It is represented
by the fastest. All must end with the same margins.
"""

from functools import partial

import jax
import numpy as np
import torch

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.lab.machine import usable_cores
from separatrix.systems.feature_learning.patch_network import draw_patch_data, initial_weights
from separatrix.systems.feature_learning.signal_noise_decomposition import (
    descend_in_coefficients,
    gram_task,
    stack_tasks,
)

OURS, PYTORCH = "separatrix, coefficients", "PyTorch, explicit weights"
SAMPLES, WIDTH, NETWORKS = 100, 10, 8
KAPPA, NOISE, RATE, START = 8.0, 0.2, 0.05, 1e-3


class Training:
    """The same networks and data for every way to train them."""

    def __init__(self, dimension: int, steps: int) -> None:
        self.steps = steps
        rngs = [np.random.default_rng([0, member]) for member in range(NETWORKS)]
        data = [draw_patch_data(rng, SAMPLES, dimension, KAPPA, NOISE, NOISE) for rng in rngs]
        starts = [initial_weights(rng, WIDTH, dimension, START) for rng in rngs]
        self.rate = RATE * 1000 / dimension  # the same time per step
        self.rates = np.full(NETWORKS, self.rate)
        self.tasks = stack_tasks(
            [
                gram_task(one, start, 2, 1.0, (NOISE, NOISE), rng)
                for one, start, rng in zip(data, starts, rngs, strict=True)
            ]
        )
        stacked = lambda arrays: torch.tensor(np.stack(arrays))  # noqa: E731
        self.start = stacked(starts)
        self.noise = stacked([one.noise for one in data])
        self.labels = stacked([one.labels for one in data])
        patches = [one.true_labels[:, None] * one.signal for one in data]
        self.signal = stacked(patches)

    def ours(self) -> np.ndarray:
        """Margins at the end, ``(networks, samples)``."""
        return np.asarray(descend_in_coefficients(self.tasks, self.rates, np.array([self.steps]), 0).margins)[:, 0]

    @staticmethod
    def _output(weights: torch.Tensor, signal: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        active = torch.relu(weights @ signal.mT) + torch.relu(weights @ noise.mT)
        return active[..., :WIDTH, :].mean(dim=-2) - active[..., WIDTH:, :].mean(dim=-2)

    def _by_autograd(self, weights, signal, noise, labels) -> torch.Tensor:
        weights = weights.clone().requires_grad_()
        for _ in range(self.steps):
            output = self._output(weights, signal, noise)
            # the mean over samples of each network; networks are independent
            loss = torch.nn.functional.softplus(-labels * output).sum() / SAMPLES
            (slope,) = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                weights -= self.rate * slope
        with torch.no_grad():
            return labels * self._output(weights, signal, noise)

    def one_by_one(self) -> np.ndarray:
        """Automatic differentiation, a loop over networks."""
        arrays = zip(self.start, self.signal, self.noise, self.labels, strict=True)
        return torch.stack([self._by_autograd(*one) for one in arrays]).numpy()

    def batched(self) -> np.ndarray:
        """Automatic differentiation of all networks at once."""
        return self._by_autograd(self.start, self.signal, self.noise, self.labels).numpy()

    @torch.no_grad()
    def written_out(self) -> np.ndarray:
        """The gradient of all networks at once, written out."""
        weights = self.start.clone()
        sign = torch.ones(2 * WIDTH, 1, dtype=torch.float64)
        sign[WIDTH:] = -1
        for _ in range(self.steps):
            signal, noise = weights @ self.signal.mT, weights @ self.noise.mT
            active = torch.relu(signal) + torch.relu(noise)
            output = active[:, :WIDTH].mean(dim=1) - active[:, WIDTH:].mean(dim=1)
            pull = (self.labels * torch.sigmoid(-self.labels * output) / (SAMPLES * WIDTH))[:, None] * sign
            weights += self.rate * ((signal > 0) * pull @ self.signal + (noise > 0) * pull @ self.noise)
        return (self.labels * self._output(weights, self.signal, self.noise)).numpy()


def races(options: Options) -> list[Race]:
    """Two dimensions."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", usable_cores())
    steps = 20 if options.quick else 100
    return [_race(dimension, steps, 10.0) for dimension in ((200,) if options.quick else (1000, 4000))]


def _race(dimension: int, steps: int, goal: float) -> Race:
    training = Training(dimension, steps)
    forms = {
        "autograd, one by one": training.one_by_one,
        "autograd, batched": training.batched,
        "gradient written out, batched": training.written_out,
    }

    def check() -> dict:
        ours = training.ours()
        found = {name: harness.close(name, ours, run(), 1e-9) for name, run in forms.items()}
        return {"largest relative differences of a margin": found}

    candidates = [Candidate(OURS, training.ours, NETWORKS * steps)]
    for name, run in forms.items():
        for count in harness.thread_counts():
            words = f"PyTorch, {name}, {count} thread{'s' if count > 1 else ''}"
            candidates.append(Candidate(words, run, NETWORKS * steps, PYTORCH, partial(torch.set_num_threads, count)))
    return Race(
        f"{NETWORKS} networks, {steps} steps, n = {SAMPLES}, d = {dimension}, m = {WIDTH}",
        "run-step",
        candidates,
        [Comparison(OURS, PYTORCH, goal)],
        check,
        {"networks": NETWORKS, "label noise": NOISE, "kappa": KAPPA},
    )


if __name__ == "__main__":
    harness.main("label_noise_training", __doc__, races)
