"""SGD on a quadratic with anisotropic noise, against its exact covariance and against that of its Langevin equation.

Online linear regression with inputs ``x ~ N(0, C)``: the error ``e`` moves by ``e <- e - rate x (x.e - sigma z)``.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from separatrix.engines.counter_normals import member_keys, normals
from separatrix.engines.ensemble import evolve
from separatrix.engines.sde import EulerMaruyama

CURVATURE = np.array([1.0, 0.5])
SIGMA = 0.8


@dataclass(frozen=True)
class Regression:
    """SGD on ``state[:2]``; ``state[2:]`` sees the same samples but the mean curvature: an elementary covariance."""

    block: int = 16

    def draw(self, keys, block):
        return normals(keys, block, self.block * 3).reshape(self.block, 3, -1)

    def __call__(self, state, noise, t, arguments):
        noise = noise.astype(state.dtype)
        c = arguments["curvature"][:, None]
        error, companion = state[:2], state[2:]
        x, z = noise[:2] * jnp.sqrt(c), arguments["label_noise"] * noise[2]
        error = error - arguments["rate"] * x * (jnp.sum(x * error, axis=0) - z)
        companion = companion - arguments["rate"] * (c * companion - x * z)
        return jnp.concatenate([error, companion])


def descent(x, arguments):
    return -arguments["curvature"][:, None] * x


def gradient_noise(x, arguments):
    """A square root ``(2, 3, n)`` of the gradient covariance ``C e e^T C + (e.C e + sigma^2) C``."""
    c = arguments["curvature"][:, None]
    spread = jnp.sqrt(jnp.sum(c * x**2, axis=0) + arguments["label_noise"] ** 2)
    isotropic = jnp.sqrt(c)[:, :, None] * jnp.eye(2)[:, :, None] * spread
    return jnp.sqrt(arguments["rate"]) * jnp.concatenate([isotropic, (c * x)[:, None]], axis=1)


def stationary_covariance(rate, drift_order):
    """Solves ``C S + S C = rate (k C S C + tr(C S) C + sigma^2 C)``: k = 1 for the SDE and 2 for SGD (Lyapunov)."""
    c = np.diag(CURVATURE)
    linear = np.kron(c, np.eye(2)) + np.kron(np.eye(2), c)
    linear = linear - rate * (drift_order * np.kron(c, c) + np.outer(c.ravel(), c.ravel()))
    return np.linalg.solve(linear, rate * SIGMA**2 * c.ravel()).reshape(2, 2)


def _state(state, arguments):
    del arguments
    return state


def late_states(step, rate, members, step_size, components, snapshots=8):
    """States at practically independent late times, ``(snapshot, components, n)``."""
    relaxation = round(2 / (CURVATURE.min() * step_size))
    keys = member_keys(11, f"regression {rate}", 0, members)
    arguments = {"rate": rate, "step_size": step_size, "label_noise": SIGMA, "curvature": jnp.asarray(CURVATURE)}
    grid = relaxation * np.arange(3, 3 + snapshots)
    return evolve(step, _state, jnp.zeros((components, members)), keys, arguments, grid)[0]


def covariances(states):
    return np.einsum("tin,tjn->tij", states, states) / states.shape[-1]


def test_sgd_has_the_covariance_of_the_discrete_lyapunov_equation_and_not_that_of_the_sde():
    rate = 0.2
    exact, sde = stationary_covariance(rate, 2), stationary_covariance(rate, 1)
    measured = covariances(late_states(Regression(), rate, 100_000, rate, 4)[:, :2])
    np.testing.assert_allclose(np.diagonal(measured.mean(0)), np.diagonal(exact), rtol=0.01)
    # Student's t with seven degrees of freedom: false alarm 1e-6.
    assert np.all(np.abs(measured.mean(0) - exact) < 15 * stats.sem(measured, axis=0))
    assert measured.mean(0)[0, 0] / sde[0, 0] - 1 > 0.1


def test_the_langevin_equation_has_its_own_covariance():
    rate, h, members = 0.2, 0.05, 20_000
    measured = covariances(late_states(EulerMaruyama(descent, gradient_noise, 2, 3), rate, members, h, 2))
    # Euler's scheme of step h adds h C S C to the balance.
    exact = stationary_covariance(rate, 1 + h / rate)
    np.testing.assert_allclose(np.diagonal(measured.mean(0)), np.diagonal(exact), rtol=0.03)
    assert np.all(np.abs(measured.mean(0) - exact) < 15 * stats.sem(measured, axis=0))


def test_the_gap_between_sgd_and_its_sde_falls_in_proportion_to_the_learning_rate():
    rates, c = np.array([0.06, 0.03, 0.015]), CURVATURE[0]
    gaps = []
    for rate in rates:
        states = late_states(Regression(), float(rate), 50_000, float(rate), 4)
        companion = rate**2 * SIGMA**2 * c / (1 - (1 - rate * c) ** 2)
        variance = companion + np.mean(states[:, 0] ** 2 - states[:, 2] ** 2)
        gaps.append(variance / stationary_covariance(rate, 1)[0, 0] - 1)
    assert stats.linregress(np.log(rates), np.log(gaps)).slope == pytest.approx(1.0, abs=0.15)


def test_the_covariances_are_isotropic_to_first_order():
    rate = 1e-4
    for order in (1, 2):
        np.testing.assert_allclose(stationary_covariance(rate, order), rate * SIGMA**2 / 2 * np.eye(2), atol=1e-7)
