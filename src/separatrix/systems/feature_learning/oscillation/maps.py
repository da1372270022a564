"""The two-feature map on grids of steps and feature ratios, and the claims that it decides exactly (L3 to L5)."""

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np
import xarray as xr

from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.feature_learning.oscillation.settings import Settings
from separatrix.systems.feature_learning.oscillation_map import (
    STABILITY_LIMIT,
    SURVIVAL_LIMIT,
    residual_bias,
    small_step_weak_end,
    stable_weak_share,
    weak_growth,
)
from separatrix.systems.feature_learning.oscillation_simulation import iterate_map

#: Steps with a stable 2-cycle, steps at which training ends on the border of stability, and small ones.
CYCLE_STEPS, END_STEPS, SMALL_STEPS = (1.02, 1.05, 1.1, 1.2, 1.23), (1.05, 1.2, 1.3, 1.5), (0.01, 0.02)
#: Feature ratios beside that of the settings.
CYCLE_RATIOS, END_RATIOS = (0.05, 0.25), (0.1, 0.25)
#: Contributions of both features at the start.
START = 1e-3
#: Visits before growth and bias are measured, pairs of visits over which they are, and visits drawn in the diagram.
FORGOTTEN, PAIRS, DRAWN = 1500, 250, 64
#: Steps of the diagram, and of the phase map with its feature ratios.
DIAGRAM_STEPS = np.linspace(0.9, 1.66, 305)
PHASE_STEPS, PHASE_RATIOS = (0.6, 1.59), (0.002, 0.6)


