"""The operators of JAX and PyTorch models are the derivatives of the loss and of the outputs: against dense ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from separatrix.probes.jax_model import JaxModel
from separatrix.probes.operators import ModelOperators

WIDTHS = (3, 4, 2)
EXAMPLES = 7


def network(params, inputs):
    hidden = jnp.tanh(inputs @ params["first"]["weight"].T + params["first"]["bias"])
    return hidden @ params["second"]["weight"].T + params["second"]["bias"]


def cross_entropy(outputs, targets):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], axis=1))


def parameters(dtype="float64"):
    rng = np.random.default_rng(0)
    layer = lambda out, into: {"weight": rng.normal(size=(out, into)), "bias": rng.normal(size=out)}  # noqa: E731
    values = {"first": layer(WIDTHS[1], WIDTHS[0]), "second": layer(WIDTHS[2], WIDTHS[1])}
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), values)


def data(dtype="float64"):
    rng = np.random.default_rng(1)
    return rng.normal(size=(EXAMPLES, WIDTHS[0])).astype(dtype), rng.integers(0, WIDTHS[2], EXAMPLES)


def jax_model(dtype="float64", **options):
    return JaxModel(network, parameters(dtype), data(dtype), cross_entropy, **options)


def torch_model(dtype="float64", **options):
    torch = pytest.importorskip("torch")
    from separatrix.probes.torch_model import TorchModel

    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    module = module.to(getattr(torch, dtype))
    values = parameters(dtype)
    with torch.no_grad():
        for layer, name in ((module[0], "first"), (module[2], "second")):
            layer.weight.copy_(torch.tensor(np.asarray(values[name]["weight"])))
            layer.bias.copy_(torch.tensor(np.asarray(values[name]["bias"])))
    return TorchModel(module, data(dtype), torch.nn.functional.cross_entropy, **options)


#: Order of the blocks of the JAX model among those of the PyTorch model: a pytree sorts its keys.
TORCH_NAMES = {"first.bias": "0.bias", "first.weight": "0.weight", "second.bias": "2.bias", "second.weight": "2.weight"}


def in_order_of_jax(model, vectors):
    vectors = np.asarray(vectors)
    if "first.bias" in model.blocks:
        return vectors
    return np.concatenate([vectors[..., model.blocks[TORCH_NAMES[name]]] for name in TORCH_NAMES], -1)


def from_order_of_jax(model, vectors):
    if "first.bias" in model.blocks:
        return model.vector(vectors)
    blocks = jax_model().blocks
    places = {TORCH_NAMES[name]: place for name, place in blocks.items()}
    return model.vector(np.concatenate([vectors[..., places[name]] for name in model.blocks], -1))


@pytest.fixture(scope="module")
def dense():
    """Loss, gradient, Hessian, outputs, Jacobian, Gauss-Newton matrix and per-example gradients in the order of JAX."""
    start, unravel = ravel_pytree(parameters())
    x, y = map(jnp.asarray, data())
    value = lambda flat, x=x, y=y: cross_entropy(network(unravel(flat), x), y)  # noqa: E731

    @jax.jit
    def all_of_it(flat):
        outputs = network(unravel(flat), x)
        jacobian = jax.jacobian(lambda flat: network(unravel(flat), x))(flat)
        curvature = jax.hessian(lambda z: cross_entropy(z, y))(outputs)
        return {
            "loss": value(flat),
            "gradient": jax.grad(value)(flat),
            "hessian": jax.hessian(value)(flat),
            "outputs": outputs,
            "jacobian": jacobian,
            "gauss_newton": jnp.einsum("ncp,ncmd,mdq->pq", jacobian, curvature, jacobian),
            "examples": jax.vmap(lambda x, y: jax.grad(value)(flat, x[None], y[None]))(x, y),
        }

    return jax.tree.map(np.asarray, all_of_it(start))


def batched(model_class, batches, **options):
    if model_class is jax_model:
        return JaxModel(network, parameters(), batches, cross_entropy, **options)
    import torch

    from separatrix.probes.torch_model import TorchModel

    base = torch_model()
    return TorchModel(base._module, batches, torch.nn.functional.cross_entropy, **options)


def variants():
    x, y = data()
    two = [(x[:3], y[:3]), (x[3:], y[3:])]
    yield "one batch", lambda make: make()
    yield "two batches", lambda make: batched(make, two)
    yield "nothing kept", lambda make: make(available_memory=int(0.8 * make().memory_needed))
    yield "tiles", lambda make: make(available_memory=int(0.5 * make().memory_needed))


@pytest.mark.parametrize("make", [jax_model, torch_model])
@pytest.mark.parametrize(("variant"), [v for _, v in variants()], ids=[name for name, _ in variants()])
def test_every_operator_is_the_dense_derivative(make, variant, dense):
    if make is torch_model:
        pytest.importorskip("torch")
    model = variant(make)
    assert isinstance(model, ModelOperators)
    assert (model.size, model.examples, model.dtype) == (26, EXAMPLES, np.float64)
    near = lambda made, exact: np.testing.assert_allclose(made, exact, rtol=0, atol=1e-12)  # noqa: E731
    assert abs(model.loss() - dense["loss"]) < 1e-12
    near(in_order_of_jax(model, model.gradient()), dense["gradient"])
    near(model.outputs(), dense["outputs"])
    v = np.random.default_rng(2).normal(size=(3, 26))
    u = np.random.default_rng(3).normal(size=(2, EXAMPLES, WIDTHS[2]))
    rows, cotangents = from_order_of_jax(model, v), model.vector(u)
    near(in_order_of_jax(model, model.hvp(rows)), v @ dense["hessian"])
    near(in_order_of_jax(model, model.hvp(rows[1])), v[1] @ dense["hessian"])
    near(in_order_of_jax(model, model.gauss_newton(rows)), v @ dense["gauss_newton"])
    near(model.jvp(rows), np.einsum("ncp,kp->knc", dense["jacobian"], v))
    near(model.jvp(rows[0]), np.einsum("ncp,p->nc", dense["jacobian"], v[0]))
    near(in_order_of_jax(model, model.vjp(cotangents)), np.einsum("ncp,knc->kp", dense["jacobian"], u))
    near(in_order_of_jax(model, model.vjp(cotangents[1])), np.einsum("ncp,nc->p", dense["jacobian"], u[1]))
    for chunk in (None, 1, 4):
        examples = np.concatenate([np.asarray(g) for g in model.per_example_gradients(chunk)])
        near(in_order_of_jax(model, examples), dense["examples"])
    some = model.subset([1, 5])
    near(in_order_of_jax(model, some.gradient()), dense["examples"][np.array([1, 5])].mean(axis=0))
