"""The operators of JAX and PyTorch models are the derivatives of the loss and of the outputs: against dense ones."""

import numpy as np
import pytest
from small_networks import (
    EXAMPLES,
    WIDTHS,
    cross_entropy,
    data,
    in_order_of_jax,
    jax_model,
    network,
    parameters,
    torch_model,
    torch_module,
)

from separatrix.probes.jax_model import JaxModel
from separatrix.probes.operators import ModelOperators

SIZE = 52


def two_batches(make):
    x, y = data()
    batches = [(x[:12], y[:12]), (x[12:], y[12:])]
    if make is jax_model:
        return JaxModel(network, parameters(), batches, cross_entropy)
    import torch

    from separatrix.probes.torch_model import TorchModel

    return TorchModel(torch_module(), batches, torch.nn.functional.cross_entropy)


VARIANTS = {
    "kept": lambda make: make(),
    "two batches": two_batches,
    "nothing kept, tiles": lambda make: make(available_memory=int(0.5 * make().memory_needed)),
}


@pytest.mark.parametrize("make", [jax_model, torch_model])
@pytest.mark.parametrize(
    "variant",
    ["kept", *(pytest.param(name, marks=pytest.mark.slow) for name in ("two batches", "nothing kept, tiles"))],
)
def test_every_operator_is_the_dense_derivative(make, variant, dense):
    if make is torch_model:
        pytest.importorskip("torch")
    model = VARIANTS[variant](make)
    assert isinstance(model, ModelOperators)
    assert (model.size, model.examples, model.dtype) == (SIZE, EXAMPLES, np.float64)
    near = lambda made, exact: np.testing.assert_allclose(made, exact, rtol=0, atol=1e-12)  # noqa: E731
    ordered = lambda made: in_order_of_jax(model, made)  # noqa: E731
    assert abs(model.loss() - dense["loss"]) < 1e-12
    near(ordered(model.gradient()), dense["gradient"])
    near(model.outputs(), dense["outputs"])
    v = np.random.default_rng(2).normal(size=(3, SIZE))
    u = np.random.default_rng(3).normal(size=(2, EXAMPLES, WIDTHS[2]))
    rows, cotangents, exact = model.vector(v), model.vector(u), ordered(v)
    near(ordered(model.hvp(rows)), exact @ dense["hessian"])
    near(ordered(model.hvp(rows[1])), exact[1] @ dense["hessian"])
    near(ordered(model.gauss_newton(rows)), exact @ dense["gauss_newton"])
    near(model.jvp(rows), np.einsum("ncp,kp->knc", dense["jacobian"], exact))
    near(model.jvp(rows[0]), np.einsum("ncp,p->nc", dense["jacobian"], exact[0]))
    near(ordered(model.vjp(cotangents)), np.einsum("ncp,knc->kp", dense["jacobian"], u))
    near(ordered(model.vjp(cotangents[1])), np.einsum("ncp,nc->p", dense["jacobian"], u[1]))
    examples = np.concatenate([np.asarray(g) for g in model.per_example_gradients(7)])
    near(ordered(examples), dense["gradients"])
    away = dense["gradients"] - exact[0]
    squares, overlaps = model.per_example_moments(rows[0], 7)
    for number, name in enumerate(model.blocks):
        place = jax_model().blocks[name]
        near(squares[:, number], np.sum(away[:, place] ** 2, axis=1))
        near(overlaps[:, number], away[:, place] @ exact[0, place])
    some = model.subset([1, 5, 20])
    near(ordered(some.gradient()), dense["gradients"][np.array([1, 5, 20])].mean(axis=0))
    near(ordered(some.hvp(rows[0])), exact[0] @ dense["hessians"][np.array([1, 5, 20])].mean(axis=0))
    near(ordered(model.parameters), np.concatenate([np.ravel(a) for _, a in sorted(parameters().items())]))


@pytest.mark.parametrize("make", [jax_model, torch_model])
def test_a_sum_over_examples_is_as_many_times_the_mean(make, dense):
    if make is jax_model:
        total = lambda outputs, targets: cross_entropy(outputs, targets) * len(targets)  # noqa: E731
        model = JaxModel(network, parameters(), data(), total, reduction="sum")
    else:
        torch = pytest.importorskip("torch")
        from separatrix.probes.torch_model import TorchModel

        model = TorchModel(torch_module(), data(), torch.nn.CrossEntropyLoss(reduction="sum"), reduction="sum")
    np.testing.assert_allclose(in_order_of_jax(model, model.gradient()), EXAMPLES * dense["gradient"], atol=1e-11)
    examples = np.concatenate([np.asarray(g) for g in model.per_example_gradients()])
    np.testing.assert_allclose(in_order_of_jax(model, examples), dense["gradients"], atol=1e-12)


@pytest.mark.parametrize("make", [jax_model, torch_model])
def test_float32_is_as_good_as_its_rounding(make, dense):
    model = make("float32")
    assert model.dtype == np.float32
    v = np.random.default_rng(2).normal(size=SIZE)
    made = in_order_of_jax(model, model.hvp(model.vector(v)))
    exact = in_order_of_jax(model, v) @ dense["hessian"]
    assert made.dtype == np.float32
    assert np.abs(made - exact).max() < 1e-5 * np.abs(exact).max()
