"""Every way to the tangent kernel gives J J^T, and estimates lie within their errors of it."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.probes.jax_model import JaxModel
from separatrix.probes.tangent_kernel import jax_layers
from separatrix.probes.tangent_kernel.distance import distance_matrix, effective_rank, kernel_distance
from separatrix.probes.tangent_kernel.jax_kernel import JaxTangentKernel
from separatrix.probes.tangent_kernel.jax_products import _products, product_bytes, tangent_products, tile_size
from separatrix.probes.tangent_kernel.products import (
    contracted_products,
    estimated_distance,
    estimated_distances,
    kernel_products,
    kernel_size,
    sign_probes,
)
from separatrix.probes.tangent_kernel.sketch import parameter_sketch, sketched_distance

SAMPLES, CLASSES = 7, 3


def dense(parameters, x):
    """Two layers and a bias, compiled, as users write them."""
    hidden = jax.jit(lambda w, x: jax.nn.gelu(x @ w))(parameters["in"], x)
    return hidden @ parameters["out"] + parameters["bias"]


def transposed(parameters, x):
    """Weights as PyTorch keeps them, one layer scaled, a parameter that multiplies."""
    hidden = jax.nn.relu(x @ parameters["in"].T * 0.5)
    return parameters["gain"] * jnp.tanh(hidden @ parameters["out"].T)


def tied(parameters, x):
    """A weight that is used twice, one that is squared, and one that is not used."""
    hidden = jnp.tanh(jnp.tanh(x @ parameters["square"]) @ parameters["square"])
    return hidden @ parameters["out"] ** 2


def looped(parameters, x):
    """Layers stacked along the axis of a loop."""
    hidden, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, parameters["stack"])
    return hidden @ parameters["out"]


def convolutional(parameters, x):
    """Strided convolutions, a mean over positions."""
    images = x.reshape(len(x), 6, 6, 1)
    for name, stride in (("first", 1), ("second", 2)):
        images = jax.lax.conv_general_dilated(
            images, parameters[name], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        images = jax.nn.relu(images + parameters[f"{name}_bias"])
    return images.mean(axis=(1, 2)) @ parameters["out"] + parameters["bias"]


def token_mixing(parameters, x):
    """A layer that acts at several positions, and one that mixes positions from the left."""
    tokens = x.reshape(len(x), 6, 6)
    hidden = jnp.tanh(jnp.einsum("st,ntd->nsd", parameters["mix"], tokens @ parameters["in"]))
    return hidden.sum(axis=1) @ parameters["out"]


def few_tokens(parameters, x):
    """Layers at two positions, whose pairs are summed."""
    hidden = jnp.tanh(x.reshape(len(x), 2, 18) @ parameters["in"])
    return jnp.tanh(hidden @ parameters["hidden"]).sum(axis=1) @ parameters["out"]


def shapes(function):
    return {
        dense: {"in": (5, 8), "out": (8, CLASSES), "bias": (CLASSES,)},
        transposed: {"in": (8, 5), "out": (CLASSES, 8), "gain": ()},
        tied: {"square": (5, 5), "out": (5, CLASSES), "unused": (2,)},
        looped: {"stack": (3, 5, 5), "out": (5, CLASSES)},
        convolutional: {
            "first": (3, 3, 1, 4), "first_bias": (4,), "second": (3, 3, 4, 5), "second_bias": (5,), "out": (5, CLASSES),
            "bias": (CLASSES,),
        },
        few_tokens: {"in": (18, 16), "hidden": (16, 16), "out": (16, CLASSES)},
        token_mixing: {"mix": (6, 6), "in": (6, 4), "out": (4, CLASSES)},
    }[function]  # fmt: skip


def model(function, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    parameters = {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes(function).items()}
    width = 36 if function in (convolutional, token_mixing, few_tokens) else 5
    return parameters, jnp.asarray(np.random.default_rng(99).normal(size=(SAMPLES, width)), dtype)


def brute_force(function, parameters, x):
    """J J^T with J from reverse-mode derivatives of all outputs together."""
    jacobian = jax.jit(jax.jacrev(lambda p: function(p, x)))(parameters)
    flat = np.concatenate([np.asarray(a).reshape(SAMPLES * CLASSES, -1) for a in jax.tree.leaves(jacobian)], axis=1)
    return flat @ flat.T


def contracted(kernel, contraction):
    four = kernel.reshape(SAMPLES, CLASSES, SAMPLES, CLASSES)
    if contraction == "class-trace":
        return np.einsum("icjc->ij", four) / CLASSES
    return four.sum(axis=(1, 3)) / CLASSES if contraction == "sum-of-logits" else kernel


FUNCTIONS = [dense, transposed, tied, looped, convolutional, token_mixing, few_tokens]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_kernel_is_the_gram_matrix_of_the_jacobian_for_every_kind_of_program(function):
    parameters, x = model(function)
    expected = brute_force(function, parameters, x)
    found = np.asarray(JaxTangentKernel(function, parameters, x)(parameters))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("function", "contraction"),
    [
        (dense, "full"),
        (dense, "class-trace"),
        pytest.param(convolutional, "full", marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_blocks_of_examples_and_contractions_over_classes_change_nothing_else(function, contraction):
    parameters, x = model(function)
    expected = contracted(brute_force(function, parameters, x), contraction)
    whole = JaxTangentKernel(function, parameters, x, contraction=contraction)
    probe = JaxTangentKernel(
        function, parameters, x, contraction=contraction, memory_bytes=int(0.6 * whole.predicted_bytes)
    )
    assert 1 <= probe.block < SAMPLES
    assert probe.predicted_bytes <= 0.6 * whole.predicted_bytes
    np.testing.assert_allclose(probe(parameters), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(whole(parameters), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("contraction", ["class-trace", "sum-of-logits"])
def test_a_larger_convolutional_kernel_is_right_in_every_contraction(contraction):
    # more rows than a tile of the compiler's matrix products, and constant factors (the derivatives of the last bias)
    parameters, _ = model(convolutional)
    x = jnp.asarray(np.random.default_rng(4).normal(size=(40, 36)))
    jacobian = jax.jit(jax.jacrev(lambda p: convolutional(p, x)))(parameters)
    flat = np.concatenate([np.asarray(a).reshape(40, CLASSES, -1) for a in jax.tree.leaves(jacobian)], axis=2)
    full = np.einsum("icp,jdp->icjd", flat, flat)
    expected = {
        "class-trace": np.einsum("icjc->ij", full) / CLASSES,
        "sum-of-logits": full.sum(axis=(1, 3)) / CLASSES,
    }[contraction]
    found = JaxTangentKernel(convolutional, parameters, x, contraction=contraction)(parameters)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("function", "layers"),
    [(dense, ["in", "out"]), (transposed, ["in", "out"]), (tied, []), (looped, ["out"]),
     (convolutional, ["first", "out", "second"]), (token_mixing, ["in", "mix", "out"])],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_layers_are_found_where_a_weight_acts_once(function, layers):
    parameters, x = model(function)
    traced = jax_layers.trace(function, parameters, x[0])
    names = sorted(parameters)
    assert sorted(names[layer.leaf] for layer in traced.layers) == layers


def test_one_program_serves_all_checkpoints():
    traces = []

    def counted(parameters, x):
        traces.append(1)
        return dense(parameters, x)

    parameters, x = model(dense)
    probe = JaxTangentKernel(counted, parameters, x)
    probe(parameters)
    before = len(traces)
    other, _ = model(dense, seed=1)
    expected = brute_force(dense, other, x)
    np.testing.assert_allclose(probe(other), expected, atol=1e-12 * np.abs(expected).max())
    assert len(traces) == before


def test_low_precision_is_accumulated_in_float32():
    parameters, x = model(dense, dtype=jnp.bfloat16)
    found = JaxTangentKernel(dense, parameters, x)(parameters)
    assert found.dtype == jnp.float32
    exact = jax.tree.map(lambda a: np.asarray(a, np.float64), (parameters, x))
    expected = brute_force(dense, *jax.tree.map(jnp.asarray, exact))
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("function", "x", "words"),
    [
        (dense, np.ones((1, 5)), "two or more examples"),
        (lambda p, x: dense(p, x).sum(axis=1), np.ones((3, 5)), "shape"),
        (lambda p, x: dense(p, x) / 0.0, np.ones((3, 5)), "not finite"),
        (lambda p, x: dense(p, x - x.mean(axis=0)), np.eye(5), "batch norm"),
    ],
    ids=["one-example", "shape", "infinite", "batch-statistics"],
)
def test_models_without_a_kernel_are_refused(function, x, words):
    parameters, _ = model(dense)
    with pytest.raises(ValueError, match=words):
        JaxTangentKernel(function, parameters, jnp.asarray(x))


def test_a_random_model_too_little_memory_and_unknown_words_are_refused():
    parameters, x = model(dense)
    noise = np.random.default_rng(0)
    with pytest.raises(ValueError, match="dropout"):
        JaxTangentKernel(lambda p, x: dense(p, x) * noise.normal(), parameters, x)
    with pytest.raises(ValueError, match="MiB allowed"):
        JaxTangentKernel(dense, parameters, x, memory_bytes=2000)
    with pytest.raises(ValueError, match="class-trace"):
        JaxTangentKernel(dense, parameters, x, contraction="mean")
    with pytest.raises(ValueError, match="int"):
        JaxTangentKernel(dense, {**parameters, "bias": jnp.ones(3, int)}, x)


# -- estimates ------------------------------------------------------------------------------------------------------


@cache
def two_checkpoints():
    """A model at two places, as operators and as exact kernels."""
    first, x = model(dense)
    second = jax.tree.map(lambda a, b: a + 0.3 * b, first, model(dense, seed=5)[0])
    labels = jnp.zeros(SAMPLES, int)
    loss = lambda outputs, labels: -jnp.mean(jax.nn.log_softmax(outputs)[jnp.arange(len(labels)), labels])  # noqa: E731
    return [JaxModel(dense, p, (x, labels), loss) for p in (first, second)], [
        brute_force(dense, p, x) for p in (first, second)
    ]


def test_products_with_probes_are_those_of_the_kernel():
    models, kernels = two_checkpoints()
    probes = sign_probes((SAMPLES, CLASSES), 5, seed=0)
    for one, kernel in zip(models, kernels, strict=True):
        expected = (probes.reshape(5, -1) @ kernel).reshape(probes.shape)
        np.testing.assert_allclose(kernel_products(one, probes, together=2), expected, rtol=1e-10)
    with pytest.raises(ValueError, match="shape"):
        kernel_products(models[0], probes[:, :2])


@pytest.mark.parametrize("contraction", ["class-trace", "sum-of-logits"])
def test_products_of_contracted_kernels_are_those_of_the_exact_ones(contraction):
    (one, _), (kernel, _) = two_checkpoints()
    whole = kernel.reshape(SAMPLES, CLASSES, SAMPLES, CLASSES)
    expected = np.einsum("icjc->ij" if contraction == "class-trace" else "icjd->ij", whole) / CLASSES
    probes = sign_probes((SAMPLES,), 5, seed=0)
    np.testing.assert_allclose(contracted_products(one, probes, contraction), probes @ expected, rtol=1e-9)


def test_products_in_tiles_and_groups_are_those_of_the_kernel_and_of_its_diagonal_blocks(monkeypatch):
    monkeypatch.setattr("separatrix.probes.tangent_kernel.jax_products.TILE_BYTES", 2**17)
    parameters, _ = model(convolutional)
    x = jnp.asarray(np.random.default_rng(8).normal(size=(24, 36)))
    assert tile_size(convolutional, parameters, x, subsets=2) in (2, 3, 4, 6)  # more than one tile in a subset
    jacobian = jax.jit(jax.jacrev(lambda p: convolutional(p, x)))(parameters)
    rows = np.concatenate([np.asarray(a).reshape(24 * CLASSES, -1) for a in jax.tree.leaves(jacobian)], axis=1)
    kernel = (rows @ rows.T).reshape(24, CLASSES, 24, CLASSES)
    vectors = jnp.asarray(np.random.default_rng(9).normal(size=(11, 24, CLASSES)))  # two groups, one filled up
    program = _products.lower(convolutional, 2, parameters, x, vectors).compile()
    products, within = program(parameters, x, vectors)
    size = np.abs(kernel).max()
    np.testing.assert_allclose(products, np.einsum("icjd,mjd->mic", kernel, vectors), atol=1e-10 * size)
    for part in (slice(12), slice(12, None)):
        expected = np.einsum("icjd,mjd->mic", kernel[part, :, part], vectors[:, part])
        np.testing.assert_allclose(within[:, part], expected, atol=1e-10 * size)
    vectors_and_products = 4 * vectors.nbytes
    predicted = product_bytes(convolutional, parameters, x, subsets=2) + vectors_and_products
    assert program.memory_analysis().temp_size_in_bytes <= predicted
    with pytest.raises(ValueError, match="5 subsets"):
        tangent_products(convolutional, parameters, x, vectors, subsets=5)


def test_all_distances_are_those_of_the_pairs_and_keep_their_digits():
    _, kernels = two_checkpoints()
    probes = sign_probes((SAMPLES * CLASSES,), 12, seed=4)
    nearby = kernels[0] + 1e-9 * kernels[1]
    products = [probes @ kernel for kernel in (*kernels, nearby)]
    distance, error = estimated_distances(products)
    np.testing.assert_allclose(distance, distance_matrix(products), rtol=1e-6, atol=1e-30)
    pair = estimated_distance(products[1], products[2])
    assert (distance[1, 2], error[1, 2]) == (pair.distance, pair.standard_error)
    assert 0 < distance[0, 2] < 1e-16
    # twice the vectors say the same, with an error smaller by the root of two
    _, doubled = estimated_distances([np.concatenate([one, one]) for one in products])
    np.testing.assert_allclose(doubled[0, 1], error[0, 1] * np.sqrt(11 / 23), rtol=1e-9)


def test_distances_from_shared_probes_cover_the_exact_one_at_the_stated_rate():
    _, (first, second) = two_checkpoints()
    exact = kernel_distance(first, second)
    scores, errors = [], []
    for seed in range(300):
        probes = sign_probes((SAMPLES * CLASSES,), 32, seed)
        found = estimated_distance(probes @ first, probes @ second)
        scores.append((found.distance - exact) / found.standard_error)
        errors.append(found.standard_error)
    assert np.mean(np.abs(scores) < 2) > 0.88
    assert np.std(scores) < 1.4
    assert np.mean(errors) < 0.25 * exact  # errors of numerator and denominators cancel


def test_sketches_are_unbiased_where_the_plain_estimate_is_not():
    models, (first, second) = two_checkpoints()
    exact = kernel_distance(first, second)
    jacobians = []
    for one in models:
        rows = np.eye(SAMPLES * CLASSES).reshape(-1, SAMPLES, CLASSES)
        jacobians.append(np.asarray(one.vjp(one.vector(rows))))
    unbiased, plain, covered = [], [], []
    for seed in range(300):
        directions = np.random.default_rng([7, seed]).normal(size=(24, models[0].size)) / np.sqrt(24)
        a, b = (directions @ jacobian.T for jacobian in jacobians)
        found = sketched_distance(a, b)
        unbiased.append(found.distance)
        covered.append(abs(found.distance - exact) < 2 * found.standard_error)
        plain.append(kernel_distance(a.T @ a, b.T @ b))
    error = np.std(unbiased) / np.sqrt(300)
    assert abs(np.mean(unbiased) - exact) < 4 * error + 0.02 * exact
    assert np.mean(plain) - exact > 10 * error
    assert np.mean(covered) > 0.85


def test_a_sketch_of_a_model_is_its_jacobian_along_the_same_directions():
    models, _ = two_checkpoints()
    first, again, other = (parameter_sketch(m, 6, seed=3, together=n) for m, n in zip((*models[:1] * 2, models[1]), (4, 6, 6), strict=True))  # fmt: skip  # noqa: E501
    assert first.shape == (6, SAMPLES, CLASSES)
    np.testing.assert_allclose(first, again, rtol=1e-12)
    assert sketched_distance(first, again).distance == pytest.approx(0, abs=1e-12)
    assert sketched_distance(first, other).distance != 0
    with pytest.raises(ValueError, match="three"):
        parameter_sketch(models[0], 2, seed=0)


def test_size_of_a_kernel_from_products():
    _, (kernel, _) = two_checkpoints()
    probes = sign_probes((len(kernel),), 2000, seed=1)
    found = kernel_size(probes @ kernel, probes)
    assert abs(found.trace - np.trace(kernel)) < 4 * found.trace_error
    assert abs(found.norm - np.linalg.norm(kernel)) < 4 * found.norm_error
    assert abs(found.effective_rank - effective_rank(kernel)) < 4 * found.effective_rank_error
    assert found.effective_rank_error < 0.1 * found.effective_rank


def test_estimates_from_one_probe_or_of_nothing_are_refused():
    with pytest.raises(ValueError, match="two or more"):
        estimated_distance(np.ones((1, 4)), np.ones((1, 4)))
    with pytest.raises(ValueError, match="not all zero"):
        estimated_distance(np.ones((2, 4)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="two or more"):
        kernel_size(np.ones((1, 4)), np.ones((1, 4)))
    with pytest.raises(ValueError, match="three or more"):
        sketched_distance(np.ones((2, 4)), np.ones((2, 4)))
