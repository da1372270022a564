"""Linear regression on a real data set with added label noise: theory for the measured spectrum (B10 to B12)."""

from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.engines.intervals import bonferroni, bootstrap, mean_interval
from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.high_dimensional_regression.dataset_regression import (
    dataset_courses,
    measured_spectrum,
)
from separatrix.systems.high_dimensional_regression.generalization.linear import TIME
from separatrix.systems.high_dimensional_regression.generalization.overtraining import course_overtraining
from separatrix.systems.high_dimensional_regression.generalization.settings import Settings, problem
from separatrix.systems.high_dimensional_regression.learning_curves import generalization_error
from separatrix.systems.high_dimensional_regression.spectrum import Spectrum
from separatrix.systems.high_dimensional_regression.stopping import optimal_stopping
from separatrix.systems.high_dimensional_regression.task import LinearTask

#: Training sets of each ratio, at most; the test samples of each, at most.
SPLITS, TEST_SAMPLES = 100, 1000
#: Latest time at which curves are compared: later the few smallest eigenvalues of a small training set rule, and means
#: over splits are means of a few outliers.
COMPARED = 100.0
#: Factor by which the control of B12 stops too late.
LATE = 10.0


def _samples(settings: Settings, index: int) -> int:
    return max(round(settings.ratios[index] * settings.components), 1)


def _simulate(settings: Settings, index: int, copies: int, start: int, stop: int) -> xr.Dataset:
    """Random splits of the data; with ``copies = 2`` every training sample appears twice."""
    data = problem(settings)
    assert data is not None
    total, outputs = data.outputs.shape
    P = _samples(settings, index)
    distinct, held_out = max(P // copies, 1), min(total - P, TEST_SAMPLES)
    splits = []
    for member in range(start, stop):
        rng = np.random.default_rng([settings.seed, 8, index, copies, member])
        order, noise = rng.permutation(total), rng.normal(size=(distinct, outputs)) / np.sqrt(outputs)
        splits.append((order[:distinct], order[-held_out:], noise))
    train, test, noise = (np.stack(one) for one in zip(*splits, strict=True))
    courses = [
        dataset_courses(
            data.inputs[train], data.outputs[train] + np.sqrt(variance) * noise, data.inputs[test], data.outputs[test],
            copies * TIME,
        )
        for variance in settings.noise_ratios
    ]  # fmt: skip
    # the test labels' own noise is added as its variance, it need not be drawn
    errors = [
        np.asarray(course.test) + variance for course, variance in zip(courses, settings.noise_ratios, strict=True)
    ]
    power = np.sum((np.asarray(courses[0].directions) @ data.teacher) ** 2, axis=2)
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "test_error": (("member", "noise", "time"), np.stack(errors, axis=1))
    }
    if copies == 1:
        variables["eigenvalue"] = (("member", "mode"), np.asarray(courses[0].eigenvalues))
        variables["teacher_power"] = (("member", "mode"), power)
    coordinates = {
        "member": np.arange(start, stop),
        "noise": np.asarray(settings.noise_ratios),
        "time": ("time", TIME, {"unit": "gradient-flow time"}),
    }
    return xr.Dataset(variables, coordinates)


def dataset_experiments(settings: Settings) -> list[Experiment]:
    """Every ratio on the data set, and for controls the same with each sample twice; none for Gaussian data."""
    data = problem(settings)
    if data is None:
        return []
    members, (total, outputs) = min(settings.draws, SPLITS), data.outputs.shape
    experiments = []
    for index in range(len(settings.ratios)):
        N, P, test = settings.components, _samples(settings, index), min(total, TEST_SAMPLES)
        work = TIME.size * test * N * outputs
        cost = {
            "members": members,
            "bytes_per_member": 8 * (6 * (P + test) * (N + outputs) + 4 * N * N),
            "seconds": 1.0 + members * len(settings.noise_ratios) * (1e-9 * work + 1e-8 * P * N * min(P, N)),
        }
        for name, copies in (("dataset", 1), ("repeated_dataset", 2)):
            experiments.append(
                Experiment(
                    f"{name}_ratio{index}", partial(_simulate, settings, index, copies), control=copies > 1, **cost
                )
            )
    return experiments


def spectra(settings: Settings, results: Results, index: int) -> list[Spectrum]:
    """Spectrum of each training set."""
    data, P = results[f"dataset_ratio{index}"], _samples(settings, index)
    return [
        measured_spectrum(eigenvalues, power, settings.components, P)
        for eigenvalues, power in zip(data["eigenvalue"].values, data["teacher_power"].values, strict=True)
    ]


def mean_eigenvalue(spectrum: Spectrum) -> Spectrum:
    """The same data set as if it were well-conditioned: all positive eigenvalues at their mean."""
    share = spectrum.weights / spectrum.rank
    one = lambda values: np.array([values @ share])  # noqa: E731
    return Spectrum(one(spectrum.eigenvalues), np.array([spectrum.rank]), spectrum.frozen, spectrum.ratio,
                    one(spectrum.teacher_power), spectrum.frozen_power)  # fmt: skip


