"""Curvature of one small network through both frameworks, each quantity against its dense counterpart."""

import numpy as np
import pytest
from scipy import stats
from small_networks import EXAMPLES, data, in_order_of_jax, jax_model, torch_model

from separatrix.probes import matrices, stability
from separatrix.probes.eigenpairs import eigenpairs
from separatrix.probes.operators import ProbeError
from separatrix.probes.spectral_density import spectral_density
from separatrix.probes.trace import diagonal, group_traces, trace, trace_hutch_plus_plus

FALSE_ALARM = 1e-6


@pytest.fixture(scope="module", params=["jax", "torch"])
def model(request):
    return jax_model() if request.param == "jax" else torch_model()


def test_eigenpairs_of_hessian_gauss_newton_and_residual(model, dense):
    exact = {
        "hessian": dense["hessian"],
        "gauss_newton": dense["gauss_newton"],
        "residual": dense["hessian"] - dense["gauss_newton"],
    }
    for name, array in exact.items():
        values = np.linalg.eigvalsh(array)
        matrix = getattr(matrices, name)(model)
        top = eigenpairs(matrix, 3, tolerance=1e-8)
        assert top.converged
        np.testing.assert_allclose(top.values, values[:-4:-1], rtol=1e-8)
        assert np.all(np.abs(top.values - values[:-4:-1]) <= top.residuals)
        vector = in_order_of_jax(model, top.vectors)[0]
        assert np.linalg.norm(array @ vector - top.values[0] * vector) <= top.residuals[0] * 1.001
        if name != "gauss_newton":
            bottom = eigenpairs(matrix, 1, which="smallest", tolerance=1e-8)
            assert bottom.values[0] == pytest.approx(values[0], rel=1e-8)
            assert bottom.values[0] < 0


def test_traces_and_density_within_their_errors(model, dense):
    matrix, exact = matrices.hessian(model), np.trace(dense["hessian"])
    for found in (trace(matrix, 64), trace_hutch_plus_plus(matrix, 48), trace(matrix, 64, seed=1)):
        low, high = found.interval(1 - FALSE_ALARM)
        assert low < exact < high
    for name, found in group_traces(matrix, 64).items():
        place = jax_model().blocks[name]
        low, high = found.interval(1 - FALSE_ALARM)
        assert low < np.trace(dense["hessian"][place, place]) < high
    entries = diagonal(matrix, 64)
    z = in_order_of_jax(model, entries.values) - np.diag(dense["hessian"])
    z /= in_order_of_jax(model, entries.standard_errors)
    assert np.max(np.abs(z)) < stats.t.isf(FALSE_ALARM / 2 / z.size, 63)
    density = spectral_density(matrix, probes=4, steps=30)
    low, high = density.moment(2).interval(1 - FALSE_ALARM)
    assert low < np.mean(np.linalg.eigvalsh(dense["hessian"]) ** 2) < high
    assert density.radius == pytest.approx(np.abs(np.linalg.eigvalsh(dense["hessian"])).max(), rel=1e-9)


def test_blocks_and_preconditioning(model, dense):
    place = jax_model().blocks["0.weight"]
    block = eigenpairs(matrices.restricted(matrices.hessian(model), r"^0\.weight$"), 2, tolerance=1e-8)
    np.testing.assert_allclose(block.values, np.linalg.eigvalsh(dense["hessian"][place, place])[:-3:-1], rtol=1e-8)
    scale = np.random.default_rng(0).uniform(0.5, 2, model.size)
    matrix = matrices.preconditioned(matrices.hessian(model), model.vector(scale))
    ordered = in_order_of_jax(model, scale)
    exact = dense["hessian"] / np.sqrt(ordered[:, None] * ordered)
    assert eigenpairs(matrix, 1, tolerance=1e-8).values[0] == pytest.approx(np.linalg.eigvalsh(exact)[-1], rel=1e-8)
    with pytest.raises(ProbeError, match="all entries of the diagonal must be positive"):
        matrices.preconditioned(matrix, model.vector(scale - 1))
    with pytest.raises(ProbeError, match="is found in the name of no parameter"):
        matrices.restricted(matrix, "convolution")


