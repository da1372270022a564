"""Curvature along the symmetric line against a numerical Hessian, and the steps it allows."""

import numpy as np
import pytest

from separatrix.systems.deep_linear.depth_scaling import optimal_learning_rate, symmetric_line_curvatures
from separatrix.systems.deep_linear.mode_solutions import scaled_time


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("root", [0.3, 0.9, 1.1])
def test_eigenvalues_of_the_hessian(depth, root):
    gradient = lambda a: np.array(  # noqa: E731
        [-(1.3 - np.prod(a)) * np.prod(np.delete(a, k)) for k in range(depth)]
    )
    steps = 1e-6 * np.eye(depth)
    at = np.full(depth, root)
    hessian = np.array([(gradient(at + step) - gradient(at - step)) / 2e-6 for step in steps])
    eigenvalues = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    along, across = symmetric_line_curvatures(root**depth, 1.3, depth)
    expected = np.sort([float(along), *[float(across)] * (depth - 1)])
    np.testing.assert_allclose(eigenvalues, expected, atol=1e-8)


@pytest.mark.parametrize("depth", [1, 2, 3, 8, 30])
def test_the_largest_curvature_on_the_way_is_at_the_end(depth):
    s = 1.7
    along, across = symmetric_line_curvatures(np.linspace(0, s, 500), s, depth)
    largest = np.maximum(along, across)
    assert largest.argmax() == 499 or depth == 1
    assert largest.max() == pytest.approx(1 / optimal_learning_rate(s, depth), rel=1e-12)


def test_steps_at_that_rate_approach_the_scaled_time_and_twice_the_rate_is_the_edge():
    depth, s = 4, 1.0
    rate = optimal_learning_rate(s, depth)
    a, steps = 0.01**0.25, 0
    while a**depth < 0.99:
        a, steps = a + 0.1 * rate * a ** (depth - 1) * (s - a**depth), steps + 1
    assert steps / 10 == pytest.approx(float(scaled_time(0.01, 0.99, depth)), rel=0.02)
    for factor, stable in ((1.9, True), (2.1, False)):
        a = 1.001
        for _ in range(200):
            a = a + factor * rate * a ** (depth - 1) * (s - a**depth)
        assert (abs(a - 1) < 1e-3) == stable


def test_domains():
    with pytest.raises(ValueError, match="depth must be at least 1"):
        symmetric_line_curvatures(0.5, 1.0, 0)
    with pytest.raises(ValueError, match="depth must be finite"):
        optimal_learning_rate(1.0, np.inf)
