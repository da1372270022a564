"""Curvature and gradient noise of networks: against hessian-eigenthings, curvlinops, PyHessian and plain ARPACK.

Four races, all in float32. (1) The ten largest Hessian eigenvalues of an MLP 784-128-128-10 (cross-entropy, 2048
points in ten clusters, 100 steps of descent) to a residual of 1e-4 of each eigenvalue; (2) the five largest of a small
ResNet in PyTorch; (3) the spectral density of the MLP with equal probes and steps; (4) trace and noise scale of the
gradient covariance, against gradients of all examples at once.

Candidates agree first: the true residual of every pair is computed with a product, and those who race at equal residual
must reach it. hessian-eigenthings takes a fixed number of Lanczos steps: it is given the smallest (in steps of five)
that reaches the residual, and is not charged for finding it; so is ARPACK with its tolerance (of 1e-2, 1e-3, 1e-4).
ARPACK (``scipy.sparse.linalg.eigsh``) runs on the products of curvlinops, where it is installed, and on plain double
backward in PyTorch. PyHessian's power iteration stops on the change between iterates and does not reach the residual:
its time and its errors are reported, at its own tolerance. Peers that are not installed are left out.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.probes import matrices
from separatrix.probes.eigenpairs import eigenpairs
from separatrix.probes.gradient_noise import gradient_noise
from separatrix.probes.jax_model import JaxModel
from separatrix.probes.operators import ModelOperators
from separatrix.probes.spectral_density import spectral_density
from separatrix.probes.torch_model import TorchModel

TOLERANCE = 1e-4
OURS_JAX, OURS_TORCH = "separatrix, JAX model", "separatrix, PyTorch model"
CONFIRMED = "separatrix, JAX model, with the search for missed copies"
EIGENTHINGS, CURVLINOPS, PYHESSIAN, ARPACK = "hessian-eigenthings", "curvlinops and ARPACK", "PyHessian", "ARPACK"
CROSS_ENTROPY = torch.nn.functional.cross_entropy


def installed(package: str) -> bool:
    """Whether a peer can be raced."""
    return importlib.util.find_spec(package) is not None


# -- the problems -----------------------------------------------------------------------------------------------------


def mlp(params: list, inputs: jax.Array) -> jax.Array:
    """Logits of a network of rectified layers."""
    for w, b in params[:-1]:
        inputs = jax.nn.relu(inputs @ w + b)
    w, b = params[-1]
    return inputs @ w + b


def cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over examples."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], axis=1))


@dataclass(frozen=True)
class Mlp:
    """Trained parameters and data, the same for both frameworks."""

    params: list[tuple[np.ndarray, np.ndarray]]
    inputs: np.ndarray
    targets: np.ndarray

    def jax_model(self) -> JaxModel:
        """For our probes."""
        params = [(jnp.asarray(w), jnp.asarray(b)) for w, b in self.params]
        return JaxModel(mlp, params, (self.inputs, self.targets), cross_entropy)

    def module(self) -> torch.nn.Module:
        """For the peers."""
        layers: list[torch.nn.Module] = []
        for w, b in self.params:
            layer = torch.nn.Linear(*w.shape)
            layer.load_state_dict({"weight": torch.tensor(w.T.copy()), "bias": torch.tensor(b)})
            layers += [layer, torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1])

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """For the peers."""
        return torch.tensor(self.inputs), torch.tensor(self.targets)


def trained_mlp(quick: bool) -> Mlp:
    """A hundred steps of descent from He's start."""
    sizes, points = ((20, 16, 10), 128) if quick else ((784, 128, 128, 10), 2048)
    rng = np.random.default_rng(0)
    params = [
        (rng.normal(size=(a, b), scale=np.sqrt(2 / a)).astype(np.float32), np.zeros(b, np.float32))
        for a, b in pairwise(sizes)
    ]
    targets = rng.integers(0, 10, points)
    inputs = (rng.normal(size=(10, sizes[0]))[targets] + 2 * rng.normal(size=(points, sizes[0]))).astype(np.float32)
    slope = jax.jit(jax.grad(lambda params, x, y: cross_entropy(mlp(params, x), y)))
    for _ in range(100):
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, slope(params, inputs, targets))
    return Mlp([(np.asarray(w), np.asarray(b)) for w, b in params], inputs, targets)


