"""Ensembles of random-feature students: courses of the second layer for every number of features."""

from functools import partial

import numpy as np
import xarray as xr

from separatrix.lab import Experiment
from separatrix.systems.high_dimensional_regression.generalization.settings import Settings
from separatrix.systems.high_dimensional_regression.random_features import (
    ReluTask,
    feature_courses,
    random_layer,
    relu_task,
)

#: Recorded times of gradient flow on the mean loss; the last is late for all but the smallest eigenvalues.
TIME = np.geomspace(0.1, 1e9, 61)
TEST_SAMPLES = 1000


def draw_task(settings: Settings, member: int, samples: int) -> ReluTask:
    """Teacher and samples of a member, the same for students of all sizes."""
    rng = np.random.default_rng([settings.seed, 2, member])
    return relu_task(
        rng, settings.feature_inputs, settings.teacher_width, samples, TEST_SAMPLES, settings.feature_noise
    )


def stack_tasks(tasks: list[ReluTask]) -> list[np.ndarray]:
    """Inputs, labels, test inputs and test labels with the members first."""
    return [np.stack([getattr(task, name) for task in tasks]) for name in ReluTask.__dataclass_fields__]


def _simulate(settings: Settings, width: int, copies: int, start: int, stop: int) -> xr.Dataset:
    distinct = max(settings.feature_samples // copies, 1)
    tasks = [draw_task(settings, member, distinct) for member in range(start, stop)]
    layers = [
        random_layer(np.random.default_rng([settings.seed, 3, width, member]), width, settings.feature_inputs)
        for member in range(start, stop)
    ]
    # repeating every sample leaves the mean loss as it is
    course = feature_courses(np.stack(layers), *stack_tasks(tasks), TIME)
    rank = np.asarray(course.rank)
    eigenvalues = np.asarray(course.eigenvalues)
    variables = {
        "test_error": (("member", "time"), np.asarray(course.test)),
        "training_error": (("member", "time"), np.asarray(course.training)),
        "final_error": ("member", np.asarray(course.final_test)),
        "smallest_eigenvalue": ("member", eigenvalues[np.arange(len(rank)), rank - 1]),
        "frozen": ("member", width - rank),
    }
    time = ("time", TIME, {"unit": "gradient-flow time"})
    return xr.Dataset(variables, {"member": np.arange(start, stop), "time": time})


def feature_experiments(settings: Settings) -> list[Experiment]:
    """Every number of features, and for controls the same with each sample drawn twice."""
    experiments = []
    P, T = settings.feature_samples, TEST_SAMPLES
    for width in settings.feature_widths:
        rank = min(P, width)
        cost = {
            "members": settings.feature_draws,
            "bytes_per_member": 8
            * (2 * (P + T) * settings.feature_inputs + 2 * width * (settings.feature_inputs + rank)),
            "seconds": 1.0 + settings.feature_draws * (2e-8 * P * width * rank / 10 + 3e-9 * T * rank * TIME.size),
        }
        for name, copies in (("features", 1), ("repeated_features", 2)):
            experiments.append(
                Experiment(
                    f"{name}_width{width}", partial(_simulate, settings, width, copies), control=copies > 1, **cost
                )
            )
    return experiments
