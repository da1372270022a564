"""Balance of adjacent layers: the exact change of a step, its mean, and the slow drift of a solution."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from significance import assert_means

from separatrix.systems.deep_linear.balance import (
    balance_time_course,
    imbalance_drift,
    imbalance_increment,
    scalar_imbalance_step,
)


def imbalance(below, above):
    return np.swapaxes(above, -1, -2) @ above - below @ np.swapaxes(below, -1, -2)


def test_scalar_step_is_exact():
    rng = np.random.default_rng(0)
    first, second, gradient = rng.normal(size=(3, 20))
    rate = 0.3
    new = (first + rate * second * gradient) ** 2 - (second + rate * first * gradient) ** 2
    exact = scalar_imbalance_step(first**2 - second**2, rate, gradient)
    np.testing.assert_allclose(new, exact, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("d_in", "hidden", "d_out"), [(3, 3, 3), (2, 4, 6), (5, 1, 2)])
def test_one_step_of_two_layers_changes_the_imbalance_as_stated(d_in, hidden, d_out):
    rng = np.random.default_rng(1)
    below, above = rng.normal(size=(hidden, d_in)), rng.normal(size=(d_out, hidden))
    x, y, rate = rng.normal(size=d_in), rng.normal(size=d_out), 0.1
    error = y - above @ below @ x
    new_below = below + rate * np.outer(above.T @ error, x)
    new_above = above + rate * np.outer(error, below @ x)
    change = imbalance(new_below, new_above) - imbalance(below, above)
    np.testing.assert_allclose(imbalance_increment(below, above, x, error, rate), change, atol=1e-13)


def test_the_mean_change_of_a_step_at_a_solution_is_the_drift():
    rng = np.random.default_rng(2)
    below, above = rng.normal(size=(3, 2)), rng.normal(size=(5, 3))
    sigma, rate, n = 0.7, 0.1, 200_000
    x, noise = rng.normal(size=(n, 2)), sigma * rng.normal(size=(n, 5))
    # At a solution the error is the label noise alone; the time of a step is its rate.
    hidden, back = x @ below.T, noise @ above
    squares = np.sum(noise**2, axis=1), np.sum(x**2, axis=1)
    change = rate * (
        squares[0][:, None, None] * np.einsum("ni,nj->nij", hidden, hidden)
        - squares[1][:, None, None] * np.einsum("ni,nj->nij", back, back)
    )
    np.testing.assert_allclose(
        change[:3], [imbalance_increment(below, above, x[i], noise[i], rate) / rate for i in range(3)], rtol=1e-12
    )
    assert_means(np.moveaxis(change, 0, -1), imbalance_drift(below, above, sigma, rate))


S = np.array([2.0, 1.0])


def test_traces_of_the_reference_problem():
    """2-2-6, learning rate 0.01, label noise 1."""
    assert balance_time_course(0, S, 6, 2, 0.01, 1.0) == (3.0, 3.0)
    np.testing.assert_allclose(balance_time_course(40.0, S, 6, 2, 0.01, 1.0), (1.995, 4.511), atol=5.1e-4)
    limit = balance_time_course(2000.0, S, 6, 2, 0.01, 1.0)
    np.testing.assert_allclose(limit, (1.732, 5.196), atol=5.1e-4)
    np.testing.assert_allclose(limit, (3 / np.sqrt(3), 3 * np.sqrt(3)), rtol=1e-8)  # the ratio is 6 / 2


def test_time_course_by_its_imbalance():
    """``dg/dt = kappa sigma^2 (d_out lower - d_in upper)`` with ``upper - lower = g``, ``upper lower = s^2``."""
    kappa, sigma = 0.02, 0.8

    def halves(g):
        upper = (g + np.sqrt(g**2 + 4 * S**2)) / 2
        return S**2 / upper, upper

    def speed(_, g):
        lower, upper = halves(g)
        below, above = np.diag(np.sqrt(lower)), np.diag(np.sqrt(upper))
        # Any layers with these traces and outer sizes 3 and 7: pad with rows and columns of zeros.
        drift = imbalance_drift(np.pad(below, ((0, 0), (0, 1))), np.pad(above, ((0, 5), (0, 0))), sigma, kappa)
        return np.diag(drift)

    for time in (1.0, 20.0, 100.0):
        g = solve_ivp(speed, (0, time), np.zeros(2), rtol=1e-10, atol=1e-12).y[:, -1]
        expected = [half.sum() for half in halves(g)]
        np.testing.assert_allclose(balance_time_course(time, S, 7, 3, kappa, sigma), expected, rtol=1e-8)


def test_equal_outer_sizes_keep_the_balance():
    np.testing.assert_allclose(balance_time_course(50.0, S, 4, 4, 0.01, 1.0), (3.0, 3.0), rtol=1e-9)
    assert balance_time_course(50.0, S, 4, 2, 0.01, 0.0) == pytest.approx((3.0, 3.0), rel=1e-9)


def test_sgd_drifts_as_the_time_course():
    """An ensemble of 2-2-6 networks that start at a balanced solution; the error of the theory is of first order."""
    members, rate, sigma, time = 60, 0.01, 1.0, 20.0
    teacher = np.eye(6, 2) * S
    below = np.broadcast_to(np.diag(np.sqrt(S)), (members, 2, 2)).copy()
    above = np.broadcast_to(np.eye(6, 2) * np.sqrt(S), (members, 6, 2)).copy()
    rng = np.random.default_rng(3)
    steps = round(time / rate)
    inputs, noise = rng.normal(size=(steps, members, 2, 1)), sigma * rng.normal(size=(steps, members, 6, 1))
    for x, z in zip(inputs, noise, strict=True):
        hidden = below @ x
        error = teacher @ x + z - above @ hidden
        back = np.swapaxes(above, 1, 2) @ error
        above = above + rate * error @ np.swapaxes(hidden, 1, 2)
        below = below + rate * back @ np.swapaxes(x, 1, 2)
    found = np.array([np.mean(np.sum(w**2, axis=(1, 2))) for w in (below, above)])
    expected = balance_time_course(time, S, 6, 2, rate, sigma)
    np.testing.assert_allclose(found, expected, rtol=0.03)
    # The drift itself, not only what is left of the start.
    np.testing.assert_allclose((found[1] - found[0]) / (expected[1] - expected[0]), 1, atol=0.06)


COURSE = {"time": 1.0, "singular_values": S, "outputs": 6, "inputs": 2, "noise_scale": 0.01, "label_noise": 1.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time", -1.0), ("time", np.nan), ("singular_values", [1.0, 0.0]), ("singular_values", [-1.0]), ("outputs", 0),
        ("inputs", -2), ("noise_scale", 0.0), ("noise_scale", -0.1), ("label_noise", -1.0), ("label_noise", np.inf),
    ],
)  # fmt: skip
def test_bad_input_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        balance_time_course(**{**COURSE, name: value})
