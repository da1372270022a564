"""Starts of deep linear networks have the spectra and the alignment that they promise."""

import itertools

import numpy as np
import pytest

from separatrix.systems.deep_linear.gradient_noise import layer_product
from separatrix.systems.deep_linear.starts import (
    decoupled_weights,
    gaussian_weights,
    orthogonal_weights,
    pretrained_weights,
    random_frame,
    zero_balanced_weights,
)
from separatrix.systems.deep_linear.teacher import Teacher


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (6, 3), (3, 6)])
def test_frames_are_orthonormal_along_their_short_side(rows, columns):
    frame = random_frame(rng(), rows, columns)
    assert frame.shape == (rows, columns)
    small = frame.T @ frame if rows >= columns else frame @ frame.T
    np.testing.assert_allclose(small, np.eye(min(rows, columns)), atol=1e-14)


def test_frames_have_no_preferred_direction():
    entries = np.array([random_frame(rng(k), 3, 3) for k in range(2000)])
    # every entry has mean 0 and variance 1/3: six standard errors
    assert np.max(np.abs(entries.mean(axis=0))) < 6 * (1 / 3) ** 0.5 / 2000**0.5
    np.testing.assert_allclose(entries.var(axis=0), 1 / 3, atol=6 * 0.3 / 2000**0.5)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_decoupled_weights_hold_their_modes_and_are_balanced(depth):
    frames = [random_frame(rng(k), d, 3) for k, d in ((1, 5), (2, 4))]
    teacher = Teacher(frames[0], np.array([3.0, 2.0, 1.0]), frames[1])
    strengths = np.array([0.1, 0.2, 0.3])
    weights = decoupled_weights(rng(), teacher, (4, *(6,) * (depth - 1), 5), strengths)
    modes = teacher.left.T @ layer_product(weights) @ teacher.right
    np.testing.assert_allclose(modes, np.diag(strengths), atol=1e-14)
    for below, above in itertools.pairwise(weights):
        np.testing.assert_allclose(below @ below.T, above.T @ above, atol=1e-14)


def test_what_cannot_be_decoupled_is_refused():
    teacher = Teacher.diagonal([2.0, 1.0])
    with pytest.raises(ValueError, match="at least the number of modes 2"):
        decoupled_weights(rng(), teacher, (2, 1, 2), np.array([0.1]))
    with pytest.raises(ValueError, match="must begin with 2"):
        decoupled_weights(rng(), teacher, (3, 4, 2), np.array([0.1]))
    with pytest.raises(ValueError, match="strengths must be finite and positive"):
        decoupled_weights(rng(), teacher, (2, 4, 2), np.array([0.0, 0.1]))


def test_a_product_of_orthogonal_layers_is_an_isometry_at_any_depth():
    square = orthogonal_weights(rng(), (8,) * 41, gain=1.1)
    np.testing.assert_allclose(np.linalg.svd(layer_product(square))[1], 1.1**40, rtol=1e-13)
    wide = orthogonal_weights(rng(), (4, *(9,) * 30, 9))
    np.testing.assert_allclose(np.linalg.svd(layer_product(wide))[1], 1, rtol=1e-13)


def test_gaussian_layers_keep_the_mean_square():
    weights = gaussian_weights(rng(), (30, 200, 50), gain=1.5)
    x = rng(1).normal(size=(30, 4000))
    for w, fan_in in zip(weights, (30, 200), strict=True):
        assert w.std() == pytest.approx(1.5 / fan_in**0.5, rel=0.05)
    assert np.mean((weights[0] @ x) ** 2) == pytest.approx(1.5**2, rel=0.06)


def test_zero_balanced_weights():
    first, second = zero_balanced_weights(rng(), (5, 7, 3), np.array([0.5, 0.2]))
    np.testing.assert_allclose(first @ first.T, second.T @ second, atol=1e-15)
    np.testing.assert_allclose(np.linalg.svd(first)[1], [0.5, 0.2, 0, 0, 0], atol=1e-15)
    with pytest.raises(ValueError, match="must be three"):
        zero_balanced_weights(rng(), (5, 2, 3), np.array([0.5, 0.2, 0.1]))


# -- pretraining ------------------------------------------------------------------------------------------------------

VALUES = np.array([2.0, 1.3, 0.7, 0.3])


def autoencode(covariance, width, seed, steps=6000, rate=0.1):
    """Encoder of a linear autoencoder after descent from a small start."""
    encoder = 0.01 * rng(seed).normal(size=(width, len(covariance)))
    decoder = 0.01 * rng(seed + 100).normal(size=(len(covariance), width))
    for _ in range(steps):
        error = covariance - decoder @ encoder @ covariance
        encoder, decoder = encoder + rate * decoder.T @ error, decoder + rate * error @ encoder.T
    return encoder


def test_pretrained_layers_are_those_that_greedy_descent_finds():
    frame = random_frame(rng(3), 4, 4)
    covariance = (frame * VALUES) @ frame.T
    trained, seen = [], covariance
    for width in (3, 3):
        trained.append(autoencode(seen, width, seed=width + len(trained)))
        seen = trained[-1] @ seen @ trained[-1].T
    built = pretrained_weights(rng(), covariance, (4, 3, 3, 2), np.eye(2), np.array([0.1, 0.1]))
    # equal up to rotations of the hidden units: the same projection on the principal directions
    for found, expected in zip((trained, built[:-1]), ("trained", "built"), strict=True):
        product = layer_product(found)
        np.testing.assert_allclose(product.T @ product, frame[:, :3] @ frame[:, :3].T, atol=2e-3, err_msg=expected)


@pytest.mark.parametrize("consistent", [True, False])
def test_pretraining_decouples_a_task_whose_right_vectors_are_the_principal_directions(consistent):
    frame = random_frame(rng(4), 4, 4)
    right = frame[:, :2] if consistent else random_frame(rng(5), 4, 2)
    left = random_frame(rng(6), 3, 2)
    weights = pretrained_weights(rng(), (frame * VALUES) @ frame.T, (4, 4, 3, 3), left, np.array([0.2, 0.1]))
    modes = left.T @ layer_product(weights) @ right
    off = np.max(np.abs(modes - np.diag(np.diagonal(modes))))
    sizes = np.sort(np.abs(np.diagonal(modes)))
    if consistent:
        assert off < 1e-14
        np.testing.assert_allclose(sizes, [0.1, 0.2], rtol=1e-12)
    else:
        assert off > 0.01


def test_pretraining_needs_room_for_the_modes():
    with pytest.raises(ValueError, match="hidden widths must be at least the 2 modes"):
        pretrained_weights(rng(), np.diag(VALUES), (4, 1, 3), np.eye(3, 2), np.array([0.1, 0.1]))
    with pytest.raises(ValueError, match="never larger than the width before"):
        pretrained_weights(rng(), np.diag(VALUES), (4, 5, 3), np.eye(3, 2), np.array([0.1, 0.1]))
