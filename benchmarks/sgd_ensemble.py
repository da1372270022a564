"""SGD steps of an ensemble of deep linear networks: ours, a PyTorch module, hand-batched PyTorch.

Online SGD of a network of L = 3 layers, all widths d, on fresh Gaussian samples ``y = M x + label_noise z``, loss half
the batch mean of the squared error, float32. Peers: (1) one run as a PyTorch module with autograd and
``torch.optim.SGD``; (2) all runs at once in PyTorch with the backward pass written by hand, no autograd, and every
update one fused call. Each peer is raced in several forms and represented by its fastest.

Before the race all of them make the same steps on the same samples and must end at the same weights, and their
ensembles must end at the same mean loss.

Operations are counted as useful multiply-adds, two flops each: forward ``B sum d_l d_{l-1}``, weight gradients the
same, errors carried back through all layers but the first. Noise, targets and the update itself are not counted. The
machine's peak is the fastest of NumPy, JAX and PyTorch at a 2048 x 2048 product (512 with --quick).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import evolve
from separatrix.systems.deep_linear.network_simulation import OnlineSGD, network_state
from separatrix.systems.deep_linear.teacher import random_weights

OURS, MODULE, BATCHED = "separatrix", "PyTorch module, one run", "PyTorch batched by hand"
DEPTH = 3


@dataclass(frozen=True)
class Problem:
    """Sizes and constants of one race."""

    width: int
    batch: int
    runs: int
    steps: int
    module_steps: int
    check_steps: int
    learning_rate: float
    label_noise: float

    @property
    def singular_values(self) -> np.ndarray:
        """The teacher's, well separated."""
        return np.linspace(1.5, 0.5, self.width)

    @property
    def step(self) -> OnlineSGD:
        """Our iteration."""
        return OnlineSGD(self.width, self.width, self.batch, noisy_labels=self.label_noise > 0)

    def weights(self) -> list[np.ndarray]:
        """Initial weights of every run, ``(runs, d, d)`` float32."""
        rng = np.random.default_rng(0)
        starts = [random_weights(rng, (self.width,) * (DEPTH + 1), 1.0) for _ in range(self.runs)]
        return [np.stack(layer).astype(np.float32) for layer in zip(*starts, strict=True)]

    def flops(self) -> float:
        """Useful operations of one run-step."""
        layers = [self.width**2] * DEPTH
        return 2.0 * self.batch * (3 * sum(layers) - layers[0])


def excess_loss(state: dict, arguments: dict) -> jax.Array:
    """``|M - W|^2 / 2`` of every member: the population loss without its label-noise floor."""
    first, *rest = state["weights"]
    for w in rest:
        first = jnp.einsum("ijn,jkn->ikn", w, first)
    return 0.5 * jnp.sum((first - jnp.diag(arguments["singular_values"])[..., None]) ** 2, axis=(0, 1))


def all_weights(state: dict, arguments: dict) -> tuple:
    """The weights themselves."""
    del arguments
    return state["weights"]


