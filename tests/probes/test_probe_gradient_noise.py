"""Gradient noise against the gradients of all examples, and its errors against resampled data."""

import numpy as np
import pytest
from small_networks import EXAMPLES, in_order_of_jax, jax_model, torch_model

from separatrix.probes import matrices
from separatrix.probes.gradient_noise import (
    gradient_noise,
    group_gradient_noise,
    noise_alignment,
    noise_along,
    two_batch_noise_scale,
)
from separatrix.probes.operators import ProbeError
from separatrix.probes.trace import trace


class Examples:
    """A model whose gradients of single examples are given: what the estimators of noise ask of one."""

    blocks, reduction = {"all": slice(0, 5)}, "mean"

    def __init__(self, gradients):
        self.gradients, (self.examples, self.size) = gradients, gradients.shape

    def gradient(self):
        return self.gradients.mean(axis=0)

    def subset(self, chosen):
        return Examples(self.gradients[chosen])

    def per_example_gradients(self, chunk=None):
        step = chunk or self.examples
        for start in range(0, self.examples, step):
            yield self.gradients[start : start + step]

    def per_example_moments(self, centre, chunk=None):
        away = self.gradients - centre
        return np.sum(away**2, axis=1)[:, None], (away @ centre)[:, None]


MEAN = np.array([1.0, 0.5, -0.5, 0.2, 0.0])
SCALE = np.array([3.0, 2.0, 1.0, 0.5, 0.1])
TRACE, SQUARE = np.sum(SCALE**2), np.sum(MEAN**2)


def sample(number, n=400):
    return Examples(MEAN + SCALE * np.random.default_rng([7, number]).normal(size=(n, 5)))


def test_estimates_are_unbiased_and_their_errors_true():
    found = [gradient_noise(sample(i)) for i in range(200)]
    for name, exact in (("trace", TRACE), ("gradient_square", SQUARE), ("noise_scale", TRACE / SQUARE)):
        values = np.array([getattr(f, name).value for f in found])
        errors = np.array([getattr(f, name).standard_error for f in found])
        # the noise scale is a ratio: its bias is of second order
        bias = 0.0 if name != "noise_scale" else 0.05 * exact
        assert abs(values.mean() - exact) < 4.9 * values.std(ddof=1) / np.sqrt(200) + bias
        assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.25)


def test_two_batch_sizes_give_the_same_within_their_errors():
    model = sample(0, n=2000)
    exact, found = gradient_noise(model), two_batch_noise_scale(model, 10, 200, repeats=300)
    for name in ("trace", "gradient_square", "noise_scale"):
        one, two = getattr(exact, name), getattr(found, name)
        assert abs(one.value - two.value) < 4.9 * two.standard_error
    assert found.trace.products == 600


def test_noise_without_signal_has_no_finite_scale():
    gradients = np.random.default_rng(0).normal(size=(50, 5))
    found = gradient_noise(Examples(gradients - gradients.mean(axis=0)))
    assert found.gradient_square.value < 0
    assert found.noise_scale.value == np.inf
    assert not found.noise_scale.converged
    assert not found.converged


@pytest.mark.parametrize("make", [jax_model, torch_model])
def test_networks_have_the_noise_of_their_examples(make, dense):
    model = make()
    gradients = dense["gradients"]
    covariance = np.cov(gradients.T)
    found = gradient_noise(model)
    square = np.sum(gradients.mean(axis=0) ** 2) - np.trace(covariance) / EXAMPLES
    assert found.trace.value == pytest.approx(np.trace(covariance), rel=1e-10)
    assert found.gradient_square.value == pytest.approx(square, rel=1e-8)
    assert found.noise_scale.value == pytest.approx(np.trace(covariance) / square, rel=1e-8)
    parts = group_gradient_noise(model)
    for name, place in jax_model().blocks.items():
        assert parts[name].trace.value == pytest.approx(np.trace(covariance[place, place]), rel=1e-10)
    grouped = group_gradient_noise(model, patterns={"weights": "weight", "biases": "bias"})
    assert sum(g.trace.value for g in grouped.values()) == pytest.approx(found.trace.value, rel=1e-12)
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(model.size, 2)))[0].T
    along = noise_along(model, model.vector(directions))
    ordered = in_order_of_jax(model, directions)
    for estimate, v in zip(along, ordered, strict=True):
        assert estimate.value == pytest.approx(v @ covariance @ v, rel=1e-10)
    matrix = matrices.hessian(model)
    aligned = noise_alignment(model, matrix, EXAMPLES)
    exact = np.trace(dense["hessian"] @ covariance) / np.trace(covariance)
    assert aligned.curvature.value == pytest.approx(exact, rel=1e-9)
    ratio, error = aligned.over_isotropic(trace(matrix, 200), model.size)
    assert abs(ratio - exact * model.size / np.trace(dense["hessian"])) < 4.9 * error


def test_alignment_of_a_sample_is_within_its_error():
    rng = np.random.default_rng(0)
    model = sample(3, n=2000)
    model.free_memory = lambda: 10**9
    array = np.diag(np.arange(1.0, 6.0))
    matrix = matrices.SymmetricMatrix(5, lambda rows: rows @ array, np.asarray, np.dtype(float), {}, lambda: 10**9)
    del rng
    found = noise_alignment(model, matrix, 500)
    assert abs(found.curvature.value - np.sum(np.diag(array) * SCALE**2) / TRACE) < 4.9 * found.curvature.standard_error


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (lambda: gradient_noise(sample(0, 2)), "noise with its error needs at least 3 examples, got 2"),
        (lambda: two_batch_noise_scale(sample(0), 8, 8), "1 <= small < large < 400, got 8 and 8"),
        (lambda: two_batch_noise_scale(sample(0), 8, 16, 2), "needs at least 3 repeats, got 2"),
        (lambda: noise_along(sample(0), np.ones(5)), r"directions must have shape \(k, 5\), got \(5,\)"),
    ],
    ids=["examples", "sizes", "repeats", "directions"],
)
def test_bad_requests_are_refused(request_, sentence):
    with pytest.raises(ProbeError, match=sentence):
        request_()