@pytest.mark.slow
def test_batch_sharpness_is_the_curvature_of_mini_batches_along_their_gradients(model, dense):
    found = stability.batch_sharpness(model, 4, batches=60)
    samples = []
    for number in range(60):
        chosen = np.sort(np.random.default_rng([0, number]).choice(EXAMPLES, 4, replace=False))
        gradient = dense["gradients"][chosen].mean(axis=0)
        curvature = dense["hessians"][chosen].mean(axis=0)
        samples.append(gradient @ curvature @ gradient / (gradient @ gradient))
    assert found.value == pytest.approx(np.mean(samples), rel=1e-9)
    assert found.standard_error == pytest.approx(np.std(samples, ddof=1) / np.sqrt(60), rel=1e-9)
    assert found.products == 120
    whole = stability.batch_sharpness(model, EXAMPLES, batches=2)
    g = dense["gradient"]
    assert whole.value == pytest.approx(g @ dense["hessian"] @ g / (g @ g), rel=1e-9)
    with pytest.raises(ProbeError, match="batch_size must lie between 1 and the number of examples 24, got 25"):
        stability.batch_sharpness(model, 25)


def test_the_distance_to_the_edge(model, dense):
    sharpness = np.linalg.eigvalsh(dense["hessian"])[-1]
    at_the_edge = 2 * (1 + 0.5) / sharpness
    margin = stability.stability_margin(
        matrices.hessian(model), stability.gradient_descent_threshold(at_the_edge, momentum=0.5), tolerance=1e-6
    )
    assert margin.ratio == pytest.approx(1, rel=1e-9)
    assert abs(margin.distance) <= margin.residual
    assert abs(margin.ratio - 1) <= margin.ratio_error
    assert stability.adam_threshold(1.0) == pytest.approx(38)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_thresholds_are_where_descent_on_a_quadratic_begins_to_grow(momentum):
    def grows(curvature, adam):
        x, v, rate = 1.0, 0.0, 0.1
        for _ in range(4000):
            v = momentum * v + ((1 - momentum) if adam else 1) * curvature * x
            x -= rate * v
        return abs(x) > 1e-3

    for adam in (False, True):
        threshold = (
            stability.adam_threshold(0.1, momentum) if adam else stability.gradient_descent_threshold(0.1, momentum)
        )
        assert not grows(0.99 * threshold, adam)
        assert grows(1.01 * threshold, adam)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_fluctuating_curvature_below_its_threshold_keeps_the_mean_square_bounded_and_rare_spikes_reach_it(momentum):
    rate = 0.1
    limit = stability.fluctuating_threshold(rate, momentum)

    def growth(curvatures, weights):
        """Spectral radius of the map of second moments of (x, last x)."""
        maps = [np.array([[1 + momentum - rate * h, -momentum], [1, 0]]) for h in curvatures]
        moments = sum(weight * np.kron(step, step) for step, weight in zip(maps, weights, strict=True))
        return np.abs(np.linalg.eigvals(moments)).max()

    def condition(curvatures, weights):
        mean = curvatures @ weights
        return (1 - momentum) / (1 + momentum) * mean + (curvatures**2 @ weights - mean**2) / mean

    rng = np.random.default_rng(0)
    for _ in range(50):
        h, w = limit * rng.uniform(0, 1, 4) ** 2, rng.dirichlet(np.ones(4))
        assert growth(h, w) < 1
        # scaled to the condition's own edge
        edge = h * limit / condition(h, w)
        assert growth(0.99 * edge, w) < 1 < growth(1.01 * edge, w)
    assert growth(np.array([0, 1.01 * limit]), np.array([1 - 1e-4, 1e-4])) > 1


def test_adam_diagonal_is_the_one_of_the_optimizer():
    torch = pytest.importorskip("torch")
    model = torch_model()
    module, (x, y) = model._module, map(torch.as_tensor, data())
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, betas=(0.9, 0.99), eps=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        before = [p.detach().clone() for p in module.parameters()]
        optimizer.step()
    state = [optimizer.state[p] for p in module.parameters()]
    moments = model.flatten([s["exp_avg_sq"] for s in state])
    first = model.flatten([s["exp_avg"] for s in state]) / (1 - 0.9**3)
    step = model.flatten([b - p.detach() for b, p in zip(before, module.parameters(), strict=True)])
    diagonal_ = stability.adam_diagonal(moments, 3, beta2=0.99, epsilon=1e-3)
    np.testing.assert_allclose(step, 0.01 * first / diagonal_, rtol=1e-9)