def _cells(name: str, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Steps and ratios of the members of an experiment, flat."""
    if name == "phase":
        steps = np.linspace(*PHASE_STEPS, settings.map_points)
        ratios = np.geomspace(*PHASE_RATIOS, settings.map_points)
    elif name == "diagram":
        steps, ratios = DIAGRAM_STEPS, np.array([settings.task.ratio])
    elif name == "cycles":
        steps, ratios = np.array(CYCLE_STEPS), np.array([settings.task.ratio, *CYCLE_RATIOS])
    else:
        steps, ratios = np.array(END_STEPS if name == "ends" else SMALL_STEPS), np.array(END_RATIOS)
        if name == "stepped":
            steps = np.array([END_STEPS[0]])
    pairs = np.array([*product(steps, ratios)])
    return pairs[:, 0], pairs[:, 1]


def _record_visits(name: str, settings: Settings) -> np.ndarray:
    """Visits after which to record: an interval of growth, consecutive visits for the diagram, or the end."""
    interval = np.array([FORGOTTEN, FORGOTTEN + 2 * PAIRS])
    if name == "cycles":
        return interval
    return settings.map_visits - np.arange(DRAWN)[::-1] if name == "diagram" else np.array([settings.map_visits])


def _simulate(settings: Settings, name: str, start: int, stop: int) -> xr.Dataset:
    steps, ratios = (values[start:stop] for values in _cells(name, settings))
    visits = _record_visits(name, settings)
    infinitesimal = name in ("cycles", "diagram")
    records = iterate_map(
        steps, ratios, np.concatenate([[FORGOTTEN], visits]), strong_start=START,
        weak_start=None if infinitesimal else START,
    )  # fmt: skip
    variables = {key: (("member", "visit"), values.T) for key, values in records.items()}
    variables |= {"strong_step": (("member",), steps), "ratio": (("member",), ratios)}
    coordinates = {"member": np.arange(start, stop), "visit": np.concatenate([[FORGOTTEN], visits])}
    return xr.Dataset(variables, coordinates)


def map_experiments(settings: Settings) -> Iterator[Experiment]:
    """The map on each grid."""
    for name in ("cycles", "ends", "small", "stepped", "diagram", "phase"):
        members = _cells(name, settings)[0].size
        visits = int(_record_visits(name, settings)[-1])
        yield Experiment(
            name,
            partial(_simulate, settings, name),
            members=members,
            bytes_per_member=8 * 4 * 3 * (DRAWN + 2),
            seconds=0.4 + members * visits * 2e-8,
            control=name == "stepped",
        )


def _exactly(label: str, value: float, accepted: tuple[float, float], note: str = "") -> Measurement:
    """A condition on a number without statistical error."""
    return Measurement(label, value, (value, value), accepted, note=note)


def _interval(data: xr.Dataset, variable: str) -> np.ndarray:
    """What a variable has gained between its first record and its last."""
    return (data[variable][:, -1] - data[variable][:, 0]).values


def measured_growth(data: xr.Dataset) -> np.ndarray:
    """Mean factor on ``<w, u>`` in two visits, for each member."""
    visits = float(data["visit"][-1] - data["visit"][0])
    return np.exp(_interval(data, "log_weak") / visits)


def weak_end(data: xr.Dataset) -> np.ndarray:
    """``B`` at the end."""
    return np.exp(data["log_weak"].values[:, -1])


def growth_on_the_cycle(
    settings: Settings, results: Results, growth=weak_growth, share=stable_weak_share
) -> list[Measurement]:
    """Measured growth minus theory, and end of the weak feature over theory, for every step and ratio of the map."""
    del settings
    data = results["cycles"]
    steps, ratios = data["strong_step"].values, data["ratio"].values
    found = [
        _exactly(f"step {step:g}, ratio {k:.3g}: growth - theory", value, (-1e-5, 1e-5), f"growth {total:.6f}")
        for step, k, value, total in zip(
            steps, ratios, measured_growth(data) - growth(steps, ratios), measured_growth(data), strict=True
        )
    ]
    data = results["ends"]
    steps, ratios = data["strong_step"].values, data["ratio"].values
    return found + [
        _exactly(f"step {step:g}, ratio {k:.3g}: B_end / theory", value / theory, (1.0, 1.06), f"B_end {value:.4f}")
        for step, k, value, theory in zip(steps, ratios, weak_end(data), share(steps, ratios), strict=True)
    ]


def first_order_growth(step: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """The wrong growth ``1 + k (eta_v - 1)``: the mean residual alone, without what its square costs."""
    return 1 + ratio * (step - STABILITY_LIMIT)


def strong_only_share(step: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """The wrong share ``(eta_v - 1) / eta_v``, which forgets that the weak feature has a step too."""
    del ratio
    return (step - STABILITY_LIMIT) / step


def small_steps_conserve(settings: Settings, results: Results, experiment: str = "small") -> list[Measurement]:
    """``B_end`` over its value on ``B = B_0 (A / A_0)^k``."""
    del settings
    data = results[experiment]
    return [
        _exactly(f"step {step:g}, ratio {k:g}: B_end / theory", value / small_step_weak_end(START, START, k),
                 (0.95, 1.05), f"B_end {value:.5f}")
        for step, k, value in zip(data["strong_step"].values, data["ratio"].values, weak_end(data), strict=True)
    ]  # fmt: skip


def bias_on_the_cycle(results: Results, theory=residual_bias) -> list[Measurement]:
    """Sum of residuals over sum of squares minus theory, on the 2-cycle."""
    data = results["cycles"]
    steps = data["strong_step"].values
    bias = _interval(data, "residual_sum") / _interval(data, "square_sum")
    return [
        _exactly(f"map, step {step:g}: sum l / sum l^2 - theory", value - float(theory(step)), (-1e-3, 1e-3),
                 f"sum l / sum l^2 = {value:.5f}")
        for step, value in [*zip(steps, bias, strict=True)][:: len(data["member"]) // len(CYCLE_STEPS)]
    ]  # fmt: skip


def alive(data: xr.Dataset) -> np.ndarray:
    """Members whose strong part has not died: beyond :data:`SURVIVAL_LIMIT` it does sooner or later."""
    return (data["strong"].values > 0).all(axis=1) & (data["strong_step"].values < SURVIVAL_LIMIT)
