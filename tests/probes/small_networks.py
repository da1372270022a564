"""One small network as a JAX and as a PyTorch model, with the dense derivatives of its loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from separatrix.probes.jax_model import JaxModel

WIDTHS = (3, 6, 4)
EXAMPLES = 24


def network(params, inputs):
    """A hidden layer of tanh units."""
    hidden = jnp.tanh(inputs @ params["0.weight"].T + params["0.bias"])
    return hidden @ params["2.weight"].T + params["2.bias"]


def cross_entropy(outputs, targets):
    """Mean over examples."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], axis=1))


def parameters(dtype="float64"):
    """Named as PyTorch names them."""
    rng = np.random.default_rng(0)
    values = {}
    for name, (into, out) in (("0", WIDTHS[:2]), ("2", WIDTHS[1:])):
        values[f"{name}.weight"], values[f"{name}.bias"] = rng.normal(size=(out, into)), rng.normal(size=out)
    return {name: jnp.asarray(a, dtype) for name, a in values.items()}


def data(dtype="float64"):
    """Inputs and classes."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(EXAMPLES, WIDTHS[0])).astype(dtype), rng.integers(0, WIDTHS[2], EXAMPLES)


def jax_model(dtype="float64", **options):
    """As a function of a pytree."""
    return JaxModel(network, parameters(dtype), data(dtype), cross_entropy, **options)


def torch_module(dtype="float64"):
    """As an ``nn.Module``."""
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(*WIDTHS[:2]), torch.nn.Tanh(), torch.nn.Linear(*WIDTHS[1:]))
    state = {name: torch.tensor(np.asarray(a)) for name, a in parameters(dtype).items()}
    module.to(getattr(torch, dtype)).load_state_dict(state)
    return module


def torch_model(dtype="float64", **options):
    """The module with its data."""
    torch = pytest.importorskip("torch")
    from separatrix.probes.torch_model import TorchModel

    return TorchModel(torch_module(dtype), data(dtype), torch.nn.functional.cross_entropy, **options)


def in_order_of_jax(model, vectors):
    """Flat vectors with the blocks in the order of the JAX model, as NumPy arrays: a pytree sorts its names."""
    vectors = np.asarray(vectors)
    return np.concatenate([vectors[..., model.blocks[name]] for name in sorted(model.blocks)], -1)


def dense_derivatives():
    """Gradient, Hessian, Gauss-Newton matrix, gradients and Hessians of single examples, in the order of JAX."""
    start, unravel = ravel_pytree(parameters())
    x, y = map(jnp.asarray, data())
    value = lambda flat, x=x, y=y: cross_entropy(network(unravel(flat), x), y)  # noqa: E731

    @jax.jit
    def all_of_it(flat):
        outputs = lambda flat: network(unravel(flat), x)  # noqa: E731
        jacobian = jax.jacobian(outputs)(flat)
        curvature = jax.hessian(lambda z: cross_entropy(z, y))(outputs(flat))
        return {
            "loss": value(flat),
            "gradient": jax.grad(value)(flat),
            "outputs": outputs(flat),
            "jacobian": jacobian,
            "gauss_newton": jnp.einsum("ncp,ncmd,mdq->pq", jacobian, curvature, jacobian),
            "gradients": jax.vmap(lambda x, y: jax.grad(value)(flat, x[None], y[None]))(x, y),
            "hessians": jax.vmap(lambda x, y: jax.hessian(value)(flat, x[None], y[None]))(x, y),
        }

    made = jax.tree.map(np.asarray, all_of_it(start))
    return made | {"hessian": made["hessians"].mean(axis=0)}
