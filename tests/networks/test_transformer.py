"""A transformer sees the past only, starts from the uniform law, and is what its formulas say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from separatrix.networks.mlp import MLP
from separatrix.networks.scaled_difference import ScaledDifference
from separatrix.networks.transformer import Transformer

NET = Transformer(11, 6, depth=2, width=8, heads=2)
RNG = np.random.default_rng(0)
# far from the start, so that attention is not uniform and no bias is zero
PARAMETERS = jax.tree.map(lambda leaf: leaf + 0.5 * RNG.normal(size=leaf.shape), NET.init(RNG))
TOKENS = RNG.integers(0, 11, (3, 6)).astype(np.int32)
forward = jax.jit(lambda net, p, x: net(p, x), static_argnums=0)


def by_hand(net, parameters, tokens):
    """Logits of one sequence, position by position and head by head."""

    def norm(layer, x):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * layer["gain"] + layer["shift"]

    def affine(layer, x):
        return x @ layer["weight"] + layer["bias"]

    stream = [parameters["tokens"][token] + parameters["positions"][t] for t, token in enumerate(tokens)]
    size = net.width // net.heads
    for block in parameters["blocks"]:
        projected = [np.split(affine(block["attention"], norm(block["attention_norm"], x)), 3) for x in stream]
        for t in range(len(tokens)):
            heads = []
            for head in range(net.heads):
                part = slice(head * size, (head + 1) * size)
                scores = [projected[t][0][part] @ projected[s][1][part] / np.sqrt(size) for s in range(t + 1)]
                values = [projected[s][2][part] for s in range(t + 1)]
                heads.append(special.softmax(scores) @ np.array(values))
            stream[t] = stream[t] + affine(block["attention_out"], np.concatenate(heads))
        for t, x in enumerate(stream):
            hidden = affine(block["perceptron"], norm(block["perceptron_norm"], x))
            stream[t] = x + affine(block["perceptron_out"], hidden * stats.norm.cdf(hidden))
    return np.stack([norm(parameters["norm"], x) for x in stream]) @ parameters["head"]


def test_it_is_what_its_formulas_say():
    expected = [by_hand(NET, PARAMETERS, tokens) for tokens in TOKENS]
    np.testing.assert_allclose(forward(NET, PARAMETERS, TOKENS), expected, rtol=1e-10, atol=1e-12)


def test_an_output_does_not_depend_on_later_tokens_and_does_on_earlier_ones():
    outputs = np.asarray(forward(NET, PARAMETERS, TOKENS))
    for place in range(6):
        other = TOKENS.copy()
        other[:, place] = (other[:, place] + 1) % 11
        changed = np.any(np.asarray(forward(NET, PARAMETERS, other)) != outputs, axis=(0, 2))
        np.testing.assert_array_equal(changed, np.arange(6) >= place)
    np.testing.assert_allclose(forward(NET, PARAMETERS, TOKENS[:, :4]), outputs[:, :4], rtol=1e-12)


def test_without_positions_the_order_of_the_past_does_not_matter():
    blind = PARAMETERS | {"positions": np.zeros_like(PARAMETERS["positions"])}
    one_block = Transformer(11, 6, depth=1, width=8, heads=2)
    single = blind | {"blocks": blind["blocks"][:1]}
    turned = TOKENS[:, [3, 0, 2, 1, 4, 5]]
    same = [np.allclose(forward(one_block, p, TOKENS)[:, 5], forward(one_block, p, turned)[:, 5], rtol=1e-10)
            for p in (single, single | {"positions": PARAMETERS["positions"]})]  # fmt: skip
    assert same == [True, False]


@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_at_the_start_is_that_of_the_uniform_law_and_half_the_variance_of_the_outputs(tied):
    net = Transformer(50, 16, width=32, tied=tied)
    tokens = np.random.default_rng(1).integers(0, 50, (40, 17))
    losses = []
    for seed in range(8):
        outputs = forward(net, net.init(np.random.default_rng(seed)), tokens[:, :-1])
        chosen = np.take_along_axis(np.asarray(jax.nn.log_softmax(outputs)), tokens[:, 1:, None], axis=-1)
        losses.append(-chosen.mean())
    # a stream of mean square 1 in d places, times weights of variance 0.02^2 768 / d
    expected = np.log(50) + 0.02**2 * 768 / 2
    assert np.mean(losses) == pytest.approx(expected, abs=0.02)


def test_parameters_are_those_of_its_layers_and_a_tied_table_counts_once():
    v, t, d, depth = 30, 12, 16, 3
    block = 4 * d + (d + 1) * 3 * d + (d + 1) * d + (d + 1) * 4 * d + (4 * d + 1) * d
    for tied in (False, True):
        net = Transformer(v, t, depth, d, heads=4, tied=tied)
        count = sum(leaf.size for leaf in jax.tree.leaves(net.init(np.random.default_rng(0))))
        assert count == (2 - tied) * v * d + t * d + depth * block + 2 * d


def test_a_tied_output_layer_is_the_transpose_of_the_embedding():
    tied = Transformer(11, 6, depth=2, width=8, heads=2, tied=True)
    shared = {name: leaf for name, leaf in PARAMETERS.items() if name != "head"}
    expected = forward(NET, shared | {"head": PARAMETERS["tokens"].T}, TOKENS)
    np.testing.assert_allclose(forward(tied, shared, TOKENS), expected, rtol=1e-12)


@pytest.mark.parametrize("sizes", [(0, 4, 1, 4, 2), (5, 4, 1, 6, 4), (5, 4, 1, 4, 0)])
def test_impossible_transformers_are_refused(sizes):
    with pytest.raises(ValueError, match="must be positive and the width a multiple of the heads"):
        Transformer(*sizes)


def test_a_scaled_difference_starts_at_zero_with_twice_the_tangent_kernel_whatever_the_scale():
    net, x = MLP((4, 6, 3), "tanh"), jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)))

    def kernel(function, parameters):
        slopes = jax.tree.leaves(jax.jacrev(lambda p: function(p, x))(parameters))
        rows = np.concatenate([np.asarray(slope).reshape(15, -1) for slope in slopes], axis=1)
        return rows @ rows.T

    alone = kernel(net, jax.tree.map(jnp.asarray, net.init(np.random.default_rng(0))))
    for scale in (1.0, 100.0):
        lazy = ScaledDifference(net, scale)
        parameters = jax.tree.map(jnp.asarray, lazy.init(np.random.default_rng(0)))
        np.testing.assert_array_equal(lazy(parameters, x), 0)
        np.testing.assert_allclose(kernel(lazy, parameters), 2 * alone, rtol=1e-10)


def test_a_scaled_difference_departs_from_its_expansion_by_one_over_the_scale():
    net, x = MLP((4, 6, 3), "tanh"), jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)))
    departures = []
    for scale in (50.0, 100.0):
        lazy = ScaledDifference(net, scale)
        start = jax.tree.map(jnp.asarray, lazy.init(np.random.default_rng(0)))
        rng = np.random.default_rng(2)
        # steps of one size in the parameters of both scales, as training makes them
        step = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), start)  # noqa: B023
        linear = jax.jvp(lambda p: lazy(p, x), (start,), (step,))[1]  # noqa: B023
        departures.append(np.abs(lazy(jax.tree.map(jnp.add, start, step), x) - linear).max())
    assert departures[0] / departures[1] == pytest.approx(2, rel=0.1)


def test_a_scale_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="scale must be positive"):
        ScaledDifference(MLP((2, 2)), 0.0)
