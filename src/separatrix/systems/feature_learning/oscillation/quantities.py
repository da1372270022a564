"""What the study measures beside its claims, for sweeps over steps, norms and noise to map."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from separatrix.engines.intervals import clopper_pearson, mean_interval, median_interval
from separatrix.lab import Quantity, Results
from separatrix.systems.feature_learning.oscillation.accuracy import final_accuracy, kept, network
from separatrix.systems.feature_learning.oscillation.settings import Settings
from separatrix.systems.feature_learning.oscillation_map import stable_weak_share, weak_growth

Estimate = tuple[float, float, float]
_MISSING: Estimate = (np.nan, np.nan, np.nan)


def quantities(settings: Settings) -> list[Quantity]:
    """All quantities, over the strong steps; their intervals cover each number at 95 %."""
    del settings
    needs = ("network_*",)
    return [
        Quantity("weak_only_accuracy", "accuracy on points with the weak feature alone", accuracy, needs=needs),
        Quantity("weak_end", "contribution of the weak feature at the end, median", weak_end, needs=needs),
        Quantity("diverged_share", "share of runs that diverge", diverged_share, needs=needs),
        Quantity("training_loss", "training loss at the end, median", training_loss, needs=needs),
        Quantity("stable_weak_share", "share at which oscillation stops (theory)", share_in_theory),
        Quantity("weak_growth", "growth of the weak feature in two visits (theory)", growth_in_theory),
        Quantity("feature_ratio", "feature ratio (nu / nv)^2", feature_ratio),
    ]


def _over_steps(settings: Settings, measure: Callable[[float], Estimate | float]) -> xr.Dataset:
    """Values ``measure(strong step)``, a prediction or (estimate, low, high), as a dataset over the strong step."""
    values = np.array([measure(step) for step in settings.strong_steps], np.float64)
    ends = {"estimate": values} if values.ndim == 1 else dict(zip(("estimate", "low", "high"), values.T, strict=True))
    coordinates = {"strong_steps": list(settings.strong_steps)}
    return xr.Dataset({name: (("strong_steps",), array) for name, array in ends.items()}, coordinates)


def accuracy(settings: Settings, results: Results) -> xr.Dataset:
    """Mean weak-only accuracy of the runs that did not diverge."""

    def measure(step: float) -> Estimate:
        values = final_accuracy(network(settings, results, step))
        values = values[np.isfinite(values)]
        if values.size < 2:
            return _MISSING
        estimate, (low, high) = mean_interval(values)
        return estimate, low, high

    return _over_steps(settings, measure)


def _median_at_the_end(settings: Settings, results: Results, variable: str) -> xr.Dataset:
    def measure(step: float) -> Estimate:
        values = kept(network(settings, results, step))[variable].values[:, -1]
        if values.size == 0:
            return _MISSING
        estimate, (low, high) = median_interval(values)
        return estimate, low, high

    return _over_steps(settings, measure)


def weak_end(settings: Settings, results: Results) -> xr.Dataset:
    """Median of ``B`` at the end over the runs that did not diverge."""
    return _median_at_the_end(settings, results, "weak")


def training_loss(settings: Settings, results: Results) -> xr.Dataset:
    """Median training loss at the end over the runs that did not diverge."""
    return _median_at_the_end(settings, results, "loss")


def diverged_share(settings: Settings, results: Results) -> xr.Dataset:
    """Share of runs that diverge."""

    def measure(step: float) -> Estimate:
        flags = network(settings, results, step)["diverged_at_step"].values >= 0
        low, high = clopper_pearson(int(flags.sum()), flags.size)
        return float(flags.mean()), low, high

    return _over_steps(settings, measure)


def share_in_theory(settings: Settings, results: Results) -> xr.Dataset:
    """``(eta_v - 1) / (eta_v - eta_u)``."""
    del results
    return _over_steps(settings, lambda step: float(stable_weak_share(step, settings.task.ratio)))


def growth_in_theory(settings: Settings, results: Results) -> xr.Dataset:
    """``1 + k (1 - k) (eta_v - 1)``."""
    del results
    return _over_steps(settings, lambda step: float(weak_growth(step, settings.task.ratio)))


def feature_ratio(settings: Settings, results: Results) -> xr.Dataset:
    """``k``, the same for every step."""
    del results
    return _over_steps(settings, lambda _: settings.task.ratio)
