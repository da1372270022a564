"""What the study measures beside its claims, for sweeps to map: the border of the noise peak, and temperatures."""

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.engines.intervals import mean_interval, median_interval
from separatrix.lab import Quantity, Results
from separatrix.systems.deep_linear.diffusion_peak import critical_label_noise
from separatrix.systems.deep_linear.saddle_to_saddle.noise_peak import measured_diffusion, run_rises
from separatrix.systems.deep_linear.saddle_to_saddle.settings import Settings, task
from separatrix.systems.deep_linear.stationary import boltzmann_temperature

#: Progress between which the slope of the diffusion is searched, and cells of the profile.
RISE, CELLS = (0.3, 0.97), 40
#: Degree of the polynomial in the progress that smooths the logarithm of the profile.
DEGREE = 6
_RESAMPLES = 400

Estimate = tuple[float, float, float]
_MISSING: Estimate = (np.nan, np.nan, np.nan)


def quantities(settings: Settings) -> list[Quantity]:
    """All quantities, over depths and modes; their intervals cover each number at 95 %."""
    del settings
    return [
        Quantity(
            "diffusion_slope",
            "smallest slope d ln D / du along the rise (below 0: a noise peak)",
            diffusion_slope,
            needs=("aligned_*_noisy",),
        ),
        Quantity("peak_progress", "median progress w/s at the largest diffusion", peak_progress,
                 needs=("aligned_*_noisy",)),
        Quantity("noise_over_critical", "label noise over its critical value (theory)", noise_over_critical),
        Quantity("mode_variance", "stationary variance of the mode strength", mode_variance, needs=("stationary_*",)),
        Quantity("temperature", "temperature kappa sigma^2 L s^(2-2/L) / 2 (theory)", temperature),
    ]  # fmt: skip


def _over_modes(settings: Settings, measure: Callable[[int, int], Estimate | float]) -> xr.Dataset:
    """Values ``measure(depth, mode)``, a prediction or (estimate, low, high), as a dataset over depth and mode."""
    modes = range(task(settings).modes)
    values = np.array([[measure(depth, mode) for mode in modes] for depth in settings.depth], np.float64)
    ends = {"estimate": values} if values.ndim == 2 else dict(zip(("estimate", "low", "high"), np.moveaxis(values, -1, 0), strict=True))  # fmt: skip  # noqa: E501
    coordinates = {"depth": list(settings.depth), "mode": [mode + 1 for mode in modes]}
    return xr.Dataset({name: (("depth", "mode"), array) for name, array in ends.items()}, coordinates)


def diffusion_slope(settings: Settings, results: Results) -> xr.Dataset:
    """Smallest slope of the logarithm of the measured diffusion against the progress ``u = w/s`` (aligned, noisy).

    An interior maximum of the diffusion exists where the slope is negative somewhere; by the scalar theory the smallest
    slope crosses zero at the critical label noise.
    """

    def measure(depth: int, mode: int) -> Estimate:
        data = results[f"aligned_depth{depth}_noisy"]
        data = data.isel(member=np.flatnonzero(data["diverged_at_step"].values < 0))
        progress = data["strength"].values[:, :, mode] / data["singular_value"].values[mode]
        return smallest_slope(progress, measured_diffusion(data)[:, :, mode], seed=settings.seed)

    return _over_modes(settings, measure)


def smallest_slope(
    progress: Float[np.ndarray, "n t"], diffusion: Float[np.ndarray, "n t"], *, seed: int = 0
) -> tuple[float, float, float]:
    """Smallest ``d ln D / du`` of the profile ``D(u)`` of recorded runs, and its 95 % bootstrap interval over runs.

    The profile is the mean diffusion in cells of the progress, smoothed by a polynomial in its logarithm; NaN if the
    records do not cover the rise.

    Parameters
    ----------
    progress, diffusion
        ``w / s`` and the variance rate along each run.
    seed
        Of the resampling.
    """
    low, high = RISE
    inside = (progress >= low) & (progress < high) & np.isfinite(diffusion)
    cell = np.where(inside, ((np.nan_to_num(progress) - low) / (high - low) * CELLS).astype(int), CELLS)
    runs = len(progress)
    index = np.arange(runs)[:, None] * (CELLS + 1) + cell

    def total(values: np.ndarray) -> np.ndarray:
        counted = np.bincount(index.ravel(), np.where(inside, values, 0.0).ravel(), runs * (CELLS + 1))
        return counted.reshape(runs, CELLS + 1)[:, :CELLS]

    sums = np.stack([total(np.ones_like(progress)), total(progress), total(diffusion)])
    if runs < 2 or np.sum(sums[0].sum(axis=0) > 0) < CELLS // 2:
        return _MISSING
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(runs, np.full(runs, 1 / runs), _RESAMPLES)
    slopes = [_profile_slope(weight @ sums) for weight in (np.ones((1, runs)), *weights[:, None])]
    return slopes[0], float(np.quantile(slopes[1:], 0.025)), float(np.quantile(slopes[1:], 0.975))


def _profile_slope(sums: Float[np.ndarray, "3 1 cells"]) -> float:
    count, progress, diffusion = sums[:, 0]
    kept = (count > 0) & (diffusion > 0)
    fit = np.polynomial.Polynomial.fit(
        progress[kept] / count[kept], np.log(diffusion[kept] / count[kept]), DEGREE, w=np.sqrt(count[kept])
    )
    return float(fit.deriv()(np.linspace(RISE[0] + 0.05, RISE[1] - 0.02, 200)).min())


def peak_progress(settings: Settings, results: Results) -> xr.Dataset:
    """Median progress at the largest diffusion up to the learned time (aligned, noisy)."""
    rise = {depth: run_rises(results[f"aligned_depth{depth}_noisy"]) for depth in settings.depth}

    def measure(depth: int, mode: int) -> Estimate:
        learned = rise[depth].peak_progress[rise[depth].learned[:, mode], mode]
        if learned.size < 2:
            return _MISSING
        estimate, (low, high) = median_interval(learned)
        return estimate, low, high

    return _over_modes(settings, measure)


def noise_over_critical(settings: Settings, results: Results) -> xr.Dataset:
    """Label noise over singular value, over the value above which the diffusion has no interior maximum."""
    del results
    problem = task(settings)
    ratio = problem.mode_label_noise / problem.followed
    return _over_modes(settings, lambda depth, mode: ratio[mode] / critical_label_noise(depth))


def mode_variance(settings: Settings, results: Results) -> xr.Dataset:
    """Variance of the strengths of the full network at the end, with label noise."""

    def measure(depth: int, mode: int) -> Estimate:
        strength = results[f"stationary_depth{depth}"]["strength_matrix"].values[:, :, mode, mode]
        kept = strength[np.isfinite(strength).all(axis=1)]
        if len(kept) < 2:
            return _MISSING
        estimate, (low, high) = mean_interval(np.mean((kept - kept.mean()) ** 2, axis=1))
        return estimate, low, high

    return _over_modes(settings, measure)


def temperature(settings: Settings, results: Results) -> xr.Dataset:
    """Boltzmann temperature of each mode: the variance to first order in the noise scale."""
    del results
    problem = task(settings)
    kappa = settings.learning_rate * problem.noise_scale_factor
    return _over_modes(
        settings,
        lambda depth, mode: float(
            boltzmann_temperature(depth, problem.followed[mode], problem.mode_label_noise[mode], kappa)
        ),
    )