class Residual(torch.nn.Module):
    """Two convolutions with batch normalisation around a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        nn = torch.nn
        convolve = partial(nn.Conv2d, channels, channels, 3, padding=1, bias=False)
        self.branch = nn.Sequential(
            convolve(), nn.BatchNorm2d(channels), nn.ReLU(), convolve(), nn.BatchNorm2d(channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` plus the branch, rectified."""
        return torch.relu(x + self.branch(x))


def trained_resnet(quick: bool) -> tuple[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """A ResNet in evaluation mode after 30 steps on clusters of images, and its data."""
    channels, blocks, points = (4, 1, 16) if quick else (8, 3, 128)
    nn = torch.nn
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1), *(Residual(channels) for _ in range(blocks)),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10),
        )  # fmt: skip
        targets = torch.randint(0, 10, (points,))
        images = torch.randn(10, 3, 16, 16)[targets] + torch.randn(points, 3, 16, 16)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        CROSS_ENTROPY(net(images), targets).backward()
        optimizer.step()
    optimizer.zero_grad()
    return net.eval(), (images, targets)


# -- the peers --------------------------------------------------------------------------------------------------------


def plain_products(module: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> LinearOperator:
    """Double backward with the graph of the gradient kept, as a SciPy operator."""
    params = list(module.parameters())
    slope = torch.autograd.grad(CROSS_ENTROPY(module(batch[0]), batch[1]), params, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in slope])
    size = flat.numel()

    def product(v: np.ndarray) -> np.ndarray:
        made = torch.autograd.grad(flat, params, torch.from_numpy(v.ravel().astype(np.float32)), retain_graph=True)
        return torch.cat([g.reshape(-1) for g in made]).numpy()

    return LinearOperator((size, size), matvec=product, dtype=np.float32)


def arpack(products: LinearOperator, count: int, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Largest algebraic eigenvalues in descending order and their vectors as rows."""
    start = np.random.default_rng(0).normal(size=products.shape[0]).astype(np.float32)
    values, vectors = eigsh(products, count, which="LA", tol=tolerance, v0=start)
    return values[::-1], vectors[:, ::-1].T


def curvlinops_products(module: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> LinearOperator:
    """The Hessian operator of curvlinops as a SciPy operator."""
    import curvlinops

    operator = curvlinops.HessianLinearOperator(
        module, torch.nn.CrossEntropyLoss(), list(module.parameters()), [batch], check_deterministic=False
    )
    return operator.to_scipy(dtype=np.float32)


def eigenthings_operator(module: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Any:
    """The Hessian operator of hessian-eigenthings."""
    import hessian_eigenthings as peer

    return peer.HessianOperator(module, [batch], peer.supervised_loss(torch.nn.CrossEntropyLoss()))


def eigenthings(operator: Any, count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Its Lanczos."""
    import hessian_eigenthings as peer

    found = peer.lanczos(operator, k=count, max_iter=steps, which="LA", seed=0)
    return found.eigenvalues.numpy(), found.eigenvectors.numpy()


def pyhessian(module: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor], count: int) -> tuple:
    """Its power iteration with deflation, at its own tolerance."""
    import pyhessian as peer

    values, vectors = peer.hessian(module, torch.nn.CrossEntropyLoss(), data=batch, cuda=False).eigenvalues(top_n=count)
    return np.array(values), np.stack([torch.cat([p.reshape(-1) for p in v]).numpy() for v in vectors])


# -- the races --------------------------------------------------------------------------------------------------------


