"""Learning curves: against adaptive quadrature, closed ends, known figures, invariants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from separatrix.systems.high_dimensional_regression import learning_curves as curves
from separatrix.systems.high_dimensional_regression.spectrum import discrete_spectrum, edges, marchenko_pastur
from separatrix.systems.high_dimensional_regression.task import LinearTask

RATIOS = st.floats(0.05, 20)
TASKS = st.builds(LinearTask, st.floats(0.01, 10), st.floats(0.1, 10), st.floats(0, 5))
TASK = LinearTask(0.25, 1.0, 0.04)


def adaptive(ratio, f):
    """``int rho f`` in the angle, an adaptive rule that knows nothing of the panels."""
    low, _ = edges(ratio)

    def integrand(q):
        value = low + 4 * np.sqrt(ratio) * np.sin(q / 2) ** 2
        return 4 * ratio * np.sin(q) ** 2 / (2 * np.pi * value) * f(value)

    points = np.pi * 0.5 ** np.arange(1, 25)
    return quad(integrand, 0, np.pi, points=points[::-1], limit=2000, epsabs=0, epsrel=1e-12)[0]


@pytest.mark.parametrize(
    ("ratio", "time"), [(0.5, 3.0), (1.0, 1e4), (1.0, 1e8), (1.001, 1e5), (0.999, 1e7), (4.0, 0.01)]
)
def test_curves_agree_with_adaptive_quadrature(ratio, time):
    A, B = TASK.signal_variance + TASK.initial_variance, TASK.noise_variance
    test = adaptive(ratio, lambda v: A * np.exp(-2 * v * time) + B * np.expm1(-v * time) ** 2 / v)
    expected = test + max(0, 1 - ratio) * A + B
    assert float(curves.generalization_error(time, marchenko_pastur(ratio), TASK)) == pytest.approx(expected, rel=1e-10)
    training = adaptive(ratio, lambda v: (v * A + B) * np.exp(-2 * v * time)) / ratio + max(0, 1 - 1 / ratio) * B
    assert float(curves.training_error(time, marchenko_pastur(ratio), TASK)) == pytest.approx(training, rel=1e-10)


@pytest.mark.parametrize(
    ("ratio", "time", "expected"),
    [
        (0.5, 1, 0.9495),
        (0.5, 3, 0.9200),
        (0.5, 100, 1.0200),
        (1, 3, 0.6616),
        (1, 100, 1.8212),
        (2, 1, 0.4660),
        (2, 100, 0.5),
    ],
)
def test_known_test_errors(ratio, time, expected):
    assert float(curves.generalization_error(time, marchenko_pastur(ratio), TASK)) == pytest.approx(expected, abs=5e-5)


def test_known_training_error():
    assert float(curves.training_error(3, marchenko_pastur(1), TASK)) == pytest.approx(0.0763, abs=5e-5)


@settings(max_examples=60, deadline=None)
@given(RATIOS.filter(lambda ratio: abs(ratio - 1) > 1e-3), TASKS)
def test_start_and_end(ratio, task):
    law = marchenko_pastur(ratio)
    start = task.signal_variance + task.initial_variance
    assert float(curves.generalization_error(0, law, task)) == pytest.approx(start + task.noise_variance, rel=1e-10)
    assert float(curves.training_error(0, law, task)) == pytest.approx(start + task.noise_variance, rel=1e-10)
    end = curves.final_generalization_error(ratio, task), curves.final_training_error(ratio, task)
    assert float(curves.generalization_error(np.inf, law, task)) == pytest.approx(end[0], rel=1e-9)
    # below alpha = 1 the end is zero, to rounding of what it started from
    rounding = 1e-15 * (start + task.noise_variance)
    assert float(curves.training_error(np.inf, law, task)) == pytest.approx(end[1], rel=1e-9, abs=rounding)


@settings(max_examples=60, deadline=None)
@given(RATIOS, TASKS)
def test_training_error_never_increases_and_test_error_stays_above_the_noise(ratio, task):
    time, law = np.geomspace(1e-4, 1e6, 120), marchenko_pastur(ratio)
    training = curves.training_error(time, law, task)
    assert np.all(np.diff(training) <= 1e-12 * training[0])
    assert np.all(curves.generalization_error(time, law, task) >= task.noise_variance)
    assert np.all(np.diff(curves.effective_rank(time, law)) >= 0)
    assert curves.effective_rank(np.inf, law) == pytest.approx(min(ratio, 1), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(RATIOS, TASKS, st.floats(0.01, 100))
def test_a_discrete_spectrum_that_is_the_law_gives_the_curves_of_the_law(ratio, task, time):
    """Quantiles of the law stand in for the eigenvalues of a very large data set."""
    law = marchenko_pastur(ratio)
    weights = np.concatenate([[law.frozen], law.weights])
    cumulative = np.cumsum(weights) - weights / 2
    count = 20_000
    places = (np.arange(count) + 0.5) / count
    values = np.where(places < law.frozen, 0.0, np.interp(places, cumulative[1:], law.eigenvalues))
    spectrum = discrete_spectrum(values, round(ratio * count))
    assert curves.generalization_error(time, spectrum, task) == pytest.approx(
        curves.generalization_error(time, law, task), rel=0.02
    )


def test_small_times_keep_their_digits():
    """To second order the noise enters as ``sigma^2 t^2`` times the mean eigenvalue."""
    time, task = 1e-9, LinearTask(1.0, 0.0)
    noise = curves.generalization_error(time, marchenko_pastur(2.0), task) - 1
    assert curves.learned(time, np.array([3.0]))[0] == pytest.approx(3e-9, rel=1e-8)
    assert noise == pytest.approx(2 * time**2, abs=1e-15)


def test_growth_at_equality_is_the_limit_with_its_constant():
    for time in (1e4, 1e8, 1e12):
        exact = float(curves.generalization_error(time, marchenko_pastur(1.0), LinearTask(2.0, 0.0)))
        # the next term of the expansion is of order 1 / sqrt(t)
        assert abs(exact - curves.growth_at_equality(time, 2.0)) < 0.3 / np.sqrt(time) + 1e-12 * exact


def test_equality_is_infinite_at_the_end_and_time_scales_follow_the_edges():
    assert curves.final_generalization_error(1.0, TASK) == np.inf
    assert curves.final_generalization_error(1.0, LinearTask(0.0)) == 0
    assert curves.slowest_time(1.0) == np.inf
    assert curves.slowest_time(4.0) == pytest.approx(1.0)
    assert curves.slowest_time(0.25) == pytest.approx(4.0)
    assert curves.typical_time(0.25) == 1
    assert curves.typical_time(4.0) == 0.25
    assert curves.largest_stable_step(4.0) == pytest.approx(2 / 9)


def test_teacher_power_weighs_the_modes():
    values, power = np.array([0.0, 0.5, 2.0]), np.array([0.3, 2.0, 0.7])
    spectrum, task, t = discrete_spectrum(values, 2, power), LinearTask(0.1, 1.0, 0.2), 0.7
    decay = np.exp(-values * t)
    modes = (power + 0.2) * decay**2
    modes[1:] += 0.1 * (1 - decay[1:]) ** 2 / values[1:]
    assert curves.generalization_error(t, spectrum, task) == pytest.approx(modes.mean() + 0.1)
    training = ((values * (power + 0.2) + 0.1) * decay**2)[1:].sum() / 2
    assert curves.training_error(t, spectrum, task) == pytest.approx(training)


@pytest.mark.parametrize("variances", [(-0.1, 1.0, 0.0), (0.1, -1.0, 0.0), (0.1, 1.0, -1.0), (np.nan, 1.0, 0.0)])
def test_variances_that_are_none_are_refused(variances):
    with pytest.raises(ValueError, match="must be finite and not negative"):
        LinearTask(*variances)


def test_a_task_without_labels_and_a_time_before_the_start_are_refused():
    with pytest.raises(ValueError, match="must not both be zero"):
        LinearTask(0.0, 0.0)
    with pytest.raises(ValueError, match="time must not be negative"):
        curves.generalization_error(-1.0, marchenko_pastur(1.0), TASK)
