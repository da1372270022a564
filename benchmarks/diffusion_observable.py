"""The gradient-noise trace of every layer, exact, against its estimate from single-sample backward passes.

A network of L = 4 layers, widths 4-10-10-10-4, label noise 0.3, whitened Gaussian inputs. Ours is the closed form
``tr Sigma_l`` of :mod:`separatrix.systems.deep_linear.gradient_noise` (float64), called on NumPy arrays or compiled.
Peers, in PyTorch (float32): a loop that draws a sample, calls ``backward`` and accumulates the gradient and its
square; ``torch.func.vmap`` of ``grad`` over 1000 samples; and, as the best that sampling can do here, hand-written
batched passes that use ``|g|^2 = |error|^2 |input|^2`` and never form a sample's gradient.

The estimate has an error, ours none. So besides the ratio at 1000 samples the number of samples is computed for which
the root-mean-square relative error of the worst layer is 1 %, and the ratio at that number: for the loop, whose time
is proportional to the samples, from its race at 1000; for the batched passes measured at that number.
"""

from functools import partial

import jax
import numpy as np
import torch

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.systems.deep_linear.gradient_noise import noise_traces
from separatrix.systems.deep_linear.teacher import random_weights

NUMPY, COMPILED = "separatrix, NumPy call", "separatrix, compiled"
LOOP, VMAP, NORMS = "PyTorch backward loop", "PyTorch vmap of grad", "PyTorch batched norms by hand"
NORMS_AT_ERROR = f"{NORMS}, as many samples as the error asks"
WIDTHS = (4, 10, 10, 10, 4)
LABEL_NOISE = 0.3
SAMPLES = 1000
ERROR = 0.01

Estimate = np.ndarray  # tr Sigma of each layer


