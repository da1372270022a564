"""The two-feature map: its fixed points, its 2-cycle, the growth of the weak feature, and where growth stops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar

from separatrix.systems.feature_learning.oscillation_map import (
    STABILITY_LIMIT,
    SURVIVAL_LIMIT,
    TWO_CYCLE_LIMIT,
    effective_step,
    learning_rate,
    map_step,
    multiplier,
    neuron_factor,
    residual_bias,
    second_order_bias,
    small_step_weak_end,
    stable_weak_share,
    two_cycle,
    two_cycle_multiplier,
    visits_to_saturation,
    weak_growth,
)

CYCLING = st.floats(STABILITY_LIMIT + 1e-3, TWO_CYCLE_LIMIT)
RATIOS = st.floats(0.0, 1.0)


def cubic(z, step):
    """The strong feature alone, in ``z = sqrt(A)``."""
    return z * (1 + step * (1 - z**2))


def test_limits_of_the_window():
    assert pytest.approx(1.0) == STABILITY_LIMIT
    assert pytest.approx(1.2360679775) == TWO_CYCLE_LIMIT
    assert pytest.approx(1.5980762114) == SURVIVAL_LIMIT
    assert two_cycle_multiplier(STABILITY_LIMIT) == pytest.approx(1)
    assert two_cycle_multiplier(TWO_CYCLE_LIMIT) == pytest.approx(-1)


@pytest.mark.parametrize("step", [1.59, 1.6])
def test_a_visit_can_turn_the_units_over_beyond_the_survival_limit_only(step):
    largest = -minimize_scalar(lambda z: -cubic(z, step), bounds=(0.1, 1.5), method="bounded").fun
    assert (neuron_factor(step, 1 - largest**2) < 0) == (step > SURVIVAL_LIMIT)


@profile(deadline=None, max_examples=50)
@given(CYCLING)
def test_the_two_cycle_is_one(step):
    high, low = two_cycle(step)
    assert high > 1 > low > 0
    assert map_step(high, 0.0, step, 0.0)[0] == pytest.approx(low, rel=1e-9)
    assert map_step(low, 0.0, step, 0.0)[0] == pytest.approx(high, rel=1e-9)
    z, shift = np.sqrt(high), 1e-5
    slope = (cubic(cubic(z + shift, step), step) - cubic(cubic(z - shift, step), step)) / (2 * shift)
    assert slope == pytest.approx(two_cycle_multiplier(step), abs=1e-6)


@pytest.mark.parametrize(
    ("step", "high", "low"),
    [
        (1.02, 1.12919, 0.85120),
        (1.05, 1.19048, 0.76190),
        (1.1, 1.24560, 0.66349),
        (1.2, 1.29855, 0.53479),
        (1.23, 1.30746, 0.50555),
    ],
)
def test_recorded_cycles(step, high, low):
    assert two_cycle(step) == (pytest.approx(high, abs=6e-6), pytest.approx(low, abs=6e-6))
    # what repelled or attracted starts end on
    strong = 0.3
    for _ in range(2000):
        strong, _ = map_step(strong, 0.0, step, 0.0)
    assert min(abs(strong - high), abs(strong - low)) < 1e-5


@pytest.mark.parametrize(
    ("step", "small", "large"),
    [(1.02, 1.000950, 1.003750), (1.05, 1.002375, 1.009375), (1.1, 1.004750, 1.018750), (1.2, 1.009500, 1.037500),
     (1.23, 1.010925, 1.043125)],
)  # fmt: skip
def test_recorded_growth(step, small, large):
    assert weak_growth(step, 0.05) == pytest.approx(small, abs=5e-7)
    assert weak_growth(step, 0.25) == pytest.approx(large, abs=5e-7)


@profile(deadline=None, max_examples=50)
@given(CYCLING, RATIOS)
def test_growth_and_bias_on_the_two_cycle(step, ratio):
    residuals = 1 - np.array(two_cycle(step))
    assert np.prod(neuron_factor(ratio * step, residuals)) == pytest.approx(weak_growth(step, ratio), rel=1e-9)
    assert residuals.sum() / np.sum(residuals**2) == pytest.approx(residual_bias(step), rel=1e-6)
    assert np.prod(neuron_factor(step, residuals)) == pytest.approx(1, rel=1e-9)
    # to second order in the residual, which is small next to the limit of stability
    near = 1 - np.array(two_cycle(1 + 1e-4))
    assert near.sum() / np.sum(near**2) == pytest.approx(second_order_bias(1 + 1e-4), rel=1e-3)


def test_nothing_grows_without_oscillation_or_without_two_features():
    assert np.all(weak_growth([0.2, 1.0], 0.3) == 1)
    assert np.all(weak_growth(1.2, [0.0, 1.0]) == 1)
    assert np.all(np.isnan(two_cycle(0.9)))


@profile(deadline=None, max_examples=50)
@given(st.floats(0.05, 1.5), st.floats(0.01, 0.6), st.floats(0.0, 1.0))
def test_multiplier_on_the_line_of_fitted_points(step, ratio, share):
    shift = 1e-6
    strong, weak = map_step(1 - share, share - shift, step, ratio * step)
    assert (1 - strong - weak) / shift == pytest.approx(multiplier(1 - share, share, step, ratio * step), abs=1e-4)


@pytest.mark.parametrize("ratio", [0.04, 0.25])
@pytest.mark.parametrize("step", [1.05, 1.3, 1.59])
def test_the_line_becomes_stable_at_the_share(step, ratio):
    share = stable_weak_share(step, ratio)
    assert multiplier(1 - share, share, step, ratio * step) == pytest.approx(-1)
    assert stable_weak_share(0.7, ratio) == 0


@pytest.mark.parametrize(
    ("step", "ratio", "end"),
    [(1.05, 0.1, 0.0529), (1.2, 0.1, 0.1852), (1.3, 0.1, 0.2564), (1.5, 0.1, 0.370), (1.59, 0.1, 0.4123),
     (1.05, 0.25, 0.0635), (1.2, 0.25, 0.2222), (1.5, 0.25, 0.4444)],
)  # fmt: skip
def test_recorded_shares(step, ratio, end):
    assert stable_weak_share(step, ratio) == pytest.approx(end, abs=5e-4 if step == 1.5 else 5e-5)


def test_no_share_is_stable_if_the_weak_feature_is_not():
    assert np.isnan(stable_weak_share(1.5, 0.7))


@pytest.mark.parametrize("ratio", [0.04, 0.1, 0.5])
def test_small_steps_conserve_the_weak_feature(ratio):
    start = np.array([1e-3, 1e-3])
    rates = np.array([1.0, ratio])
    flow = solve_ivp(
        lambda _, x: 2 * rates * x * (1 - x.sum()), (0, 200), start, method="DOP853", rtol=1e-12, atol=1e-14
    )
    assert small_step_weak_end(*start, ratio) == pytest.approx(flow.y[1, -1], rel=1e-8)
    if ratio == 0.1:
        assert small_step_weak_end(*start, ratio) == pytest.approx(0.0020, abs=5e-5)


@pytest.mark.parametrize("starts", [(0.0, 0.1), (0.1, 0.0), (0.6, 0.4)])
def test_starts_that_are_no_starts_are_refused(starts):
    with pytest.raises(ValueError, match="starts must be positive"):
        small_step_weak_end(*starts, 0.1)


def test_visits_to_saturation_count_the_map():
    step, ratio, weak = 1.2, 0.1, 1e-9
    strong, visits = two_cycle(step)[0], 0
    while weak < 0.02 * stable_weak_share(step, ratio):
        strong, weak = map_step(strong, weak, step, ratio * step)
        visits += 1
    left = visits_to_saturation(weak, step, ratio)
    assert visits == pytest.approx(visits_to_saturation(1e-9, step, ratio) - left, rel=0.01)
    assert np.isinf(visits_to_saturation(1e-3, 0.9, 0.1))
    assert visits_to_saturation(0.9, 1.2, 0.1) == 0


@profile(deadline=None, max_examples=50)
@given(st.floats(1e-3, 10), st.floats(0.01, 10), st.integers(1, 1000))
def test_effective_steps(step, norm, width):
    rate = learning_rate(step, norm, width)
    assert effective_step(rate, norm, width) == pytest.approx(step)
    assert rate == pytest.approx(step * width / (2 * norm**2))


def test_dead_parts_stay_dead_and_the_wrong_sign_shrinks():
    assert map_step(3.0, 0.1, 1.5, 0.1)[0] == 0
    assert neuron_factor(0.5, 0.4, right_sign=False) == pytest.approx(0.8)
