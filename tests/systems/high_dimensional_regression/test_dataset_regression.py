"""A data set in the units of the theory: whitening, teacher, and spectra of training sets."""

import numpy as np
import pytest

from separatrix.systems.high_dimensional_regression.dataset_regression import (
    dataset_courses,
    dataset_problem,
    measured_spectrum,
)
from separatrix.systems.high_dimensional_regression.learning_curves import generalization_error
from separatrix.systems.high_dimensional_regression.task import LinearTask


def raw(samples=3000, inputs=12, outputs=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, inputs)) * np.linspace(3, 0.5, inputs) + 5
    return x, x @ rng.normal(size=(inputs, outputs)) + rng.normal(size=(samples, outputs))


def test_inputs_are_white_and_the_teacher_is_least_squares():
    x, y = raw()
    problem = dataset_problem(x, y, 8)
    np.testing.assert_allclose(problem.inputs.T @ problem.inputs / 3000, np.eye(8) / 8, atol=1e-12)
    np.testing.assert_allclose(problem.teacher, np.linalg.lstsq(problem.inputs, problem.outputs)[0], atol=1e-9)
    assert np.sum(problem.teacher**2) == pytest.approx(8)
    residual = problem.outputs - problem.inputs @ problem.teacher
    assert problem.residual_variance == pytest.approx(np.mean(np.sum(residual**2, axis=1)))
    # scaling the inputs or the outputs changes nothing
    again = dataset_problem(7 * x + 1, -3 * y, 8)
    assert again.residual_variance == pytest.approx(problem.residual_variance)


@pytest.mark.parametrize("P", [6, 12, 30])
def test_the_theory_of_the_measured_spectrum_is_the_mean_over_label_noise(P):
    x, y = raw()
    problem, N, noise, splits = dataset_problem(x, y, 12), 12, 0.8, 400
    rng = np.random.default_rng(1)
    train = np.arange(P)
    clean = problem.inputs[train] @ problem.teacher
    labels = clean + np.sqrt(noise / 2) * rng.normal(size=(splits, P, 2))
    repeat = lambda array: np.broadcast_to(array, (splits, *array.shape))  # noqa: E731
    time = np.array([0.3, 3.0, 30.0])
    course = dataset_courses(
        repeat(problem.inputs[train]), labels, repeat(problem.inputs), repeat(problem.inputs @ problem.teacher), time
    )
    power = np.sum((np.asarray(course.directions[0]) @ problem.teacher) ** 2, axis=1)
    spectrum = measured_spectrum(np.asarray(course.eigenvalues[0]), power, N, P)
    predicted = generalization_error(time, spectrum, LinearTask(noise)) - noise
    mean, error = course.test.mean(axis=0), course.test.std(axis=0) / np.sqrt(splits)
    # five standard errors: a false alarm in a million runs
    assert np.all(np.abs(mean - predicted) < 5 * error + 1e-9)


def test_components_that_are_not_there_are_refused():
    x, y = raw()
    x[:, 3] = x[:, 4]
    with pytest.raises(ValueError, match="components must be at most 11"):
        dataset_problem(x, y, 12)


def test_outputs_that_the_inputs_do_not_explain_are_refused():
    x, _ = raw(64, 3)
    x -= x.mean(axis=0)
    y = np.linalg.svd(np.column_stack([x, np.ones(64)]))[0][:, 10:11]
    with pytest.raises(ValueError, match="nothing to learn"):
        dataset_problem(x, y, 3)
