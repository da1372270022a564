"""What a sweep can map: time of the transition, distances, shape of the cone, and what moving kernels are worth."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from separatrix.engines.intervals import mean_interval
from separatrix.lab import Quantity, Results
from separatrix.probes.cone import apex_angle, cone
from separatrix.systems.training_phases.two_phases.phases import kept_runs, transitions
from separatrix.systems.training_phases.two_phases.settings import Settings


def cones(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Shape of the cone of all kernels from a reference step on, for references up to the middle of the run.

    Returns
    -------
    steps, shapes
        ``(k,)``, and ``(runs, k, 3)``: angular radius and angle of the kernel at the start from the axis, in degrees,
        and effective dimension.
    """
    steps = data["step"].values
    middle = int(np.searchsorted(steps, steps[-1] / 2, side="right"))
    shapes = np.empty((len(data["member"]), middle - 1, 3))
    for run, distance in enumerate(data["distance"].values):
        for k in range(1, middle):
            after = distance[k:, k:]
            found = cone(after)
            angles = np.rad2deg([found.radius, apex_angle(distance[0, k:], after)])
            shapes[run, k - 1] = *angles, found.effective_dimension
    return steps[1:middle], shapes


def _number(values: np.ndarray) -> xr.Dataset:
    """Mean of what is known of the runs with its interval; not a number from fewer than two."""
    values = values[np.isfinite(values)]
    if values.size < 2:
        return xr.Dataset(dict.fromkeys(("estimate", "low", "high"), ((), np.nan)))
    estimate, (low, high) = mean_interval(values)
    return xr.Dataset({"estimate": ((), estimate), "low": ((), low), "high": ((), high)})


def _of_runs(pick: Callable[[xr.Dataset], np.ndarray]) -> Callable[[Settings, Results], xr.Dataset]:
    return lambda settings, results: _number(pick(kept_runs(results["runs"])))  # noqa: ARG005


def _of_cones(column: int) -> Callable[[Settings, Results], xr.Dataset]:
    def measure(settings: Settings, results: Results) -> xr.Dataset:  # noqa: ARG001
        steps, shapes = cones(kept_runs(results["runs"]))
        return xr.concat([_number(values) for values in shapes[:, :, column].T], xr.IndexVariable("reference", steps))

    return measure


def _change_with_fresh_vectors(data: xr.Dataset) -> np.ndarray:
    """Squared change of the last distance with fresh vectors, over what its standard error predicts."""
    change = data["redrawn"].values - data["distance"].values[:, -2, -1]
    with np.errstate(invalid="ignore"):  # exact kernels: 0 / 0
        return change**2 / (2 * data["standard_error"].values[:, -2, -1] ** 2)


def _accuracy_by_switch(settings: Settings, results: Results) -> xr.Dataset:  # noqa: ARG001
    data = results["switching"]
    kept = data.isel(member=np.flatnonzero(data["diverged_at_step"].values < 0))
    columns = [_number(column) for column in kept["accuracy"].values.T]
    return xr.concat(columns, xr.IndexVariable("switch", data["switch"].values))


def _gain(settings: Settings, results: Results) -> xr.Dataset:  # noqa: ARG001
    data = results["switching"]
    return _number((data["nonlinear_accuracy"] - data["accuracy"][:, 0]).values[data["diverged_at_step"].values < 0])


def quantities(settings: Settings) -> list[Quantity]:  # noqa: ARG001
    """All of them, means over runs."""
    times = lambda data: np.array([one.time for one in transitions(data)])  # noqa: E731
    return [
        Quantity("transition_time", "end of the first phase", _of_runs(times), "steps", ("runs",)),
        Quantity("across", "distance across the transition",
                 _of_runs(lambda data: np.array([one.across for one in transitions(data)])), needs=("runs",)),
        Quantity("within", "distance after the transition",
                 _of_runs(lambda data: np.array([one.within for one in transitions(data)])), needs=("runs",)),
        Quantity("final_distance", "kernel distance between start and end",
                 _of_runs(lambda data: data["distance"].values[:, 0, -1]), needs=("runs",)),
        Quantity("final_distance_class_trace", "the same for the kernel traced over classes",
                 _of_runs(lambda data: data["class_trace"].values[:, 0, -1]), needs=("runs",)),
        Quantity("final_distance_of_subsets", "kernel distance between start and end from a quarter of the examples, "
                 "interval over the four quarters",
                 _of_runs(lambda data: data["subsets"].values[:, :, 0, -1].mean(axis=0)), needs=("runs",)),
        Quantity("estimate_check", "squared change of the last estimated distance with fresh sign vectors, over its "
                 "expectation (1 if standard errors are right)", _of_runs(_change_with_fresh_vectors), needs=("runs",)),
        Quantity("cone_radius", "angular radius of the kernels from a step on", _of_cones(0), "degrees", ("runs",)),
        Quantity("apex_angle", "angle of the kernel at the start from their axis", _of_cones(1), "degrees", ("runs",)),
        Quantity("cone_dimension", "their effective dimension", _of_cones(2), needs=("runs",)),
        Quantity("linearized_accuracy", "test accuracy of linearised training", _accuracy_by_switch,
                 needs=("switching",)),
        Quantity("gain", "test accuracy that the kernel's motion is worth", _gain, needs=("switching",)),
    ]  # fmt: skip