class Sampler:
    """Estimates of the traces from sampled gradients of one network."""

    def __init__(self, weights: list[np.ndarray], teacher: np.ndarray) -> None:
        self.weights = [torch.tensor(w, dtype=torch.float32) for w in weights]
        self.teacher = torch.tensor(teacher, dtype=torch.float32)
        self.net = torch.nn.Sequential(*(torch.nn.Linear(*w.shape[::-1], bias=False) for w in weights))
        for layer, w in zip(self.net, self.weights, strict=True):
            layer.weight.data = w.clone()
        loss = lambda weights, x, y: 0.5 * ((y - self._output(weights, x)) ** 2).sum()  # noqa: E731
        self.gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    @staticmethod
    def _output(weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        for w in weights:
            x = w @ x
        return x

    def _samples(self, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(*shape, WIDTHS[0])
        return x, torch.randn(*shape, WIDTHS[-1]).mul_(LABEL_NOISE).add_(x @ self.teacher.T)

    def loop(self, samples: int) -> Estimate:
        """One backward pass for each sample; sums of gradients and of their squares."""
        parameters = list(self.net.parameters())
        sums = [torch.zeros_like(p) for p in parameters]
        squares = [torch.zeros_like(p) for p in parameters]
        for _ in range(samples):
            x, y = self._samples()
            for p in parameters:
                p.grad = None
            torch.nn.functional.mse_loss(self.net(x), y, reduction="sum").mul(0.5).backward()
            with torch.no_grad():
                for p, total, square in zip(parameters, sums, squares, strict=True):
                    total += p.grad
                    square.addcmul_(p.grad, p.grad)
        return np.array([float((q - s**2 / samples).sum()) / (samples - 1) for s, q in zip(sums, squares, strict=True)])

    def vmap(self, samples: int) -> Estimate:
        """All gradients at once, their variances summed over the entries."""
        gradients = self.gradients(self.weights, *self._samples(samples))
        return np.array([float(g.var(dim=0).sum()) for g in gradients])

    @torch.no_grad()
    def norms(self, samples: int) -> Estimate:
        """Squared norms of the samples' gradients, without the gradients."""
        squares, means = self._passes(samples)
        return np.array(
            [float(q.mean() - (m**2).sum()) * samples / (samples - 1) for q, m in zip(squares, means, strict=True)]
        )

    def _passes(self, samples: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        x, y = self._samples(samples)
        hidden = [x]
        for w in self.weights:
            hidden.append(hidden[-1] @ w.T)
        error = hidden.pop() - y
        squares, means = [], []
        for layer in reversed(range(len(self.weights))):
            h = hidden[layer]
            squares.append((error * error).sum(1) * (h * h).sum(1))
            means.append(error.T @ h / samples)
            if layer:
                error = error @ self.weights[layer]
        return squares[::-1], means[::-1]

    @torch.no_grad()
    def samples_needed(self, exact: np.ndarray, error: float, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """For each layer, the samples of an estimate with this relative error, and a large estimate's z-score.

        The estimate is the mean of ``|g - mean|^2``, so its relative variance is that of ``|g - mean|^2`` over N.
        """
        weights = [w.double() for w in self.weights]
        x = torch.randn(samples, WIDTHS[0], dtype=torch.float64)
        y = x @ self.teacher.double().T + LABEL_NOISE * torch.randn(samples, WIDTHS[-1], dtype=torch.float64)
        hidden = [x]
        for w in weights:
            hidden.append(hidden[-1] @ w.T)
        back = hidden.pop() - y
        needed, scores = [], []
        for layer in reversed(range(len(weights))):
            h = hidden[layer]
            mean = back.T @ h / samples
            # |g - mean|^2 = |g|^2 - 2 <g, mean> + |mean|^2 with g = back h^T.
            spread = (back**2).sum(1) * (h**2).sum(1) - 2 * ((back @ mean) * h).sum(1) + (mean**2).sum()
            deviation = float(spread.std())
            needed.append((deviation / exact[layer] / error) ** 2)
            scores.append((float(spread.mean()) - exact[layer]) / (deviation / samples**0.5))
            back = back @ weights[layer]
        return np.array(needed[::-1]), np.array(scores[::-1])


def races(options: Options) -> list[Race]:
    """One race."""
    rng = np.random.default_rng(3)
    # Both sides get the weights rounded to float32.
    weights = [w.astype(np.float32).astype(np.float64) for w in random_weights(rng, WIDTHS, 1.0)]
    teacher = np.diag([2.0, 1.5, 1.0, 0.5])
    sampler, samples = Sampler(weights, teacher), 20 if options.quick else SAMPLES
    exact = noise_traces(weights, teacher, LABEL_NOISE)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    many = 20_000 if options.quick else 400_000
    needed, scores = sampler.samples_needed(exact, ERROR, many)
    enough = float(np.ceil(needed.max()))

    arrays = jax.device_put((weights, teacher))
    compiled = jax.jit(lambda arguments: noise_traces(*arguments, LABEL_NOISE))

    def check() -> dict:
        """The closed form against a large sample, and each estimator against the closed form."""
        for layer, score in enumerate(scores, start=1):
            harness.agree(f"trace of layer {layer} from {many} samples (in standard errors)", float(score), 0.0, 1.0)
        harness.close("compiled traces", exact, np.asarray(compiled(arrays)), 1e-12)
        relative = {}
        for name, estimate in ((LOOP, sampler.loop), (VMAP, sampler.vmap), (NORMS, sampler.norms)):
            difference = estimate(samples) / exact - 1
            for layer, d in enumerate(difference):
                error = ERROR * (needed[layer] / samples) ** 0.5
                harness.agree(f"{name}, layer {layer + 1}", float(d), 0.0, float(error), 12.0 if options.quick else 5.0)
            relative[name] = np.abs(difference).tolist()
        return {
            f"relative error of one estimate from {samples} samples, by layer": relative,
            f"standard errors between the exact trace and {many} samples, by layer": scores.tolist(),
        }

    candidates = [
        Candidate(NUMPY, lambda: noise_traces(weights, teacher, LABEL_NOISE), 1),
        Candidate(COMPILED, lambda: compiled(arrays).block_until_ready(), 1),
    ]
    for threads in harness.thread_counts():
        for name, estimate in ((LOOP, sampler.loop), (VMAP, sampler.vmap), (NORMS, sampler.norms)):
            words = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
            candidates.append(
                Candidate(words, partial(estimate, samples), 1, name, partial(torch.set_num_threads, threads))
            )
            if name == NORMS:
                candidates.append(
                    Candidate(
                        f"{words}, {enough:.0f} samples",
                        partial(estimate, int(enough)),
                        1,
                        NORMS_AT_ERROR,
                        partial(torch.set_num_threads, threads),
                    )
                )
    at_error = {"factor": enough / samples, "note": f"at {ERROR:.0%} error ({enough:.0f} samples)"}
    goal = 1000.0
    return [
        Race(
            f"Gradient-noise traces, widths {'-'.join(map(str, WIDTHS))}, against {samples} samples",
            "value of all layers",
            candidates,
            [
                *(Comparison(ours, LOOP, goal) for ours in (NUMPY, COMPILED)),
                *(Comparison(ours, LOOP, **at_error) for ours in (NUMPY, COMPILED)),
                *(Comparison(COMPILED, peer) for peer in (VMAP, NORMS)),
                Comparison(COMPILED, NORMS_AT_ERROR),
            ],
            check,
            {
                "exact traces": exact.tolist(),
                f"samples for {ERROR:.0%} relative error, by layer": needed.tolist(),
                f"relative error expected of {samples} samples, by layer": (ERROR * (needed / samples) ** 0.5).tolist(),
            },
        )
    ]


if __name__ == "__main__":
    harness.main("diffusion_observable", __doc__, races)
