"""The border of the noise peak and the temperatures that a sweep maps."""

import numpy as np
import pytest
from lazy_results import LazyResults, tiny

from separatrix.systems.deep_linear.diffusion_peak import critical_label_noise
from separatrix.systems.deep_linear.saddle_to_saddle.quantities import (
    diffusion_slope,
    mode_variance,
    noise_over_critical,
    peak_progress,
    smallest_slope,
    temperature,
)
from separatrix.systems.deep_linear.scalar_mode import strength_diffusion


def profile(depth, noise, runs=100, records=80, scatter=0.0, seed=0):
    """Records of runs whose diffusion is exactly that of the scalar theory, up to a multiplicative scatter."""
    rng = np.random.default_rng(seed)
    progress = np.sort(rng.uniform(0, 1.05, (runs, records)), axis=1)
    diffusion = strength_diffusion(progress, 1.0, depth, 1.0, noise)
    return progress, diffusion * np.exp(scatter * rng.normal(size=(runs, records)))


@pytest.mark.parametrize("depth", [2, 3, 4, 8])
def test_the_slope_crosses_zero_at_the_critical_label_noise(depth):
    critical = critical_label_noise(depth)
    at = lambda factor: smallest_slope(*profile(depth, factor * critical))[0]  # noqa: E731
    assert at(1.0) == pytest.approx(0, abs=0.02)
    assert at(0.9) < -0.3
    assert at(1.1) > 0.3


def test_it_is_the_smallest_slope_of_the_profile():
    u = np.linspace(0.35, 0.95, 2001)
    for noise in (0.35, 0.45, 0.7):
        exact = np.gradient(np.log(strength_diffusion(u, 1.0, 2, 1.0, noise)), u).min()
        assert smallest_slope(*profile(2, noise))[0] == pytest.approx(exact, abs=0.03)


def test_the_interval_covers_the_slope():
    u = np.linspace(0.35, 0.95, 2001)
    exact = np.gradient(np.log(strength_diffusion(u, 1.0, 2, 1.0, 0.5)), u).min()
    hits = 0
    for seed in range(60):
        estimate, low, high = smallest_slope(*profile(2, 0.5, scatter=0.5, seed=seed), seed=seed)
        assert low <= estimate <= high
        hits += low <= exact <= high
    # 95 % of 60 are 57; the chance of fewer than 48 is below 1e-5
    assert hits >= 48


def test_records_that_do_not_cover_the_rise_give_no_slope():
    progress, diffusion = profile(2, 0.5)
    assert np.isnan(smallest_slope(0.2 * progress, diffusion)).all()
    assert np.isnan(smallest_slope(progress[:1], diffusion[:1])).all()
    broken = np.where(np.arange(100)[:, None] == 3, np.nan, progress)
    assert np.isfinite(smallest_slope(broken, diffusion)).all()


def test_the_measured_border_lies_at_the_critical_label_noise():
    """Mode 2 of the tiny study has s = 1, so that the label noise is that over the singular value."""
    for factor in (0.8, 1.2):
        settings = tiny(label_noise=factor * critical_label_noise(2), learning_rate=0.005, aligned_runs=64)
        results = LazyResults(settings)
        slope = diffusion_slope(settings, results).sel(depth=2, mode=2)
        assert (slope["high"] < 0) if factor < 1 else (slope["low"] > 0)
        ratio = noise_over_critical(settings, results)["estimate"]
        np.testing.assert_allclose(ratio.sel(depth=2), [factor / 2, factor])
        if factor < 1:
            peak = peak_progress(settings, results).sel(depth=2, mode=1)
            assert peak["low"] <= peak["estimate"] <= peak["high"]
            assert peak["estimate"] == pytest.approx(0.5, abs=0.1)


def test_variances_are_temperatures():
    settings = tiny(learning_rate=0.005, aligned_runs=64)
    results = LazyResults(settings)
    variance, predicted = mode_variance(settings, results), temperature(settings, results)["estimate"]
    assert variance["estimate"].dims == predicted.dims == ("depth", "mode")
    np.testing.assert_allclose(predicted.sel(depth=2), 0.005 * 0.3**2 * np.array([2.0, 1.0]))
    assert ((variance["low"] < 1.1 * predicted) & (variance["high"] > predicted)).all()
