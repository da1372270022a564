"""The monitor reads what dense kernels and Hessians say, judges only what its errors allow, and changes nothing."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from small_networks import (
    EXAMPLES,
    WIDTHS,
    cross_entropy,
    data,
    jax_model,
    network,
    parameters,
    torch_model,
    torch_module,
)

from separatrix.probes.jax_model import JaxModel
from separatrix.probes.monitor import Monitor
from separatrix.probes.operators import ProbeError
from separatrix.probes.tangent_kernel.products import estimated_distance, sign_probes


def later():
    return jax.tree.map(lambda a: a + 0.1 * jnp.sin(7 * a), parameters())


@functools.cache
def dense_at_both():
    """Kernels and largest curvatures at the parameters and at the later ones."""
    flat, unravel = ravel_pytree(parameters())
    x, y = map(jnp.asarray, data())
    outputs = lambda flat: network(unravel(flat), x)  # noqa: E731
    derivatives = jax.jit(
        lambda flat: (jax.jacrev(outputs)(flat), jax.hessian(lambda flat: cross_entropy(outputs(flat), y))(flat))
    )
    jacobians, hessians = zip(*[derivatives(ravel_pytree(one)[0]) for one in (parameters(), later())], strict=True)
    rows = [np.asarray(one).reshape(-1, flat.size) for one in jacobians]
    return [one @ one.T for one in rows], [float(np.linalg.eigvalsh(one)[-1]) for one in hessians]


@pytest.mark.parametrize("make", [jax_model, torch_model])
def test_a_reading_is_what_dense_kernels_and_hessians_say(make):
    monitor = Monitor(make(), probes=5, tolerance=1e-8, seed=3)
    states = [parameters(), later()]
    if make is torch_model:
        given = [torch_module(), torch_module()]
        given[1].load_state_dict({name: torch_module().state_dict()[name].new_tensor(np.asarray(a))
                                  for name, a in states[1].items()})  # fmt: skip
    else:
        given = states
    first, second = (monitor(step, state, threshold=2.0) for step, state in zip((0, 50), given, strict=True))
    signs = sign_probes((EXAMPLES, WIDTHS[2]), 5, 3).reshape(5, -1)
    kernels, curvatures = dense_at_both()
    products = [signs @ kernel for kernel in kernels]
    exact = estimated_distance(*products)
    assert second.kernel_norm == pytest.approx(np.sqrt(np.mean(np.sum(products[1] ** 2, axis=1))), rel=1e-9)
    assert second.distance == pytest.approx(exact.distance, rel=1e-8)
    assert second.angle == pytest.approx(np.arccos(1 - exact.distance), rel=1e-8)
    assert second.angular_speed == pytest.approx(second.angle / 50, rel=1e-12)
    # the error of the angle, by a small difference
    moved = np.arccos(1 - exact.distance - 1e-4 * exact.standard_error) - np.arccos(1 - exact.distance)
    assert second.angle_error == pytest.approx(1e4 * moved, rel=1e-3)
    assert [first.sharpness, second.sharpness] == pytest.approx(curvatures, rel=1e-6)
    assert second.sharpness_ratio == pytest.approx(curvatures[1] / 2, rel=1e-6)
    assert first.regime == "undecided"
    kept = monitor.dataset()
    assert kept.sizes == {"step": 2}
    assert float(kept["angle"][1]) == second.angle
    assert 0 < kept.attrs["overhead"] <= 1


MIXING = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0])


def diagonal(theta, inputs):
    """Outputs whose kernel is ``Q diag(theta^2) Q^T`` with the rotation Q of the inputs."""
    return inputs @ (theta**2) / 2


def at_angle(angle):
    """Parameters whose kernel makes this angle with that at angle 0."""
    return jnp.asarray(np.sqrt(np.repeat([np.cos(angle), np.sin(angle)], 16)))


ROTATING = JaxModel(diagonal, at_angle(0.1), (MIXING, jnp.zeros(32)), lambda outputs, targets: jnp.mean(outputs))


def regimes(angles, **options):
    monitor = Monitor(ROTATING, **options)
    return [monitor(step, at_angle(angle)) for step, angle in enumerate(angles)]


def test_angles_have_intervals_that_cover():
    inside = []
    for seed in range(60):
        reading = regimes([0.2, 0.5], seed=seed)[1]
        inside.append(abs(reading.angle - 0.3) < 2.36 * reading.angle_error)
    # Student's interval for 8 vectors; that it holds less than 95 % is the price of so few
    assert np.mean(inside) > 0.8


def test_steady_rotation_is_turning_and_one_that_ends_has_settled():
    steady = [reading.regime for reading in regimes(0.1 * np.arange(12))]
    assert set(steady[3:]) == {"turning"}
    ends = [reading.regime for reading in regimes(0.8 * (1 - np.exp(-np.arange(12.0))))]
    assert ends[2] == "turning"
    assert set(ends[6:]) == {"settled"}
    # no verdict while the speed passes through the threshold
    assert "undecided" in ends[3:6]


def test_a_kernel_that_hardly_moves_has_not_settled_but_is_still():
    assert {reading.regime for reading in regimes(0.1 + 1e-3 * np.arange(8))[1:]} == {"still"}
    # nor is anything said at the threshold itself
    assert regimes([0.2, 0.3])[1].regime == "undecided"


def test_parameters_that_are_not_finite_are_a_reading():
    monitor = Monitor(ROTATING)
    monitor(0, at_angle(0.1))
    lost = monitor(1, at_angle(0.1) * np.nan, threshold=1.0)
    assert lost.regime == "diverged"
    assert np.isnan(lost.angle)
    assert monitor(2, at_angle(0.3)).angle == pytest.approx(0.2, rel=0.5)


def test_a_watched_training_keeps_its_bits():
    torch = pytest.importorskip("torch")
    from separatrix.probes.torch_model import TorchModel

    nn = torch.nn
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    runs = []
    for watched in (False, True):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
        optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
        monitor = Monitor(TorchModel(copy.deepcopy(module).eval(), (x, y), nn.functional.cross_entropy))
        for step in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x), y).backward()
            if watched:
                monitor(step, module, threshold=20.0)
            optimizer.step()
        assert all(part.training for part in module.modules())
        runs.append([*module.state_dict().values(), *(p.grad for p in module.parameters()), torch.get_rng_state()])
        if watched:
            # evaluated with the running statistics of the moment
            now = TorchModel(copy.deepcopy(module).eval(), (x, y), nn.functional.cross_entropy)
            assert monitor(4, module).loss == pytest.approx(now.loss(), rel=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    with pytest.raises(ProbeError, match="BatchNorm1d in training mode"):
        Monitor(TorchModel(module[:2], (x, y), nn.functional.cross_entropy))
    with pytest.raises(ProbeError, match=r"the module has no 3.weight of shape \(2, 4\)"):
        monitor(5, module[:2])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Monitor(ROTATING, probes=2), "probes must be at least 3, got 2"),
        (lambda: Monitor(ROTATING, settled_share=1.5), "settled_share must lie between 0 and 1"),
        (lambda: regimes([0.1])[0] and Monitor(ROTATING)(0, {"x": at_angle(0.1)}), "must have the structure"),
        (lambda: Monitor(JaxModel(lambda theta, x: jnp.sum(theta * x), jnp.ones(3), jnp.ones((4, 3)))),
         "this needs the outputs of the model"),
    ],
)  # fmt: skip
def test_what_cannot_be_watched_is_refused(call, sentence):
    with pytest.raises(ProbeError, match=sentence):
        call()


def test_time_goes_forward():
    monitor = Monitor(ROTATING)
    monitor(1, at_angle(0.1))
    with pytest.raises(ProbeError, match="step must increase from call to call, got 1 after 1"):
        monitor(1, at_angle(0.2))
