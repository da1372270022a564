"""Curvature and gradient noise of networks: against hessian-eigenthings, curvlinops, PyHessian and plain ARPACK.

Five races, all in float32. (1) The ten largest Hessian eigenvalues of an MLP 784-128-128-10 (cross-entropy, 2048
points in ten clusters, 100 steps of descent) to a residual of 1e-4 of each eigenvalue; (2) the five largest of
ResNet-20 in PyTorch, batch normalisation in evaluation mode; (3) the five largest of a small language model in the
manner of GPT-2; (4) the spectral density of the MLP with equal probes and steps; (5) trace and noise scale of the
gradient covariance, against gradients of all examples at once, with the peak memory of each in a process of its own.

Candidates agree first: the true residual of every pair is computed with a product, and those who race at equal residual
must reach it. hessian-eigenthings takes a fixed number of Lanczos steps: it is given the smallest (in steps of five)
that reaches the residual, and is not charged for finding it; so is ARPACK with its tolerance (of 1e-2, 1e-3, 1e-4).
ARPACK (``scipy.sparse.linalg.eigsh``) runs on the products of curvlinops, where it is installed, on plain double
backward in PyTorch, and on forward over reverse in JAX. PyHessian's power iteration stops on the change between
iterates and does not reach the residual: its time and its errors are reported, at its own tolerance, for the MLP.
Peers that are not installed are left out, and curvlinops where its products are wrong by more than 1e-3: those
of layer normalisation are, because forward derivatives of PyTorch 2.13's gradient by the scale are.

A GPU is used for (2) and (3) where there is one. ``--full`` takes images of 32 x 32 pixels, and GPT-2 small (124
million parameters): that needs a GPU, or 64 GB and an hour.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from benchmarks import harness, networks, peak_memory
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
EIGENTHINGS, CURVLINOPS, PYHESSIAN = "hessian-eigenthings", "curvlinops and ARPACK", "PyHessian"
ARPACK, ARPACK_JAX = "ARPACK on double backward", "ARPACK on forward over reverse in JAX"
JAX_AT_ONCE, TORCH_AT_ONCE = "JAX, vmap over all examples", "PyTorch, vmap over all examples"
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


def device() -> torch.device:
    """Where the PyTorch races run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def trained_resnet(options: Options) -> tuple[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """A ResNet in evaluation mode after 30 steps on clusters of images, and its data."""
    side, points = (8, 16) if options.quick else (32, 128) if options.full else (16, 32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = networks.resnet(4, 1) if options.quick else networks.resnet()
        targets = torch.arange(points) % 10
        images = torch.randn(10, 3, side, side)[targets] + torch.randn(points, 3, side, side)
    batch = images.to(device()), targets.to(device())
    return _trained(net.to(device()), batch, torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)).eval(), batch


def trained_gpt(options: Options) -> tuple[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """A language model after 30 steps on sequences in which three of four tokens follow from the one before."""
    sizes = networks.GptSize(1, 16, 2, 8, 11) if options.quick else networks.GptSize(2, 64, 4, 32, 65)
    count, length = (4, 8) if options.quick else (16, 32)
    if options.full:
        sizes, count, length = networks.GptSize(), 4, 128
    rng = np.random.default_rng(0)
    follows = rng.permutation(sizes.vocabulary)
    text = rng.integers(0, sizes.vocabulary, (count, length + 1))
    for place in range(length):
        text[:, place + 1] = np.where(rng.random(count) < 0.75, follows[text[:, place]], text[:, place + 1])
    tokens = torch.from_numpy(text).to(device())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = networks.Gpt(sizes).to(device())
    batch = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    return _trained(net, batch, torch.optim.Adam(net.parameters(), lr=1e-3)), batch


def _trained(net: torch.nn.Module, batch: tuple, optimizer: torch.optim.Optimizer) -> torch.nn.Module:
    for _ in range(30):
        optimizer.zero_grad()
        CROSS_ENTROPY(net(batch[0]), batch[1]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return net


# -- the peers --------------------------------------------------------------------------------------------------------


class Counted(LinearOperator):
    """Products of a symmetric matrix for SciPy, counted."""

    def __init__(self, size: int, product: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(np.float32, (size, size))
        self.product, self.calls = product, 0

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        self.calls += 1
        return self.product(v.ravel().astype(np.float32))


def plain_products(module: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Counted:
    """Double backward with the graph of the gradient kept."""
    params = list(module.parameters())
    slope = torch.autograd.grad(CROSS_ENTROPY(module(batch[0]), batch[1]), params, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in slope])

    def product(v: np.ndarray) -> np.ndarray:
        made = torch.autograd.grad(flat, params, torch.from_numpy(v).to(flat.device), retain_graph=True)
        return torch.cat([g.reshape(-1) for g in made]).cpu().numpy()

    return Counted(flat.numel(), product)


def jax_products(problem: Mlp) -> Counted:
    """Forward over reverse, compiled: the Hessian product of JAX's documentation."""
    start, unravel = jax.flatten_util.ravel_pytree([(jnp.asarray(w), jnp.asarray(b)) for w, b in problem.params])
    x, y = jnp.asarray(problem.inputs), jnp.asarray(problem.targets)

    @jax.jit
    def product(v: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        slope = jax.grad(lambda flat: cross_entropy(mlp(unravel(flat), x), y))
        return jax.jvp(slope, (start,), (v,))[1]

    return Counted(start.size, lambda v: np.asarray(product(v, x, y)))


def arpack(products: Counted, count: int, tolerance: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Largest algebraic eigenvalues in descending order, their vectors as rows, and the products taken."""
    products.calls = 0
    start = np.random.default_rng(0).normal(size=products.shape[0]).astype(np.float32)
    values, vectors = eigsh(products, count, which="LA", tol=tolerance, v0=start)
    return values[::-1], vectors[:, ::-1].T, products.calls


def curvlinops_products(module: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Counted:
    """The Hessian operator of curvlinops."""
    import curvlinops

    operator = curvlinops.HessianLinearOperator(
        module, torch.nn.CrossEntropyLoss(), list(module.parameters()), [batch], check_deterministic=False
    ).to_scipy(dtype=np.float32)
    return Counted(operator.shape[0], operator.matvec)


def eigenthings_operator(module: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Any:
    """The Hessian operator of hessian-eigenthings."""
    import hessian_eigenthings as peer

    return peer.HessianOperator(module, [batch], peer.supervised_loss(torch.nn.CrossEntropyLoss()))


def eigenthings(operator: Any, count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Its Lanczos."""
    import hessian_eigenthings as peer

    found = peer.lanczos(operator, k=count, max_iter=steps, which="LA", seed=0)
    return found.eigenvalues.cpu().numpy(), found.eigenvectors.cpu().numpy()


def pyhessian(module: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor], count: int) -> tuple:
    """Its power iteration with deflation, at its own tolerance."""
    import pyhessian as peer

    found = peer.hessian(module, torch.nn.CrossEntropyLoss(), data=batch, cuda=batch[0].is_cuda)
    values, vectors = found.eigenvalues(top_n=count)
    return np.array(values), np.stack([torch.cat([p.reshape(-1) for p in v]).cpu().numpy() for v in vectors])


# -- the races --------------------------------------------------------------------------------------------------------


class Eigenvalues:
    """The largest eigenvalues of one module, by everyone."""

    def __init__(
        self, module: torch.nn.Module, batch: tuple, count: int, ours: dict[str, Callable], power: bool = True
    ) -> None:
        self.count = count
        self.reference = TorchModel(module, batch, CROSS_ENTROPY)
        self.found: dict[str, Any] = {}
        self.wrong = 0.0
        self.runs: dict[str, Callable] = dict(ours)
        plain = plain_products(module, batch)
        loosest = self._loosest(plain)
        self.runs[ARPACK] = lambda: arpack(plain, count, loosest)
        if installed("curvlinops"):
            operator = curvlinops_products(module, batch)
            self.wrong = self._difference(operator)
            if self.wrong < 1e-3:
                self.runs[CURVLINOPS] = lambda: arpack(operator, count, loosest)
        if installed("hessian_eigenthings"):
            operator_ = eigenthings_operator(module, batch)
            self.steps = self._fewest(operator_)
            self.runs[EIGENTHINGS] = lambda: eigenthings(operator_, count, self.steps)
        if power and installed("pyhessian"):
            self.runs[PYHESSIAN] = lambda: pyhessian(module, batch, count)

    def _difference(self, products: Counted) -> float:
        """Largest difference of a product from that of the reference, over the largest entry."""
        v = np.random.default_rng(0).normal(size=products.shape[0]).astype(np.float32)
        exact = self.reference.hvp(self.reference.vector(v)).cpu().numpy()
        return float(np.abs(products.matvec(v) - exact).max() / np.abs(exact).max())

    def _fewest(self, operator: Any) -> int:
        """Lanczos steps that reach the residual, in steps of five."""
        for steps in range(2 * self.count, 1000, 5):
            if self.relative_residuals(*eigenthings(operator, self.count, steps)).max() <= TOLERANCE:
                return steps
        raise harness.DisagreementError("hessian-eigenthings does not reach the residual")

    def _loosest(self, products: LinearOperator) -> float:
        """Tolerance of ARPACK that reaches the residual."""
        for tolerance in (1e-2, 1e-3, TOLERANCE):
            if self.relative_residuals(*arpack(products, self.count, tolerance)[:2]).max() <= TOLERANCE:
                return tolerance
        raise harness.DisagreementError("ARPACK does not reach the residual")

    def relative_residuals(self, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """``|H v - value v| / (|value| |v|)`` by products of the reference."""
        v = self.reference.vector(vectors)
        away = self.reference.hvp(v).cpu().numpy() - values[:, None] * v.cpu().numpy()
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
                pairs = (found.values, found.vectors.cpu().numpy())
            else:
                values[name], pairs = found[0], found[:2]
                if len(found) > 2:
                    figures["products"][name] = found[2]
            if name == ARPACK_JAX:
                continue
            worst = float(self.relative_residuals(*pairs).max())
            figures["largest relative residual"][name] = worst
            # a residual of single precision is itself known to a few per cent of the tolerance
            if name != PYHESSIAN and worst > 1.1 * TOLERANCE:
                raise harness.DisagreementError(f"{name}: relative residual {worst:.2e}, asked for {TOLERANCE:.0e}")
        if EIGENTHINGS in values:
            figures["products"][EIGENTHINGS] = self.steps
        if self.wrong >= 1e-3:
            figures[f"left out: largest relative error of a product of {CURVLINOPS}"] = self.wrong
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
            for peer in (EIGENTHINGS, ARPACK, ARPACK_JAX, CURVLINOPS, PYHESSIAN)
            if peer in self.runs
        ]


def mlp_eigenvalues(problem: Mlp, options: Options) -> Race:
    """Race 1."""
    count = 3 if options.quick else 10
    module, batch = problem.module(), problem.batch()
    mine, theirs = problem.jax_model(), TorchModel(module, batch, CROSS_ENTROPY)
    find = partial(eigenpairs, count=count, tolerance=TOLERANCE)
    baseline = jax_products(problem)
    runs = {
        OURS_JAX: lambda: find(matrices.hessian(mine), confirm=0),
        OURS_TORCH: lambda: find(matrices.hessian(theirs), confirm=0),
        CONFIRMED: lambda: find(matrices.hessian(mine)),
        ARPACK_JAX: lambda: arpack(baseline, count, 1e-2),  # its residuals are far below the tolerance
    }
    race = Eigenvalues(module, batch, count, runs)
    return Race(
        f"{count} largest Hessian eigenvalues of an MLP, {mine.size} parameters", "call", race.candidates(),
        [*race.comparisons(OURS_JAX, {EIGENTHINGS: 2.0, ARPACK: 1.0, ARPACK_JAX: 2.0, CURVLINOPS: 5.0}),
         *race.comparisons(OURS_TORCH, {EIGENTHINGS: 1.0, ARPACK: 1.0, CURVLINOPS: 1.0})],
        race.check, {"relative residual": TOLERANCE, "memory of the linearisation": mine.memory_needed},
    )  # fmt: skip


def module_eigenvalues(name: str, module: torch.nn.Module, batch: tuple, options: Options) -> Race:
    """Races 2 and 3."""
    count = 2 if options.quick else 5
    model = TorchModel(module, batch, CROSS_ENTROPY)
    ours = {OURS_TORCH: lambda: eigenpairs(matrices.hessian(model), count, tolerance=TOLERANCE, confirm=0)}
    race = Eigenvalues(module, batch, count, ours, power=False)
    return Race(
        f"{count} largest Hessian eigenvalues of {name}, {model.size} parameters", "call", race.candidates(),
        race.comparisons(OURS_TORCH, {EIGENTHINGS: 1.0, ARPACK: 1.0, CURVLINOPS: 1.0}), race.check,
        {"relative residual": TOLERANCE, "device": str(device()), "memory of the graph": model.memory_needed},
    )  # fmt: skip


def density(problem: Mlp, options: Options) -> Race:
    """Race 4: equal probes and steps, hence equal error."""
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


def noise_run(name: str, quick: bool) -> Callable[[], np.ndarray]:
    """Trace and gradient square of the noise of the MLP, by one candidate."""
    problem = trained_mlp(quick)
    points = 64 if quick else 512
    some = Mlp(problem.params, problem.inputs[:points], problem.targets[:points])
    module, batch = some.module(), some.batch()
    if name in (OURS_JAX, OURS_TORCH):
        model = some.jax_model() if name == OURS_JAX else TorchModel(module, batch, CROSS_ENTROPY)

        def ours() -> np.ndarray:
            made = gradient_noise(model)
            return np.array([made.trace.value, made.gradient_square.value])

        return ours

    def from_gradients(deviations: Any, square: Any) -> Any:
        trace = deviations / (points - 1)
        return trace, square - trace / points

    if name == JAX_AT_ONCE:
        params = [(jnp.asarray(w), jnp.asarray(b)) for w, b in some.params]
        x, y = jnp.asarray(some.inputs), jnp.asarray(some.targets)

        @jax.jit
        def at_once(params: list, x: jax.Array, y: jax.Array) -> Any:
            one = jax.grad(lambda params, x, y: cross_entropy(mlp(params, x[None]), y[None]))
            rows = jax.vmap(one, in_axes=(None, 0, 0))(params, x, y)
            away = sum(jnp.sum((g - g.mean(axis=0)) ** 2) for g in jax.tree.leaves(rows))
            return from_gradients(away, sum(jnp.sum(g.mean(axis=0) ** 2) for g in jax.tree.leaves(rows)))

        return lambda: np.array([float(a) for a in at_once(params, x, y)])
    state = {name: p.detach() for name, p in module.named_parameters()}

    def one(x: torch.Tensor, y: torch.Tensor) -> dict:
        value = lambda p: CROSS_ENTROPY(torch.func.functional_call(module, p, (x[None],)), y[None])  # noqa: E731
        return torch.func.grad(value)(state)

    def torch_at_once() -> np.ndarray:
        rows = torch.func.vmap(one)(*batch)
        away = sum(((g - g.mean(dim=0)) ** 2).sum() for g in rows.values())
        square = sum((g.mean(dim=0) ** 2).sum() for g in rows.values())
        return np.array([float(a) for a in from_gradients(away, square)])

    return torch_at_once


def noise(options: Options) -> Race:
    """Race 5: tiles against all gradients at once."""
    found: dict[str, np.ndarray] = {}
    names = (OURS_JAX, OURS_TORCH, JAX_AT_ONCE, TORCH_AT_ONCE)

    def keep(name: str, run: Callable[[], np.ndarray]) -> None:
        found[name] = run()

    def check() -> dict[str, Any]:
        figures: dict[str, Any] = {
            f"largest relative difference, {name}": harness.close(name, found[OURS_JAX], made, 1e-3)
            for name, made in found.items()
        }
        if not options.quick:
            figures["peak bytes"] = {name: peak_memory.of_call(noise_run, name, options.quick) for name in names}
        return figures

    return Race(
        "Trace and scale of the gradient noise of the MLP", "call",
        [Candidate(name, partial(keep, name, noise_run(name, options.quick)), 1) for name in names],
        [Comparison(OURS_JAX, JAX_AT_ONCE, 1.0), Comparison(OURS_TORCH, TORCH_AT_ONCE, 1.0)], check,
        {"examples": 64 if options.quick else 512},
    )  # fmt: skip


def races(options: Options) -> list[Race]:
    """All five."""
    if options.quick:
        torch.set_num_threads(1)  # tiny products lose their time in threads that wait for each other
    problem = trained_mlp(options.quick)
    return [
        mlp_eigenvalues(problem, options),
        module_eigenvalues("ResNet-20", *trained_resnet(options), options),
        module_eigenvalues("a GPT-2", *trained_gpt(options), options),
        density(problem, options),
        noise(options),
    ]


if __name__ == "__main__":
    harness.main("curvature", __doc__, races)
