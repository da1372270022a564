import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from separatrix.systems.deep_linear.diffusion_peak import (
    critical_label_noise,
    diffusion_exponent,
    dominant_label_noise,
    peak_progress,
    peak_regime,
    stationary_progress,
)
from separatrix.systems.deep_linear.scalar_mode import root_noise, strength_diffusion


@pytest.mark.parametrize(
    ("depth", "peak", "critical", "dominant", "weights_peak", "weights_critical"),
    [
        (2, 0.5000, 0.5000, 0.4247, 0.3333, 0.8165),
        (3, 0.5714, 0.4009, 0.3377, 0.4000, 0.6708),
        (4, 0.6000, 0.3651, 0.3066, 0.4286, 0.6172),
        (np.inf, 0.6667, 0.2887, 0.2406, 0.5000, 0.5000),
    ],
)
def test_table(depth, peak, critical, dominant, weights_peak, weights_critical):
    found = [peak_progress(depth, 0.0), critical_label_noise(depth), dominant_label_noise(depth),
             peak_progress(depth, 0.0, "weights"), critical_label_noise(depth, "weights")]  # fmt: skip
    np.testing.assert_allclose(found, [peak, critical, dominant, weights_peak, weights_critical], rtol=0, atol=5.1e-5)


def diffusion(progress, depth, label_noise, observable, kurtosis):
    """Up to a factor, from the scalar equation: of the strength, or of one layer."""
    if observable == "strength":
        return strength_diffusion(progress, 1.0, depth, 1.0, label_noise, kurtosis)
    return root_noise(progress ** (1 / depth), 1.0, depth, 1.0, label_noise, kurtosis) ** 2


OBSERVABLES = st.sampled_from(["strength", "weights"])


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 12), st.floats(0, 0.98), OBSERVABLES, st.floats(0.4, 3))
def test_the_peak_is_a_local_maximum_and_the_other_point_a_local_minimum(depth, share, observable, kurtosis):
    """On a fine grid, at every label noise below the critical one."""
    label_noise = share * critical_label_noise(depth, observable, kurtosis)
    peak, dip = stationary_progress(depth, label_noise, observable, kurtosis)
    assert 0 < peak < dip <= 1 + 1e-12
    u = np.linspace(1e-3, 1.2, 12_000)
    values = diffusion(u, depth, label_noise, observable, kurtosis)
    rising = np.diff(values) > 0
    step = u[1] - u[0]
    tops = u[1:-1][rising[:-1] & ~rising[1:]]
    bottoms = u[1:-1][~rising[:-1] & rising[1:]]
    np.testing.assert_allclose(tops, [peak], atol=1.01 * step)
    np.testing.assert_allclose(bottoms, [dip], atol=1.01 * step)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.floats(1.001, 5), OBSERVABLES, st.floats(0.4, 3))
def test_above_critical_label_noise_the_diffusion_only_rises(depth, share, observable, kurtosis):
    label_noise = share * critical_label_noise(depth, observable, kurtosis)
    assert np.all(np.isnan(stationary_progress(depth, label_noise, observable, kurtosis)))
    values = diffusion(np.linspace(1e-3, 1.2, 5000), depth, label_noise, observable, kurtosis)
    assert np.all(np.diff(values) > 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.floats(0.02, 0.98), OBSERVABLES, st.floats(0.4, 3))
def test_regimes(depth, share, observable, kurtosis):
    """A peak proper is noisier than the learned mode, a local peak is not."""
    critical = critical_label_noise(depth, observable, kurtosis)
    dominant = dominant_label_noise(depth, observable, kurtosis)
    assert 0 < dominant < critical
    for low, high, regime in ((0, dominant, "peak"), (dominant, critical, "local peak")):
        noise = low + share * (high - low)
        assert peak_regime(depth, noise, observable, kurtosis) == regime
        at = peak_progress(depth, noise, observable, kurtosis)
        ahead = diffusion(at, depth, noise, observable, kurtosis) > diffusion(1.0, depth, noise, observable, kurtosis)
        assert ahead == (regime == "peak")
    assert peak_regime(depth, critical * (1 + share), observable, kurtosis) == "none"


def test_arrays_of_label_noise():
    peaks = peak_progress(2, np.array([0.0, 0.3, 0.5, 0.6]))
    np.testing.assert_allclose(peaks[:3], [0.5, (3 - np.sqrt(1 - 4 * 0.09)) / 4, 0.75], rtol=1e-7)
    assert np.isnan(peaks[3])
    # Random starts at singular values 4, 3, 2, 1 and label noise 0.3, depth 3.
    progress = peak_progress(3, 0.3 / np.array([4.0, 3.0, 2.0, 1.0]))
    np.testing.assert_allclose(progress, [0.575, 0.578, 0.587, 0.644], atol=6e-4)


def test_the_kurtosis_rescales_the_label_noise():
    assert critical_label_noise(3, kurtosis=2.0) == pytest.approx(critical_label_noise(3) * np.sqrt(5 / 2))
    assert peak_progress(3, 0.3, kurtosis=2.0) == pytest.approx(peak_progress(3, 0.3 / np.sqrt(5 / 2)))


@pytest.mark.parametrize("function", [critical_label_noise, dominant_label_noise, diffusion_exponent])
def test_bad_depth_and_observable_are_refused(function):
    for depth in (1, 1.99, 0, -3, np.nan):
        with pytest.raises(ValueError, match=r"^depth must be at least 2"):
            function(depth)
    with pytest.raises(ValueError, match=r"^observable must be 'strength' or 'weights', got 'noise'"):
        function(2, "noise")


@pytest.mark.parametrize("kurtosis", [1 / 3, 0.0, np.nan, np.inf])
def test_bad_kurtosis_is_refused(kurtosis):
    for call in (
        lambda: peak_progress(2, 0.1, kurtosis=kurtosis),
        lambda: critical_label_noise(2, kurtosis=kurtosis),
        lambda: dominant_label_noise(2, kurtosis=kurtosis),
    ):
        with pytest.raises(ValueError, match=r"^kurtosis must be finite and above 1/3"):
            call()


@pytest.mark.parametrize("function", [peak_progress, stationary_progress, peak_regime])
def test_bad_depth_and_label_noise_are_refused(function):
    with pytest.raises(ValueError, match=r"^depth must be at least 2"):
        function(1, 0.1)
    for noise in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"^label_noise must be finite and not negative"):
            function(2, noise)
