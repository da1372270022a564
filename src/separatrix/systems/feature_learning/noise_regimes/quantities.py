"""What the study measures beside its claims, for sweeps over alpha and temperature to map."""

import numpy as np
import xarray as xr

from separatrix.engines.intervals import bootstrap, clopper_pearson, mean_interval
from separatrix.lab import Quantity, Results
from separatrix.systems.feature_learning.noise_regimes.phase import effects
from separatrix.systems.feature_learning.noise_regimes.settings import Settings

_UNKNOWN = (float("nan"),) * 3


def quantities(settings: Settings) -> list[Quantity]:
    """All quantities; intervals cover each number at 95 %."""
    del settings
    point = ("point",)
    return [
        Quantity("test_error", "mean test error of the fitted networks at (alpha, T)", test_error, needs=point),
        Quantity("training_time", "geometric mean of the training time at (alpha, T)",
                 lambda s, r: _geometric(s, r, "time"), needs=point),
        Quantity("weight_change", "geometric mean of |w - w_0| / |w_0| at (alpha, T)",
                 lambda s, r: _geometric(s, r, "weight_change"), needs=point),
        Quantity("fitted_fraction", "share of the runs at (alpha, T) that fit all samples", fitted_fraction,
                 needs=point),
        Quantity("noise_over_margin", "temperature times alpha (1: the noise of SGD begins to matter)",
                 lambda s, _: _dataset(s.temperature * s.alpha, *[float("nan")] * 2)),
        Quantity("noise_effect", "relative slope of the test error with ln T in the lazy and in the feature row",
                 noise_effect, needs=("phase",)),
    ]  # fmt: skip


def _dataset(estimate: float, low: float, high: float) -> xr.Dataset:
    values = {"estimate": estimate} if np.isnan(low) and np.isfinite(estimate) else {
        "estimate": estimate, "low": low, "high": high}  # fmt: skip
    return xr.Dataset({name: ((), value) for name, value in values.items()})


def _chosen(results: Results, variable: str) -> np.ndarray:
    data = results["point"]
    return data[variable].values[data["fitted"].values]


def test_error(settings: Settings, results: Results) -> xr.Dataset:
    """Mean over fitted runs with Student's interval; unknown where fewer than half are fitted."""
    values = _chosen(results, "test_error")
    if 2 * values.size < settings.phase_runs or values.size < 2:
        return _dataset(*_UNKNOWN)
    estimate, (low, high) = mean_interval(values)
    return _dataset(estimate, max(low, 0.0), high)


test_error.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


def _geometric(settings: Settings, results: Results, variable: str) -> xr.Dataset:
    values = _chosen(results, variable)
    if 2 * values.size < settings.phase_runs or values.size < 2:
        return _dataset(*_UNKNOWN)
    mean, (low, high) = mean_interval(np.log(values))
    return _dataset(float(np.exp(mean)), float(np.exp(low)), float(np.exp(high)))


def fitted_fraction(settings: Settings, results: Results) -> xr.Dataset:
    """Fraction with its exact interval."""
    fitted = int(results["point"]["fitted"].values.sum())
    low, high = clopper_pearson(fitted, settings.phase_runs)
    return _dataset(fitted / settings.phase_runs, low, high)


def noise_effect(settings: Settings, results: Results) -> xr.Dataset:
    """Mean over runs with its bootstrap interval, positive where noise hurts."""
    rows = effects(settings, results)
    values = np.array([
        _UNKNOWN if one is None else (lambda e: (e[0], *e[1]))(bootstrap(np.mean, one)) for one in rows.values()
    ])  # fmt: skip
    return xr.Dataset(
        {name: ("regime", column) for name, column in zip(("estimate", "low", "high"), values.T, strict=True)},
        {"regime": list(rows)},
    )
