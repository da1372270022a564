"""Networks against their formulas written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from separatrix.networks.activations import activate
from separatrix.networks.cnn import CNN
from separatrix.networks.mlp import MLP


def test_gelu_is_the_input_times_the_normal_distribution_function():
    x = np.linspace(-6, 6, 101)
    np.testing.assert_allclose(activate("gelu", jnp.asarray(x)), x * stats.norm.cdf(x), atol=1e-14)


@pytest.mark.parametrize("parametrisation", ["standard", "ntk"])
def test_mlp_is_a_chain_of_affine_maps_and_activations(parametrisation):
    net = MLP((5, 7, 3), "tanh", parametrisation)
    parameters = net.init(np.random.default_rng(0))
    parameters[0]["bias"] += 0.3
    x = np.random.default_rng(1).normal(size=(4, 5))
    first, second = (1, 1) if parametrisation == "standard" else (5**-0.5, 7**-0.5)
    hidden = np.tanh(first * x @ parameters[0]["weight"] + parameters[0]["bias"])
    expected = second * hidden @ parameters[1]["weight"] + parameters[1]["bias"]
    np.testing.assert_allclose(net(parameters, jnp.asarray(x)), expected, rtol=1e-13)


@pytest.mark.parametrize("parametrisation", ["standard", "ntk"])
def test_relu_networks_keep_the_mean_square_of_their_signal_at_the_start(parametrisation):
    net = MLP((400, 400, 400, 400), "relu", parametrisation)
    x = np.random.default_rng(1).normal(size=(50, 400))
    outputs = np.asarray(net(net.init(np.random.default_rng(0)), jnp.asarray(x)))
    # He's variance doubles the mean square of a linear layer and a ReLU halves it; the last layer has no ReLU.
    assert np.mean(outputs**2) == pytest.approx(2, rel=0.25)


def test_both_parametrisations_start_from_the_same_functions():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 6)))
    outputs = [net(net.init(np.random.default_rng(0)), x) for net in (MLP((6, 9, 2)), MLP((6, 9, 2), "gelu", "ntk"))]
    np.testing.assert_allclose(*outputs, rtol=1e-12)


def test_batch_norm_makes_the_network_blind_to_the_scale_of_a_hidden_weight():
    net = MLP((6, 8, 8, 3), "relu", batch_norm=True)
    parameters = net.init(np.random.default_rng(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(40, 6)))
    scaled = [{**layer, "weight": layer["weight"] * 10} if i == 0 else layer for i, layer in enumerate(parameters)]
    np.testing.assert_allclose(net(parameters, x), net(scaled, x), atol=1e-4)


def test_batch_norm_with_given_statistics_treats_each_input_alone():
    net = MLP((6, 8, 3), batch_norm=True)
    parameters = net.init(np.random.default_rng(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(40, 6)))
    known = net.statistics(parameters, x)
    np.testing.assert_allclose(net(parameters, x, known), net(parameters, x), rtol=1e-12)
    np.testing.assert_allclose(net(parameters, x[:1], known), net(parameters, x)[:1], rtol=1e-12)
    assert len(known) == 1


def test_cnn_on_a_constant_image_is_known_in_closed_form():
    # On one pixel a 3 x 3 convolution of zero padding is the product with the middle of its kernel.
    net = CNN((1, 1), 2, channels=(3, 4), activation="tanh")
    parameters = net.init(np.random.default_rng(0))
    value = 0.7
    hidden = np.tanh(value * parameters[0]["weight"][1, 1, 0])
    hidden = np.tanh(hidden @ parameters[1]["weight"][1, 1])
    np.testing.assert_allclose(
        net(parameters, jnp.full((1, 1), value))[0], hidden @ parameters[2]["weight"], rtol=1e-12
    )


@pytest.mark.parametrize("size", [(8, 8), (7, 6)])
def test_cnn_convolves_as_the_library_does(size):
    net = CNN((*size, 2), 3, channels=(4, 5), activation="relu")
    parameters = net.init(np.random.default_rng(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, *size, 2)))
    images = x
    for layer, stride in zip(parameters, (1, 2), strict=False):
        padding, layout = ((1, 1), (1, 1)), ("NHWC", "HWIO", "NHWC")
        images = jax.lax.conv_general_dilated(images, layer["weight"], (stride,) * 2, padding, dimension_numbers=layout)
        images = jnp.maximum(images, 0)
    expected = images.mean(axis=(1, 2)) @ parameters[-1]["weight"]
    np.testing.assert_allclose(net(parameters, x.reshape(3, -1)), expected, rtol=1e-10, atol=1e-12)


def test_cnn_reads_channels_last_and_has_the_parameters_of_its_layers():
    net = CNN((8, 8, 3), 10)
    parameters = net.init(np.random.default_rng(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    assert count == 9 * (3 * 16 + 16 * 32 + 32 * 32) + (16 + 32 + 32) + 32 * 10 + 10
    assert net(parameters, jnp.zeros((5, 192))).shape == (5, 10)


@pytest.mark.parametrize("make", [lambda: MLP((3,)), lambda: MLP((3, 0)), lambda: CNN((8,), 2), lambda: CNN((8, 8), 0)])
def test_impossible_sizes_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()
