"""Exact solutions of one mode against ODE solvers, quadrature and each other, in every limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

from separatrix.systems.deep_linear.mode_solutions import (
    balanced_strength,
    half_time,
    isotropic_variance,
    large_depth_time,
    mode_strength,
    progress,
    scaled_time,
    unbalanced_amplitudes,
)

DEPTHS = (1, 1 + 1e-9, 1.5, 2 - 1e-9, 2, 2 + 1e-9, 3, 4, 8, 64, 1e6, np.inf)
PAIRS = ((2.0, 0.5, 0.01), (2.0, 0.01, 0.5), (1.0, 1.5, 0.001), (1.0, 0.3, 0.29), (1.0, 0.5, -0.1), (1.0, -0.4, -1.9),
         (0.7, 3.0, 2.0), (1.0, 1e-6, 2.0))  # fmt: skip


def solve(speed, start, times):
    """States at ``times`` by steps that end there: interpolation inside a step is less accurate."""
    now, state, states = 0.0, np.atleast_1d(np.asarray(start, float)), []
    for time in times:
        state = solve_ivp(speed, (now, time), state, method="DOP853", rtol=1e-13, atol=1e-15).y[:, -1]
        now = time
        states.append(state)
    return np.array(states)


# -- depth 2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("s", "u", "c"), [(3.0, 1e-3, 1.0), (0.5, 0.4, 1.0), (1.0, 2.5, 1.0), (0.4, 0.01, 0.125)])
def test_a_balanced_mode_follows_its_flow(s, u, c):
    times = np.array([0.3, 1.0, 3.0])
    expected = solve(lambda t, x: 2 * x * (s - c * x), u, times)[:, 0]
    np.testing.assert_allclose(balanced_strength(times, u, s, c), expected, rtol=1e-11)
    np.testing.assert_allclose(mode_strength(times, u, s, 2, c), expected, rtol=1e-11)
    assert balanced_strength(0.0, u, s, c) == pytest.approx(u, rel=1e-15)
    assert balanced_strength(1e300, u, s, c) == pytest.approx(s / c, rel=1e-15)


@pytest.mark.parametrize(("s", "a", "b"), PAIRS)
def test_an_unbalanced_pair_follows_its_flow(s, a, b):
    times = np.linspace(0.25, 6, 12)
    expected = solve(lambda t, z: (s - z[0] * z[1]) * z[::-1], [a, b], times)
    found = np.stack(unbalanced_amplitudes(times, a, b, s), axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-11)


@pytest.mark.parametrize(
    ("case", "strength"), [*zip(PAIRS, (1.308609, 1.308609, 0.927096, 0.413260, 0.237124), strict=False)]
)
def test_strengths_after_unit_time_are_the_known_ones(case, strength):
    s, a, b = case
    one, two = unbalanced_amplitudes(1.0, a, b, s)
    assert float(one * two) == pytest.approx(strength, abs=5e-7)


amplitudes = st.floats(-3, 3).filter(lambda a: a == 0 or abs(a) > 1e-3)


@profile(max_examples=200, deadline=None)
@given(amplitudes, amplitudes, st.floats(0.05, 5), st.floats(0, 50))
def test_the_difference_of_squares_is_conserved_and_layers_can_be_exchanged(a, b, s, t):
    one, two = unbalanced_amplitudes(t, a, b, s)
    scale = max(one**2, two**2, a**2, b**2)
    assert abs((one**2 - two**2) - (a**2 - b**2)) <= 1e-13 * scale
    swapped = unbalanced_amplitudes(t, b, a, s)
    np.testing.assert_allclose((swapped[1], swapped[0]), (one, two), rtol=1e-12, atol=1e-13 * scale**0.5)
    negated = unbalanced_amplitudes(t, -a, -b, s)
    np.testing.assert_allclose(negated, (-one, -two), rtol=1e-14)


@profile(max_examples=100, deadline=None)
@given(amplitudes, amplitudes, st.floats(0.05, 5), st.floats(0, 5), st.floats(0, 5))
def test_two_flows_in_a_row_are_one_flow(a, b, s, first, second):
    whole = unbalanced_amplitudes(first + second, a, b, s)
    parts = unbalanced_amplitudes(second, *unbalanced_amplitudes(first, a, b, s), s)
    # From near a = -b the flow amplifies rounding by e^{s t}.
    np.testing.assert_allclose(parts, whole, atol=1e-14 * np.exp(min(s * (first + second), 30)) + 1e-12)


@pytest.mark.parametrize("gap", [0.0, 1e-18, 1e-12, 1e-9, 1e-6])
def test_nearly_balanced_pairs_approach_the_balanced_mode(gap):
    t = np.array([0.1, 1.0, 5.0, 20.0])
    one, two = unbalanced_amplitudes(t, np.sqrt(0.01 + gap), 0.1, 1.5)
    np.testing.assert_allclose(one * two, balanced_strength(t, 0.1 * np.sqrt(0.01 + gap), 1.5), atol=max(1e-14, gap))


def test_the_antisymmetric_line_ends_in_the_saddle_and_all_else_in_the_solution():
    t = np.array([0.0, 1.0, 40.0, 1e3, 1e9])
    one, two = unbalanced_amplitudes(t, 0.5, -0.5, 1.0)
    np.testing.assert_array_equal(one, -two)
    assert np.all(np.diff(np.abs(one)) <= 0)
    assert one[-1] == 0
    late = unbalanced_amplitudes(1e300, np.array([3.0, 1e-200, -1.0, 2.0]), np.array([-2.9, 2e-200, 0.0, 0.0]), 1.7)
    np.testing.assert_allclose(late[0] * late[1], 1.7, rtol=1e-14)


# -- any depth --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "steps"),
    [
        (1, 4.60),
        (2, 9.19),
        (3, 16.19),
        (4, 23.78),
        (5, 30.92),
        (10, 55.8),
        (100, 101.0),
        (1000, 107.4),
        (np.inf, 108.2),
    ],
)
def test_steps_from_one_to_ninety_nine_per_cent(depth, steps):
    assert float(scaled_time(0.01, 0.99, depth)) == pytest.approx(steps, abs=0.06 if steps > 50 else 0.006)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(
    ("x0", "x1"), [(0.01, 0.99), (0.3, 0.31), (0.65, 0.9999), (1e-5, 0.5), (50.0, 1.2), (1.1, 1.001)]
)
def test_the_scaled_time_is_its_integral(depth, x0, x1):
    e = 2 / depth
    # In the logarithm of the distance to the target the integrand has no pole.
    integrand = lambda y: (1 + np.sign(x0 - 1) * np.exp(-y)) ** (e - 2)  # noqa: E731
    expected, _ = quad(integrand, -np.log(abs(1 - x0)), -np.log(abs(1 - x1)), epsabs=0, epsrel=1e-12, limit=500)
    assert float(scaled_time(x0, x1, depth)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("x0", [1e-3, 0.1, 0.7, 0.999, 1.001, 1.5, 10.0])
def test_progress_follows_its_flow(depth, x0):
    times = np.array([0.01, 0.3, 1.0, 3.0, 10.0] + ([100.0, 1000.0] if x0 < 0.01 else []))
    expected = solve(lambda t, x: x ** (2 - 2 / depth) * (1 - x), x0, times)[:, 0]
    np.testing.assert_allclose(progress(times, x0, depth), expected, rtol=1e-10)


@profile(max_examples=150, deadline=None)
@given(st.floats(1, 300), st.floats(1e-6, 0.98) | st.floats(1.02, 1e4), st.floats(1e-3, 1e6))
def test_time_and_progress_are_inverse(depth, x0, time):
    x = float(progress(time, x0, depth))
    assert min(x0, 1.0) <= x <= max(x0, 1.0)
    if abs(1 - x) > 1e-6:
        # a progress known to rounding fixes the time to that over the speed
        error = 1e-13 * (x ** (2 / depth - 1) + x0 ** (2 / depth - 1)) / abs(1 - x) + 1e-12 * time
        assert float(scaled_time(x0, x, depth)) == pytest.approx(time, abs=error)


def test_progress_in_the_limits():
    for depth in DEPTHS:
        np.testing.assert_array_equal(progress(np.array([0.0, 1e300]), 1.0, depth), 1.0)
        for x0 in (1e-300 if depth < 2 else 1e-8, 0.5, 1e8):
            assert float(progress(0.0, x0, depth)) == pytest.approx(x0, rel=1e-15)
            assert float(progress(1e300, x0, depth)) == 1.0
    np.testing.assert_allclose(progress(3.0, 0.1, 1e9), progress(3.0, 0.1, np.inf), rtol=1e-8)


@pytest.mark.parametrize("depth", [1, 2, 3, 8])
def test_strengths_and_half_times_in_units(depth):
    s, u, c = 1.3, 0.02, 0.4
    expected = solve(lambda t, x: depth * x ** (2 - 2 / depth) * (s - c * x), u, [0.5, 2.0])[:, 0]
    np.testing.assert_allclose(mode_strength(np.array([0.5, 2.0]), u, s, depth, c), expected, rtol=1e-10)
    half = float(half_time(u, s, depth, c))
    assert float(mode_strength(half, u, s, depth, c)) == pytest.approx(s / c / 2, rel=1e-12)


def test_a_half_time_at_depth_two_is_its_logarithm():
    s = np.array([3.0, 2.0, 1.0, 0.5])
    np.testing.assert_allclose(half_time(1e-3, s, 2), np.log(s / 1e-3 - 1) / (2 * s), rtol=1e-13)
    np.testing.assert_allclose(half_time(1e-3, s, 2), [1.334, 1.900, 3.453, 6.213], atol=1e-3)


def test_the_large_depth_time_is_approached_as_one_over_depth():
    exact = lambda layers: float(half_time(0.02, 1.3, layers))  # noqa: E731
    gaps = [large_depth_time(0.02, 0.65, 1.3, layers) / exact(layers) - 1 for layers in (100, 1000, 10_000)]
    np.testing.assert_allclose(np.array(gaps[:-1]) / gaps[1:], 10, rtol=0.05)
    # units of layers: 10, 100, 1000 of them are 9, 99, 999 matrices
    found = [
        float(scaled_time(0.02 / 1.3, 1.25 / 1.3, n - 1) / ((n - 1) * 1.3 ** (2 - 2 / (n - 1)))) for n in (10, 100)
    ]
    np.testing.assert_allclose(found, [2.6032, 0.4031], atol=1e-4)
    assert large_depth_time(0.02, 1.25, 1.3, 100) == pytest.approx(0.4221, abs=1e-4)


def test_descent_with_a_small_step_agrees():
    a, rate = 0.2 ** (1 / 3), 0.002
    for _ in range(1000):
        a += rate * a**2 * (1.5 - a**3)
    assert a**3 == pytest.approx(1.498803, abs=1e-6)
    assert float(mode_strength(2.0, 0.2, 1.5, 3)) == pytest.approx(1.498768, abs=1e-6)


def test_inputs_must_be_isotropic():
    assert isotropic_variance(np.eye(8) / 8) == pytest.approx(1 / 8)
    for wrong in (np.diag([1.0, 2.0]), np.zeros((2, 2)), np.array([[1.0, 0.1], [0.1, 1.0]]), np.ones((2, 3))):
        with pytest.raises(ValueError, match=r"multiple of the identity|positive|square"):
            isotropic_variance(wrong)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: balanced_strength(1.0, 0.0, 1.0), "initial must be finite and positive"),
        (lambda: balanced_strength(-1.0, 0.1, 1.0), "time must be finite and not negative"),
        (lambda: mode_strength(1.0, 0.1, 1.0, 0.5), "depth must be at least 1"),
        (lambda: mode_strength(1.0, 0.1, 1.0, np.nan), "depth must be at least 1"),
        (lambda: mode_strength(1.0, 0.1, 1.0, np.inf), "depth must be finite"),
        (lambda: scaled_time(0.5, 1.5, 3), "both lie below or both lie above"),
        (lambda: scaled_time(0.5, 1.0, 3), "both lie below or both lie above"),
        (lambda: unbalanced_amplitudes(1.0, np.inf, 0.0, 1.0), "amplitudes must be finite"),
        (lambda: unbalanced_amplitudes(1.0, 1.0, 0.0, 0.0), "singular_value must be finite and positive"),
    ],
)
def test_what_has_no_solution_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