def noise_task(settings: Settings, noise_ratio: float) -> LinearTask:
    """The added label noise, and what the least-squares map leaves unexplained, as one noise."""
    data = problem(settings)
    assert data is not None
    return LinearTask(noise_ratio + data.residual_variance)


def theory_curves(
    settings: Settings, results: Results, index: int, noise_ratio: float, flattened: bool = False
) -> Float[np.ndarray, "n t"]:
    """Predicted test error of each training set at the recorded times."""
    task = noise_task(settings, noise_ratio)
    found = spectra(settings, results, index)
    return np.stack(
        [generalization_error(TIME, mean_eigenvalue(one) if flattened else one, task) for one in found]
    )  # fmt: skip


def dataset_agreement(settings: Settings, results: Results, flattened: bool = False) -> list[Measurement]:
    """Measured over predicted test error, minus 1, at the time of the largest deviation."""
    conditions = len(settings.ratios) * len(settings.noise_ratios)
    early = np.flatnonzero(TIME <= COMPARED)
    measurements = []
    for index, ratio in enumerate(settings.ratios):
        measured = results[f"dataset_ratio{index}"]["test_error"].values
        for k, noise in enumerate(settings.noise_ratios):
            theory = theory_curves(settings, results, index, noise, flattened)
            deviation = (measured[:, k] / theory - 1)[:, early]
            scatter = deviation.std(axis=0, ddof=1) / np.sqrt(len(deviation))
            worst = int(np.argmax(np.abs(deviation.mean(axis=0)) + 4 * scatter))
            estimate, interval = mean_interval(deviation[:, worst], confidence=bonferroni(conditions * early.size))
            measurements.append(
                Measurement(f"alpha {ratio:g}, INR {noise:g}, measured over predicted test error - 1", estimate,
                            interval, (-0.15, 0.15), members=len(deviation), note=f"at t = {TIME[worst]:.3g}")
            )  # fmt: skip
    return measurements


def _place(curves: Float[np.ndarray, "... n a t"], axis: int) -> np.ndarray:
    return np.argmax(course_overtraining(np.median(curves, axis=axis)), axis=-1)


def dataset_place_of_largest(settings: Settings, results: Results, name: str = "dataset") -> list[Measurement]:
    """Steps on the grid of ratios between the largest overtraining and ``P = N``, medians over splits."""
    centre = settings.ratios.index(1.0)
    measurements = []
    for k, noise in enumerate(settings.noise_ratios):
        curves = np.stack(
            [results[f"{name}_ratio{i}"]["test_error"].values[:, k] for i in range(len(settings.ratios))], axis=1
        )
        estimate, interval = bootstrap(
            _place, curves, confidence=bonferroni(len(settings.noise_ratios)), seed=settings.seed
        )  # fmt: skip
        measurements.append(
            Measurement(f"INR {noise:g}, place of the largest overtraining", estimate - centre,
                        (interval[0] - centre, interval[1] - centre), (-1.0, 1.0), members=len(curves),
                        unit="steps of the grid", note=f"at alpha = {settings.ratios[int(estimate)]:g}")
        )  # fmt: skip
    return measurements


def predicted_stopping(settings: Settings, results: Results, factor: float = 1.0) -> list[Measurement]:
    """Mean test error at ``factor`` times the predicted stopping time over the smallest mean test error."""
    conditions = len(settings.ratios) * len(settings.noise_ratios)
    measurements = []
    for index, ratio in enumerate(settings.ratios):
        measured = results[f"dataset_ratio{index}"]["test_error"].values
        found = spectra(settings, results, index)
        for k, noise in enumerate(settings.noise_ratios):
            task = noise_task(settings, noise)
            times = np.clip([factor * optimal_stopping(one, task).time for one in found], TIME[0], TIME[-1])
            curves = measured[:, k]
            stopped = np.array(
                [np.interp(np.log(time), np.log(TIME), curve) for time, curve in zip(times, curves, strict=True)]
            )
            best = curves[:, curves.mean(axis=0).argmin()]
            estimate, interval = bootstrap(
                lambda pairs, axis: pairs[..., 0].mean(axis=axis) / pairs[..., 1].mean(axis=axis),
                np.stack([stopped, best], axis=1), confidence=bonferroni(conditions), seed=settings.seed,
            )  # fmt: skip
            measurements.append(
                Measurement(f"alpha {ratio:g}, INR {noise:g}, error at the predicted time over the best", estimate,
                            interval, (-np.inf, 1.05), members=len(curves),
                            note=f"median predicted time {np.median(times):.3g}")
            )  # fmt: skip
    return measurements