class Ours:
    """The ensemble engine of this package."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.state = network_state(problem.weights(), dtype="float32")
        self.keys = member_keys(1, "benchmark", 0, problem.runs)
        self.arguments = {
            "singular_values": jnp.asarray(problem.singular_values, jnp.float32),
            "learning_rate": problem.learning_rate,
            "label_noise": problem.label_noise,
        }

    def record(self, observe: Callable, steps: int) -> np.ndarray | tuple:
        """What ``observe`` sees after ``steps`` steps."""
        records, diverged = evolve(
            self.problem.step, observe, self.state, self.keys, self.arguments, np.asarray([steps])
        )
        if np.any(diverged >= 0):
            raise harness.DisagreementError("a run diverged")
        return jax.tree.map(lambda a: a[0], records)

    def samples(self, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The batches ``(x, y)`` of the first steps, ``(d, B, runs)`` each."""
        step, problem, batches = self.problem.step, self.problem, []
        for t in range(steps):
            noise = jax.tree.map(lambda a, t=t: np.asarray(a[t % step.block]), step.draw(self.keys, t // step.block))
            x = noise["x"]
            y = problem.singular_values[:, None, None].astype(np.float32) * x
            batches.append((x, y + np.float32(problem.label_noise) * noise["z"] if problem.label_noise else y))
        return batches


class Module:
    """One run as PyTorch users write it: layers, loss, ``backward``, ``optimizer.step``."""

    def __init__(self, problem: Problem, weights: list[np.ndarray], **optimizer: bool) -> None:
        self.problem = problem
        self.net = torch.nn.Sequential(*(torch.nn.Linear(*w.shape[::-1], bias=False) for w in weights))
        for layer, w in zip(self.net, weights, strict=True):
            layer.weight.data = torch.tensor(w)
        # The loss is half the batch mean of the squared error: its sum, the factor 1 / (2 B) moved into the rate.
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=problem.learning_rate / (2 * problem.batch), **optimizer
        )
        self.singular_values = torch.tensor(problem.singular_values, dtype=torch.float32)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """One step on the batch ``(B, d)``."""
        self.optimizer.zero_grad()
        torch.nn.functional.mse_loss(self.net(x), y, reduction="sum").backward()
        self.optimizer.step()

    def run(self, steps: int) -> None:
        """``steps`` steps on fresh samples."""
        problem, shape = self.problem, (self.problem.batch, self.problem.width)
        for _ in range(steps):
            x = torch.randn(shape)
            y = x * self.singular_values
            if problem.label_noise:
                y.add_(torch.randn(shape), alpha=problem.label_noise)
            self.step(x, y)

    def weights(self) -> list[np.ndarray]:
        """Present weights, ``(d, d)`` each."""
        return [layer.weight.detach().numpy() for layer in self.net]


class Batched:
    """All runs at once: batched products into fixed buffers, updates fused into the weights, no autograd.

    ``columns`` says whether samples are columns (``W x``) or rows (``x W^T``, weights stored transposed).
    """

    def __init__(self, problem: Problem, weights: list[np.ndarray], columns: bool, seed: int = 0) -> None:
        self.problem, self.columns = problem, columns
        self.parameters = [torch.tensor(w if columns else w.swapaxes(1, 2).copy()) for w in weights]
        runs, d = weights[0].shape[0], problem.width
        shape = (runs, d, problem.batch) if columns else (runs, problem.batch, d)
        self.x, self.y = torch.empty(shape), torch.empty(shape)
        self.hidden = [torch.empty(shape) for _ in weights]
        self.back = [torch.empty(shape) for _ in weights]
        s = torch.tensor(problem.singular_values, dtype=torch.float32)
        self.singular_values = s[:, None] if columns else s
        self.generator = torch.Generator().manual_seed(seed)
        self.rate = problem.learning_rate / problem.batch

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """One step on the batches."""
        if self.columns:
            self._step_columns(x, y)
        else:
            self._step_rows(x, y)

    def _step_columns(self, x: torch.Tensor, y: torch.Tensor) -> None:
        w, hidden = self.parameters, [x]
        for layer in range(DEPTH - 1):
            hidden.append(torch.bmm(w[layer], hidden[-1], out=self.hidden[layer]))
        error = torch.baddbmm(y, w[-1], hidden[-1], alpha=-1, out=self.hidden[-1])
        for layer in reversed(range(DEPTH)):
            back = torch.bmm(w[layer].mT, error, out=self.back[layer]) if layer else error
            w[layer].baddbmm_(error, hidden[layer].mT, alpha=self.rate)
            error = back

    def _step_rows(self, x: torch.Tensor, y: torch.Tensor) -> None:
        w, hidden = self.parameters, [x]
        for layer in range(DEPTH - 1):
            hidden.append(torch.bmm(hidden[-1], w[layer], out=self.hidden[layer]))
        error = torch.baddbmm(y, hidden[-1], w[-1], alpha=-1, out=self.hidden[-1])
        for layer in reversed(range(DEPTH)):
            back = torch.bmm(error, w[layer].mT, out=self.back[layer]) if layer else error
            w[layer].baddbmm_(hidden[layer].mT, error, alpha=self.rate)
            error = back

    @torch.no_grad()
    def run(self, steps: int) -> None:
        """``steps`` steps on fresh samples."""
        noise = self.problem.label_noise
        for _ in range(steps):
            self.x.normal_(generator=self.generator)
            if noise:
                self.y.normal_(0.0, noise, generator=self.generator).addcmul_(self.x, self.singular_values)
            else:
                torch.mul(self.x, self.singular_values, out=self.y)
            self.step(self.x, self.y)

    def weights(self) -> list[np.ndarray]:
        """Present weights, ``(runs, d, d)`` each."""
        return [(w if self.columns else w.mT).numpy() for w in self.parameters]


class Threaded:
    """The hand-batched form with the runs split over Python threads of one PyTorch thread each."""

    def __init__(self, problem: Problem, weights: list[np.ndarray], columns: bool, threads: int) -> None:
        shares = [np.array_split(w, threads) for w in weights]
        self.parts = [Batched(problem, list(part), columns, i) for i, part in enumerate(zip(*shares, strict=True))]
        self.pool = ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1))

    def run(self, steps: int) -> None:
        """``steps`` steps on fresh samples."""
        list(self.pool.map(lambda part: part.run(steps), self.parts))


