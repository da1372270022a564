"""JAX functions of pytrees: what they mean to a probe, what is refused, and what is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import cross_entropy, data, jax_model, network, parameters

from separatrix.probes import jax_programs as programs
from separatrix.probes.jax_model import JaxModel
from separatrix.probes.operators import ProbeError


def linear(params, inputs):
    return inputs @ params["w"]


def square(outputs, targets):
    return 0.5 * jnp.mean(jnp.sum((outputs - targets) ** 2, axis=-1))


def task(n=6, dtype="float64"):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(n, 3)), dtype), jnp.asarray(rng.normal(size=(n, 2)), dtype)


def test_another_checkpoint_and_other_data_compile_nothing():
    first = jax_model()
    v = first.vector(np.ones(first.size))
    first.gradient(), first.hvp(v), first.gauss_newton(v), list(first.per_example_gradients())
    first.per_example_moments(v)
    compiled = [programs.gradient, programs.linearise_gradient, programs.apply, programs.apply_gauss_newton,
                programs.example_gradients, programs.example_moments]  # fmt: skip
    before = [program._cache_size() for program in compiled]
    moved = jax.tree.map(lambda a: a + 0.1, parameters())
    x, y = data()
    other = JaxModel(network, moved, (x + 1, y), cross_entropy)
    assert not np.allclose(other.hvp(v), first.hvp(v))
    other.gradient(), other.gauss_newton(v), list(other.per_example_gradients()), other.per_example_moments(v)
    assert [program._cache_size() for program in compiled] == before


def test_leaves_that_are_not_floating_point_are_constants_and_names_are_paths():
    params = {"w": jnp.ones((3, 2)), "steps": jnp.arange(4), "deep": [{"unused": jnp.ones(2)}]}
    model = JaxModel(linear, params, task(), square)
    assert dict(model.blocks) == {"deep.0.unused": slice(0, 2), "w": slice(2, 8)}
    x, _ = task()
    hessian = np.asarray(model.hvp(jnp.eye(8)))
    np.testing.assert_allclose(hessian[2:, 2:], np.kron(x.T @ x / 6, np.eye(2)), atol=1e-12)
    assert np.all(hessian[:2] == 0)
    np.testing.assert_allclose(model.flatten(params), model.parameters)
    with pytest.raises(ProbeError, match="the pytree must have the structure of the parameters"):
        model.flatten({"w": params["w"]})


def test_bfloat16_is_computed_in_float32():
    x, y = task(dtype="bfloat16")
    model = JaxModel(linear, {"w": jnp.ones((3, 2), jnp.bfloat16)}, (x, y), square)
    assert model.dtype == np.float32
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(model.hvp(model.vector(np.eye(6))), np.kron(wide.T @ wide / 6, np.eye(2)), rtol=1e-5)


def test_a_function_that_is_the_loss_has_no_outputs():
    x, y = task()
    model = JaxModel(lambda params, batch: square(linear(params, batch["x"]), batch["y"]) + 0.5 * batch["decay"] *
                     jnp.sum(params["w"] ** 2), {"w": jnp.ones((3, 2))},
                     {"x": x, "y": y, "decay": jnp.asarray(0.3)})  # fmt: skip
    exact = np.kron(x.T @ x / 6 + 0.3 * np.eye(3), np.eye(2))
    np.testing.assert_allclose(model.hvp(jnp.eye(6)), exact, atol=1e-12)
    mean = np.mean(np.concatenate(list(model.per_example_gradients(2))), axis=0)
    np.testing.assert_allclose(mean, model.gradient(), atol=1e-12)
    with pytest.raises(ProbeError, match="this needs the outputs of the model"):
        model.outputs()


def test_memory_is_predicted_from_shapes_and_tiles_fit_it():
    x, y = task(64)
    params = {"w": jnp.ones((3, 2))}
    model = JaxModel(linear, params, (x, y), square)
    held = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves([kept for kept, _ in model._linear_gradients]))
    assert abs(model.memory_needed - held) <= 8 * model.size
    tight = JaxModel(linear, params, (x, y), square, available_memory=model.memory_needed // 4)
    assert max(len(batch[0]) for batch, _ in tight._tiles) <= 16
    np.testing.assert_allclose(tight.gradient(), model.gradient(), atol=1e-12)
    with pytest.raises(ProbeError, match="the derivatives of a single example need"):
        JaxModel(linear, params, (x, y), square, available_memory=0)


def batch_statistics(params, inputs):
    return (inputs - jnp.mean(inputs, axis=0)) @ params["w"]


rng_of_the_loss = np.random.default_rng(0)


def random_loss(outputs, targets):
    return square(outputs + rng_of_the_loss.normal(), targets)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: JaxModel(linear, {"w": jnp.ones((3, 2))}, task(), random_loss),
         "the loss changes from call to call: it must not draw random numbers or keep a state"),
        (lambda: list(JaxModel(batch_statistics, {"w": jnp.ones((3, 2))}, task(), square).per_example_gradients()),
         "gradients of single examples cannot be taken: the loss of a batch is not the mean of the losses"),
        (lambda: JaxModel(linear, {"w": "abc"}, task(), square), "the leaf w of the parameters is of type str"),
        (lambda: JaxModel(linear, {"w": jnp.ones((3, 2), complex)}, task(), square),
         "the leaf w of the parameters is complex"),
        (lambda: JaxModel(linear, {"w": jnp.arange(3)}, task(), square), "hold no floating-point numbers"),
        (lambda: JaxModel(linear, {"w": jnp.ones((3, 2))}, task(), lambda a, b: a),
         "the loss of a batch must be a scalar, got shape (6, 2)"),
        (lambda: JaxModel(linear, {"w": jnp.full((3, 2), np.inf)}, task(), square), "it has no derivatives to measure"),
        (lambda: JaxModel(linear, {"w": jnp.ones((3, 2))}, task()[0], square),
         "a batch must be a tuple (inputs, targets)"),
        (lambda: JaxModel(linear, {"w": jnp.ones((3, 2))}, (task()[0], task(5)[1]), square),
         "the same positive number of examples, got [5, 6]"),
        (lambda: JaxModel(linear, {"w": jnp.ones((3, 2))}, [], square), "the data hold no batch"),
        (lambda: JaxModel(linear, {"w": jnp.ones((3, 2))}, task(), square).hvp(jnp.ones(5)),
         "a vector of this model has shape (6,) and a block (k, 6), got (5,)"),
        (lambda: JaxModel(linear, {"w": jnp.ones((3, 2))}, task(), square).vjp(jnp.ones(5)),
         "the outputs have shape (6, 2), got (5,)"),
    ],
    ids=["random", "batch statistics", "text", "complex", "integers", "no scalar", "not finite", "no targets",
         "lengths", "no data", "vector", "outputs"],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_in_one_sentence(make, sentence):
    with pytest.raises(ProbeError) as refused:
        make()
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
