"""Early stopping and ridge: known figures, optimality, and one against the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from separatrix.systems.high_dimensional_regression import ridge, stopping
from separatrix.systems.high_dimensional_regression.learning_curves import generalization_error
from separatrix.systems.high_dimensional_regression.spectrum import discrete_spectrum, marchenko_pastur
from separatrix.systems.high_dimensional_regression.task import LinearTask

RATIOS = st.floats(0.05, 20)
NOISES = st.floats(0.01, 20)


@pytest.mark.parametrize(
    ("noise", "ratio", "time", "error", "best"),
    [
        (0.2, 0.25, 2.276, 1.0014, 1.0000), (0.2, 0.5, 2.707, 0.8261, 0.8217), (0.2, 0.8, 3.015, 0.6552, 0.6472),
        (0.2, 1.0, 3.067, 0.5675, 0.5583), (0.2, 1.25, 2.989, 0.4850, 0.4756), (0.2, 2.0, 2.394, 0.3541, 0.3483),
        (0.2, 4.0, 1.327, 0.2628, 0.2613), (1.0, 1.0, 0.681, 1.6246, 1.6180), (1.0, 2.0, 0.619, 1.4232, 1.4142),
    ],
)  # fmt: skip
def test_known_figures(noise, ratio, time, error, best):
    task = LinearTask(noise)
    found = stopping.optimal_stopping(marchenko_pastur(ratio), task)
    assert found.time == pytest.approx(time, abs=6e-4)
    assert found.error == pytest.approx(error, abs=6e-5)
    assert ridge.best_ridge_error(ratio, task) == pytest.approx(best, abs=6e-5)


@settings(max_examples=60, deadline=None)
@given(RATIOS, NOISES, st.floats(0, 3))
def test_no_time_is_better_than_the_best(ratio, noise, start):
    law, task = marchenko_pastur(ratio), LinearTask(noise, 1.0, start)
    found = stopping.optimal_stopping(law, task)
    others = generalization_error(found.time * np.geomspace(1e-3, 1e3, 301), law, task)
    assert np.all(others >= found.error * (1 - 1e-12))


@settings(max_examples=60, deadline=None)
@given(RATIOS, NOISES)
def test_ridge_is_best_at_the_inverse_snr_and_never_worse_than_stopping(ratio, noise):
    law, task = marchenko_pastur(ratio), LinearTask(noise)
    best = ridge.best_ridge_error(ratio, task)
    assert ridge.best_penalty(law, task) == noise
    assert float(ridge.ridge_error(noise, law, task)) == pytest.approx(best, rel=1e-10)
    assert np.all(ridge.ridge_error(noise * np.geomspace(0.01, 100, 201), law, task) >= best * (1 - 1e-12))
    ratio_of_errors = stopping.optimal_stopping(law, task).error / best
    assert ratio_of_errors >= 1 - 1e-12
    if noise >= 0.2:  # the published range; with less noise the two grow apart (1.027 at noise 1/16 and ratio 5/4)
        assert ratio_of_errors <= 1.025


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-6, 1e3))
def test_resolvent_moment_is_the_integral(ratio, penalty):
    law = marchenko_pastur(ratio)
    expected = law.average(1 / (law.eigenvalues + penalty)) + law.frozen / penalty
    assert ridge.resolvent_moment(ratio, penalty) == pytest.approx(expected, rel=1e-9)


def test_the_best_time_of_one_mode_is_stationary():
    task = LinearTask(0.3, 1.0, 0.5)
    spectrum = discrete_spectrum(np.array([1.7]), 3, np.array([0.8]))
    found = stopping.optimal_stopping(spectrum, task)
    assert found.time == pytest.approx(np.log1p(1.7 * 1.3 / 0.3) / 1.7)
    beside = generalization_error(found.time * np.array([0.999, 1.001]), spectrum, task)
    assert np.all(beside > found.error)


def test_without_noise_one_never_stops():
    assert stopping.optimal_stopping(marchenko_pastur(0.5), LinearTask(0.0)).time == np.inf
    assert np.all(stopping.mode_stopping_time(np.array([1.0, 2.0]), LinearTask(0.0)) == np.inf)
    assert ridge.best_ridge_error(0.5, LinearTask(0.0)) == 0.5


def test_the_best_penalty_of_a_teacher_with_a_direction_is_found():
    values, power = np.array([0.0, 0.1, 1.0, 4.0]), np.array([0.1, 0.2, 0.7, 3.0])
    spectrum, task = discrete_spectrum(values, 3, power), LinearTask(0.4)
    best = ridge.best_penalty(spectrum, task)
    assert best != pytest.approx(0.4, rel=0.1)
    around = ridge.ridge_error(best * np.array([0.99, 1.0, 1.01]), spectrum, task)
    assert around.argmin() == 1


def test_what_is_outside_its_domain_is_refused():
    with pytest.raises(ValueError, match="eigenvalue must be positive"):
        stopping.mode_stopping_time(0.0, LinearTask(1.0))
    with pytest.raises(ValueError, match="penalty must not be negative"):
        ridge.ridge_error(-1.0, marchenko_pastur(1.0), LinearTask(1.0))
    with pytest.raises(ValueError, match="penalty must be positive"):
        ridge.resolvent_moment(1.0, 0.0)