def check(problem: Problem, quick: bool) -> dict:
    """The candidates agree on the same samples, and in the mean loss on their own.

    Raises
    ------
    harness.DisagreementError
        If they do not.
    """
    torch.set_num_threads(1)
    ours, start, few = Ours(problem), problem.weights(), 4
    reference = [np.moveaxis(w, -1, 0) for w in ours.record(all_weights, few)]
    if any(w.dtype != np.float32 for w in reference):
        raise harness.DisagreementError("ours does not compute in float32")
    module = Module(problem, [w[0] for w in start])
    batched = {columns: Batched(problem, start, columns) for columns in (True, False)}
    for x, y in ours.samples(few):
        module.step(torch.tensor(x[..., 0].T.copy()), torch.tensor(y[..., 0].T.copy()))
        for columns, candidate in batched.items():
            axes = (2, 0, 1) if columns else (2, 1, 0)
            with torch.no_grad():
                candidate.step(*(torch.tensor(a.transpose(axes).copy()) for a in (x, y)))
    moved = min(float(np.abs(a - b).max()) for a, b in zip(reference, start, strict=True))
    worst = 0.0
    for layer, (w, w0) in enumerate(zip(reference, start, strict=True)):
        for name, other in (
            (MODULE, module.weights()[layer][None]),
            (BATCHED, batched[True].weights()[layer]),
            (BATCHED, batched[False].weights()[layer]),
        ):
            kept = slice(0, other.shape[0])
            # Compared in the distance moved, not in the weights, which hardly change in a few steps.
            worst = max(worst, harness.close(f"weights of {name}", w[kept] - w0[kept], other - w0[kept], 1e-3))
    batched_run = Batched(problem, start, True)
    batched_run.run(problem.check_steps)
    modules = [Module(problem, [w[i] for w in start]) for i in range(6 if quick else 12)]
    for one in modules:
        one.run(problem.check_steps)
    losses = {
        OURS: ours.record(excess_loss, problem.check_steps),
        BATCHED: _losses(problem, batched_run.weights()),
        MODULE: _losses(problem, [np.stack(layer) for layer in zip(*(m.weights() for m in modules), strict=True)]),
    }
    apart = {}
    for peer in (BATCHED, MODULE):  # run by run, since run i starts from the same weights in every candidate
        differences = losses[peer] - losses[OURS][: losses[peer].size]
        error = float(differences.std(ddof=1)) / differences.size**0.5
        most = 7.0 if quick else 4.5  # few runs have Student's wide tails
        apart[peer] = harness.agree(f"mean loss of {peer}", float(differences.mean()), 0.0, error, most)
    return {
        "same samples, largest relative difference of the distance moved": worst,
        "distance moved": moved,
        f"mean excess loss after {problem.check_steps} steps": {k: float(loss.mean()) for k, loss in losses.items()},
        "standard errors between the mean losses of the same initial weights": apart,
    }


def _losses(problem: Problem, weights: list[np.ndarray]) -> np.ndarray:
    product = weights[0]
    for w in weights[1:]:
        product = w @ product
    return 0.5 * np.sum((product - np.diag(problem.singular_values)) ** 2, axis=(1, 2))