class Eigenvalues:
    """The largest eigenvalues of one module, by everyone."""

    def __init__(
        self, module: torch.nn.Module, batch: tuple, count: int, ours: dict[str, Callable], power: bool = True
    ) -> None:
        self.count = count
        self.reference = TorchModel(module, batch, CROSS_ENTROPY)
        self.found: dict[str, Any] = {}
        self.runs: dict[str, Callable] = dict(ours)
        plain = plain_products(module, batch)
        loosest = self._loosest(plain)
        self.runs[ARPACK] = lambda: arpack(plain, count, loosest)
        if installed("curvlinops"):
            operator = curvlinops_products(module, batch)
            self.runs[CURVLINOPS] = lambda: arpack(operator, count, loosest)
        if installed("hessian_eigenthings"):
            operator_ = eigenthings_operator(module, batch)
            self.steps = self._fewest(operator_)
            self.runs[EIGENTHINGS] = lambda: eigenthings(operator_, count, self.steps)
        if power and installed("pyhessian"):
            self.runs[PYHESSIAN] = lambda: pyhessian(module, batch, count)

    def _fewest(self, operator: Any) -> int:
        """Lanczos steps that reach the residual, in steps of five."""
        for steps in range(2 * self.count, 1000, 5):
            if self.relative_residuals(*eigenthings(operator, self.count, steps)).max() <= TOLERANCE:
                return steps
        raise harness.DisagreementError("hessian-eigenthings does not reach the residual")

    def _loosest(self, products: LinearOperator) -> float:
        """Tolerance of ARPACK that reaches the residual."""
        for tolerance in (1e-2, 1e-3, TOLERANCE):
            if self.relative_residuals(*arpack(products, self.count, tolerance)).max() <= TOLERANCE:
                return tolerance
        raise harness.DisagreementError("ARPACK does not reach the residual")

    def relative_residuals(self, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """``|H v - value v| / (|value| |v|)`` by products of the reference."""
        v = self.reference.vector(vectors)
        away = np.asarray(self.reference.hvp(v)) - values[:, None] * np.asarray(v)
        return np.linalg.norm(away, axis=1) / (np.abs(values) * np.linalg.norm(vectors, axis=1))

    def candidates(self) -> list[Candidate]:
        """All runs, timed until the values are on the host."""

        def keeping(name: str, run: Callable) -> Callable:
            def timed() -> None:
                self.found[name] = run()

            return timed

        return [Candidate(name, keeping(name, run), 1) for name, run in self.runs.items()]

    def check(self) -> dict[str, Any]:
        """Equal values at equal residuals."""
        figures: dict[str, Any] = {"products": {}, "largest relative residual": {}, "largest error of a value": {}}
        values = {}
        for name, found in self.found.items():
            if hasattr(found, "values"):
                figures["products"][name] = found.products
                if not found.converged:
                    raise harness.DisagreementError(f"{name} has not converged")
                values[name] = found.values
                if name != OURS_TORCH:  # vectors of another order of parameters
                    figures["largest relative residual"][name] = float((found.residuals / found.values).max())
                    continue
                pairs = (found.values, found.vectors.numpy())
            else:
                values[name], pairs = found[0], found
            worst = float(self.relative_residuals(*pairs).max())
            figures["largest relative residual"][name] = worst
            # a residual of single precision is itself known to a few per cent of the tolerance
            if name != PYHESSIAN and worst > 1.1 * TOLERANCE:
                raise harness.DisagreementError(f"{name}: relative residual {worst:.2e}, asked for {TOLERANCE:.0e}")
        if EIGENTHINGS in values:
            figures["products"][EIGENTHINGS] = self.steps
        exact = values[OURS_TORCH]
        for name, made in values.items():
            figures["largest error of a value"][name] = float(np.max(np.abs(made - exact) / exact))
            if name != PYHESSIAN:
                harness.close(name, exact, made, 1e-4)
        return figures

    def comparisons(self, ours: str, goals: dict[str, float]) -> list[Comparison]:
        """One with each peer that is installed."""
        notes = {PYHESSIAN: "(which stops short of the residual)"}
        return [
            Comparison(ours, peer, goals.get(peer), note=notes.get(peer, ""))
            for peer in (EIGENTHINGS, ARPACK, CURVLINOPS, PYHESSIAN)
            if peer in self.runs
        ]


def mlp_eigenvalues(problem: Mlp, options: Options) -> Race:
    """Race 1."""
    count = 3 if options.quick else 10
    module, batch = problem.module(), problem.batch()
    mine, theirs = problem.jax_model(), TorchModel(module, batch, CROSS_ENTROPY)
    find = partial(eigenpairs, count=count, tolerance=TOLERANCE)
    ours = {
        OURS_JAX: lambda: find(matrices.hessian(mine), confirm=0),
        OURS_TORCH: lambda: find(matrices.hessian(theirs), confirm=0),
        CONFIRMED: lambda: find(matrices.hessian(mine)),
    }
    race = Eigenvalues(module, batch, count, ours)
    return Race(
        f"{count} largest Hessian eigenvalues of an MLP, {mine.size} parameters", "call", race.candidates(),
        [*race.comparisons(OURS_JAX, {EIGENTHINGS: 1.0, ARPACK: 1.0, CURVLINOPS: 5.0}),
         *race.comparisons(OURS_TORCH, {EIGENTHINGS: 1.0, ARPACK: 1.0, CURVLINOPS: 1.0})],
        race.check, {"relative residual": TOLERANCE, "memory of the linearisation": mine.memory_needed},
    )  # fmt: skip


def resnet_eigenvalues(options: Options) -> Race:
    """Race 2."""
    count = 2 if options.quick else 5
    module, batch = trained_resnet(options.quick)
    model = TorchModel(module, batch, CROSS_ENTROPY)
    ours = {OURS_TORCH: lambda: eigenpairs(matrices.hessian(model), count, tolerance=TOLERANCE, confirm=0)}
    race = Eigenvalues(module, batch, count, ours, power=False)
    return Race(
        f"{count} largest Hessian eigenvalues of a ResNet, {model.size} parameters", "call", race.candidates(),
        race.comparisons(OURS_TORCH, {EIGENTHINGS: 1.0, ARPACK: 1.0, CURVLINOPS: 1.0}), race.check,
        {"relative residual": TOLERANCE},
    )  # fmt: skip


def density(problem: Mlp, options: Options) -> Race:
    """Race 3: equal probes and steps, hence equal error."""
    probes, steps = (2, 10) if options.quick else (4, 40)
    module, batch = problem.module(), problem.batch()
    models: dict[str, ModelOperators] = {OURS_JAX: problem.jax_model()}
    models[OURS_TORCH] = TorchModel(module, batch, CROSS_ENTROPY)
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def ours(name: str) -> None:
        made = spectral_density(matrices.hessian(models[name]), probes, steps)
        found[name] = made.nodes, made.weights

    runs: dict[str, Callable] = {name: partial(ours, name) for name in models}
    if installed("hessian_eigenthings"):
        import hessian_eigenthings as peer

        operator = eigenthings_operator(module, batch)

        def theirs() -> None:
            made = peer.spectral_density(operator, num_runs=probes, lanczos_steps=steps, num_grid_points=100, seed=0)
            found[EIGENTHINGS] = made.raw_eigenvalues.numpy(), made.raw_weights.numpy()

        runs[EIGENTHINGS] = theirs

    def check() -> dict[str, Any]:
        moments = {
            name: [np.sum(weights * nodes**order, axis=1) for order in (1, 2)]
            for name, (nodes, weights) in found.items()
        }
        figures: dict[str, Any] = {"probes": probes, "steps": steps}
        for name, made in moments.items():
            for order, (one, two) in enumerate(zip(moments[OURS_JAX], made, strict=True), start=1):
                error = float(np.hypot(one.std(ddof=1), two.std(ddof=1)) / np.sqrt(probes))
                # few probes: Student's tail is heavy
                figures[f"moment {order}, {name}, in standard errors"] = harness.agree(
                    f"moment {order} by {name}", one.mean(), two.mean(), error, most=30.0
                )
        return figures

    return Race(
        "Spectral density of the MLP, with re-orthogonalisation", "product",
        [Candidate(name, run, probes * steps) for name, run in runs.items()],
        [Comparison(name, EIGENTHINGS, 2.0 if name == OURS_JAX else 1.0) for name in models if EIGENTHINGS in runs],
        check,
    )  # fmt: skip


def noise(problem: Mlp, options: Options) -> Race:
    """Race 4: tiles against all gradients at once."""
    points = 64 if options.quick else 512
    some = Mlp(problem.params, problem.inputs[:points], problem.targets[:points])
    module, batch = some.module(), some.batch()
    models: dict[str, ModelOperators] = {
        OURS_JAX: some.jax_model(),
        OURS_TORCH: TorchModel(module, batch, CROSS_ENTROPY),
    }
    found: dict[str, np.ndarray] = {}

    def ours(name: str) -> None:
        made = gradient_noise(models[name])
        found[name] = np.array([made.trace.value, made.gradient_square.value])

    def from_gradients(n: int, deviations: Any, square: Any) -> Any:
        trace = deviations / (n - 1)
        signal = square - trace / n
        return trace, signal

    @jax.jit
    def at_once(params: list, x: jax.Array, y: jax.Array) -> Any:
        one = jax.grad(lambda params, x, y: cross_entropy(mlp(params, x[None]), y[None]))
        rows = jax.vmap(one, in_axes=(None, 0, 0))(params, x, y)
        away = sum(jnp.sum((g - g.mean(axis=0)) ** 2) for g in jax.tree.leaves(rows))
        return from_gradients(len(x), away, sum(jnp.sum(g.mean(axis=0) ** 2) for g in jax.tree.leaves(rows)))

    params, x, y = [(jnp.asarray(w), jnp.asarray(b)) for w, b in some.params], jnp.asarray(some.inputs), some.targets
    y = jnp.asarray(y)
    compiled = at_once.lower(params, x, y).compile()
    state = {name: p.detach() for name, p in module.named_parameters()}

    def jax_at_once() -> None:
        found["JAX, vmap over all examples"] = np.array([float(a) for a in compiled(params, x, y)])

    def torch_at_once() -> None:
        def one(x: torch.Tensor, y: torch.Tensor) -> dict:
            value = lambda p: CROSS_ENTROPY(torch.func.functional_call(module, p, (x[None],)), y[None])  # noqa: E731
            return torch.func.grad(value)(state)

        rows = torch.func.vmap(one)(*batch)
        away = sum(((g - g.mean(dim=0)) ** 2).sum() for g in rows.values())
        square = sum((g.mean(dim=0) ** 2).sum() for g in rows.values())
        found["PyTorch, vmap over all examples"] = np.array([float(a) for a in from_gradients(points, away, square)])

    def check() -> dict[str, Any]:
        return {
            f"largest relative difference, {name}": harness.close(name, found[OURS_JAX], made, 1e-3)
            for name, made in found.items()
        }

    size = models[OURS_JAX].size
    tile = max(len(tile) for tile in models[OURS_JAX].per_example_gradients())
    used = compiled.memory_analysis()
    return Race(
        f"Trace and scale of the gradient noise, {points} examples, {size} parameters", "call",
        [Candidate(OURS_JAX, partial(ours, OURS_JAX), 1), Candidate(OURS_TORCH, partial(ours, OURS_TORCH), 1),
         Candidate("JAX, vmap over all examples", jax_at_once, 1),
         Candidate("PyTorch, vmap over all examples", torch_at_once, 1)],
        [Comparison(OURS_JAX, "JAX, vmap over all examples", 0.8),
         Comparison(OURS_TORCH, "PyTorch, vmap over all examples", 0.8)],
        check,
        {"bytes of gradients at a time, ours": 4 * tile * size, "bytes of all gradients": 4 * points * size,
         "temporaries of the compiled baseline": getattr(used, "temp_size_in_bytes", None)},
    )  # fmt: skip


def races(options: Options) -> list[Race]:
    """All four."""
    if options.quick:
        torch.set_num_threads(1)  # tiny products lose their time in threads that wait for each other
    problem = trained_mlp(options.quick)
    return [
        mlp_eigenvalues(problem, options),
        resnet_eigenvalues(options),
        density(problem, options),
        noise(problem, options),
    ]


if __name__ == "__main__":
    harness.main("curvature", __doc__, races)
