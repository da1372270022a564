"""Exact courses against linear algebra that does not know of modes, and against theory."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from separatrix.systems.high_dimensional_regression import mode_dynamics as dynamics
from separatrix.systems.high_dimensional_regression.gradient_descent import descend

N = 12
TIME = np.array([0.0, 0.3, 2.0, 30.0])


def problem(P, draws=3):
    rng = np.random.default_rng(P)
    return (
        rng.normal(size=(N, P)) / np.sqrt(N), rng.normal(size=(draws, N)), rng.normal(size=(draws, N)),
        rng.normal(size=(draws, P)),
    )  # fmt: skip


def flow(X, y, start, time):
    """Weights of gradient flow by the exponential of the augmented matrix."""
    A = np.zeros((N + 1, N + 1))
    A[:N, :N], A[:N, N] = -X @ X.T, X @ y
    return (expm(A * time) @ np.append(start, 1.0))[:N]


@pytest.mark.parametrize("P", [5, 12, 30])
def test_courses_are_those_of_the_matrix_exponential(P):
    X, teacher, start, noise = problem(P)
    b, a = 0.7, 0.4
    course = dynamics.flow_courses(
        dynamics.decompose(X, teacher, start, noise), jnp.asarray(TIME), jnp.asarray(b), jnp.asarray(a)
    )
    for k, time in enumerate(TIME):
        labels = teacher @ X + b * noise
        weights = np.stack([flow(X, y, a * w, time) for y, w in zip(labels, start, strict=True)])
        for measured, expected in (
            (course.distance[k], np.sum((weights - teacher) ** 2, axis=1)),
            (course.training[k], np.sum((labels - weights @ X) ** 2, axis=1)),
            (course.norm[k], np.sum(weights**2, axis=1)),
        ):
            assert float(measured) == pytest.approx(expected.mean(), rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("P", [5, 30])
def test_descent_courses_are_those_of_descent(P):
    X, teacher, start, noise = problem(P, draws=1)
    # above 1 / eigenvalue for the fastest modes, whose components change sign at every step
    rate = 1.6 / np.linalg.eigvalsh(X @ X.T)[-1]
    steps = (1, 2, 5, 40)
    labels = teacher @ X + noise
    weights = np.asarray(
        descend(
            X[None], labels, start, np.float64(rate), np.float64(0.0), tuple(int(n) for n in np.diff(steps, prepend=0))
        )
    )[0]
    course = dynamics.descent_courses(
        dynamics.decompose(X, teacher, start, noise),
        jnp.asarray(steps, float),
        jnp.asarray(rate),
        jnp.ones(()),
        jnp.ones(()),
    )
    np.testing.assert_allclose(course.distance, np.sum((weights - teacher) ** 2, axis=1), rtol=1e-11)
    np.testing.assert_allclose(course.training, np.sum((labels - weights @ X) ** 2, axis=1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("P", [5, 12, 30])
def test_ridge_is_that_of_the_normal_equations(P):
    X, teacher, start, noise = problem(P)
    b, penalty = 0.7, np.array([0.1, 2.0])
    distance = dynamics.ridge_distance(dynamics.decompose(X, teacher, start, noise), penalty, b * np.ones(2))
    for k, g in enumerate(penalty):
        weights = np.linalg.solve(X @ X.T + g * np.eye(N), X @ (teacher @ X + b * noise).T).T
        assert float(distance[k]) == pytest.approx(np.sum((weights - teacher) ** 2, axis=1).mean(), rel=1e-10)


def test_ridge_agrees_with_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, teacher, start, noise = problem(9, draws=1)
    found = linear_model.Ridge(alpha=0.3, fit_intercept=False).fit(X.T, (teacher @ X + noise)[0]).coef_
    distance = dynamics.ridge_distance(dynamics.decompose(X, teacher, start, noise), np.array([0.3]), np.ones(1))
    assert float(distance[0]) == pytest.approx(np.sum((found - teacher[0]) ** 2), rel=1e-9)


def test_frozen_directions_keep_their_distance():
    X, teacher, start, noise = problem(5)
    modes = dynamics.decompose(X, teacher, start, noise)
    outside = np.eye(N) - X @ np.linalg.pinv(X)
    expected = np.sum(((teacher - 0.4 * start) @ outside) ** 2, axis=1).mean()
    assert float(dynamics.frozen_distance(modes, jnp.asarray(0.4))) == pytest.approx(expected, rel=1e-10)
    full = dynamics.decompose(*problem(30))
    assert float(dynamics.frozen_distance(full, jnp.asarray(1.0))) == pytest.approx(0, abs=1e-11)


def test_late_times_underflow_to_the_end_of_training():
    X, teacher, start, noise = problem(30)
    modes = dynamics.decompose(X, teacher, start, noise)
    late = dynamics.flow_courses(modes, jnp.asarray([1e4, 1e300]), jnp.ones(()), jnp.ones(()))
    solution = np.linalg.lstsq(X.T, (teacher @ X + noise).T)[0].T
    expected = np.sum((solution - teacher) ** 2, axis=1).mean()
    np.testing.assert_allclose(late.distance, expected, rtol=1e-9)