def race(problem: Problem, goals: bool, peak: float, quick: bool) -> Race:
    """Ours against both peers."""
    ours, start = Ours(problem), problem.weights()
    run_steps = problem.runs * problem.steps
    candidates = [Candidate(OURS, lambda: ours.record(excess_loss, problem.steps), run_steps)]
    for threads in harness.thread_counts():
        prepare = partial(torch.set_num_threads, threads)
        words = f"{threads} thread{'s' if threads > 1 else ''}"
        for kind, optimizer in (("", {}), (", fused optimizer", {"fused": True})):
            module = Module(problem, [w[0] for w in start], **optimizer)
            run = partial(module.run, problem.module_steps)
            candidates.append(Candidate(f"{MODULE}{kind}, {words}", run, problem.module_steps, MODULE, prepare))
        for columns in (True, False):
            layout = "columns" if columns else "rows"
            run = partial(Batched(problem, start, columns).run, problem.steps)
            candidates.append(Candidate(f"{BATCHED}, {layout}, {words}", run, run_steps, BATCHED, prepare))
            if threads > 1:
                run = partial(Threaded(problem, start, columns, threads).run, problem.steps)
                name = f"{BATCHED}, {layout}, {threads} Python threads"
                candidates.append(Candidate(name, run, run_steps, BATCHED, partial(torch.set_num_threads, 1)))

    def derive(medians: dict[str, float]) -> dict:
        rates = {name: problem.flops() / seconds / 1e9 for name, seconds in medians.items()}
        return {
            "Gflop/s": rates,
            "Gflop/s of ours": rates[OURS],
            "share of the peak": rates[OURS] / peak,
            "ratio to the module that the peak would allow": min(s for n, s in medians.items() if n.startswith(MODULE))
            * peak
            * 1e9
            / problem.flops(),
        }

    d, noise = problem.width, f"label noise {problem.label_noise:g}" if problem.label_noise else "no label noise"
    return Race(
        f"SGD ensemble, widths {'-'.join([str(d)] * (DEPTH + 1))}, B = {problem.batch}, {problem.runs} runs, {noise}",
        "run-step",
        candidates,
        [
            # At d = 50 the module is within two orders of the peak, so that 300x is out of anybody's reach.
            Comparison(OURS, MODULE, 300.0 if goals and problem.width <= 10 else None, note="for each run"),
            Comparison(OURS, BATCHED, 1.5 if goals else None),
        ],
        partial(check, problem, quick),
        {"flops of a run-step": problem.flops(), "float32 peak, Gflop/s": peak},
        derive,
    )


def peak_gflops(size: int, repeats: int = 3) -> float:
    """Best rate of a large float32 product here, over the libraries."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((size, size), dtype=np.float32)
    tensor, array = torch.tensor(a), jnp.asarray(a)
    torch.set_num_threads(max(harness.thread_counts()))
    compiled = jax.jit(jnp.matmul)
    products = (lambda: a @ a, lambda: tensor @ tensor, lambda: compiled(array, array).block_until_ready())
    best = np.inf
    for product in products:
        product()
        best = min([best, *(harness.seconds(product, 1) for _ in range(repeats))])
    return 2.0 * size**3 / best / 1e9


def races(options: Options) -> list[Race]:
    """Both sizes, with and without label noise."""
    if options.quick:
        small = partial(Problem, 10, 8, 16, 20, 10, 20, 0.02)
        large = partial(Problem, 50, 16, 8, 4, 4, 10, 0.01)
    else:
        small = partial(Problem, 10, 8, 256, 2000, 1000, 500, 0.02)
        large = partial(Problem, 50, 16, 64, 400, 400, 200, 0.01)
    peak = peak_gflops(512 if options.quick else 2048)
    # The goals are set with label noise, on both sizes.
    return [race(problem(noise), goals=noise > 0, peak=peak, quick=options.quick)
            for problem in (small, large) for noise in (0.3, 0.0)]  # fmt: skip


if __name__ == "__main__":
    harness.main("sgd_ensemble", __doc__, races)
