"""What the study measures beside its claims, for sweeps to map over kappa and the share of flipped labels."""

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.engines.intervals import mean_interval
from separatrix.lab import Quantity, Results
from separatrix.systems.feature_learning.two_stages.networks import clean_errors, kept_members, main_cell
from separatrix.systems.feature_learning.two_stages.selection import selection_accuracy
from separatrix.systems.feature_learning.two_stages.settings import Settings
from separatrix.systems.feature_learning.two_stages.stages import has_stage_one
from separatrix.systems.feature_learning.two_stages.stopping import overfitting


def quantities(settings: Settings) -> list[Quantity]:
    """All of the main network."""
    del settings
    return [
        Quantity("best_selection", "accuracy of selection by loss < log 2, at its best time", _mean(
            lambda data: selection_accuracy(data).max(axis=1)), needs=("main",)),
        Quantity("stage_one", "share of networks with a Stage I", _mean(has_stage_one), needs=("main",)),
        Quantity("overfitting", "error of fresh samples, end minus smallest", _mean(overfitting), needs=("main",)),
        Quantity("final_error", "error of fresh samples at the end", _mean(lambda data: clean_errors(data)[:, -1]),
                 needs=("main",)),
        Quantity("strength", "kappa (1 - 2 tau), above 1: two stages (theory)",
                 _predicted(lambda settings: main_cell(settings).strength)),
        Quantity("stage_two_time", "time theta at which Stage II begins (theory)",
                 _predicted(lambda settings: main_cell(settings).stage_two)),
    ]  # fmt: skip


def _mean(values: Callable[[xr.Dataset], Float[np.ndarray, " n"]]) -> Callable[[Settings, Results], xr.Dataset]:
    def measure(settings: Settings, results: Results) -> xr.Dataset:
        del settings
        measured = np.asarray(values(kept_members(results["main"])), np.float64)
        if measured.size < 2:
            return xr.Dataset(dict.fromkeys(("estimate", "low", "high"), np.nan))
        estimate, (low, high) = mean_interval(measured)
        return xr.Dataset({"estimate": estimate, "low": low, "high": high})

    return measure


def _predicted(value: Callable[[Settings], float]) -> Callable[[Settings, Results], xr.Dataset]:
    return lambda settings, results: xr.Dataset({"estimate": value(settings)})  # noqa: ARG005
