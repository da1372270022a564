"""The Marchenko-Pastur law and discrete spectra: mass, moments, edges, agreement with adaptive quadrature."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from separatrix.systems.high_dimensional_regression.spectrum import (
    Spectrum,
    density,
    discrete_spectrum,
    edges,
    marchenko_pastur,
)

RATIOS = st.one_of(st.floats(1e-3, 1e3), st.floats(-1e-6, 1e-6).map(lambda x: 1 + x))


@settings(max_examples=60, deadline=None)
@given(RATIOS)
def test_mass_mean_and_second_moment(ratio):
    law = marchenko_pastur(ratio)
    assert law.average(np.ones_like(law.eigenvalues)) + law.frozen == pytest.approx(1, abs=1e-12)
    assert law.average(law.eigenvalues) == pytest.approx(ratio, rel=1e-12)
    assert law.average(law.eigenvalues**2) == pytest.approx(ratio * (1 + ratio), rel=1e-12)
    low, high = edges(ratio)
    assert np.all((law.eigenvalues >= low) & (law.eigenvalues <= high))


@settings(max_examples=60, deadline=None)
@given(RATIOS.filter(lambda ratio: ratio != 1))
@example(np.nextafter(1.0, 2.0))
@example(np.nextafter(1.0, 0.0))
def test_mean_inverse(ratio):
    law = marchenko_pastur(ratio)
    expected = 1 / (ratio - 1) if ratio > 1 else ratio / (1 - ratio)
    assert law.average(1 / law.eigenvalues) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("f", [np.cos, lambda x: np.exp(-3 * x), np.sqrt])
def test_quadrature_agrees_with_the_density(ratio, f):
    law, (low, high) = marchenko_pastur(ratio), edges(ratio)
    # the substitution of a square takes the inverse root out of the end at zero
    expected, _ = quad(
        lambda u: 2 * u * float(density(low + u * u, ratio)) * f(low + u * u),
        0,
        np.sqrt(high - low),
        epsabs=1e-13,
        epsrel=1e-12,
        limit=400,
    )
    assert law.average(f(law.eigenvalues)) == pytest.approx(expected, rel=1e-9)


def test_density_vanishes_outside_and_has_the_mass_of_the_positive_eigenvalues():
    low, high = edges(0.5)
    assert np.all(density(np.array([-1.0, 0.0, 0.9 * low, 1.1 * high]), 0.5) == 0)
    assert quad(lambda x: float(density(x, 0.5)), low, high, limit=200)[0] == pytest.approx(0.5, rel=1e-6)


def test_the_law_is_that_of_sampled_data():
    rng = np.random.default_rng(0)
    N, P = 400, 800
    X = rng.normal(size=(N, P)) / np.sqrt(N)
    sampled = discrete_spectrum(np.linalg.eigvalsh(X @ X.T), P)
    law = marchenko_pastur(2.0)
    for f in (lambda x: x, lambda x: x**2, lambda x: 1 / x):
        # linear statistics of the eigenvalues fluctuate by O(1/N)
        assert sampled.average(f(sampled.eigenvalues)) == pytest.approx(law.average(f(law.eigenvalues)), rel=0.02)


def test_frozen_directions_are_told_by_a_relative_bound():
    values = np.array([0.0, 1e-13, 1e-9, 1.0])
    spectrum = discrete_spectrum(values, 2, np.array([1.0, 3.0, 5.0, 7.0]))
    assert spectrum.eigenvalues.tolist() == [1e-9, 1.0]
    assert (spectrum.frozen, spectrum.ratio, spectrum.frozen_power) == (0.5, 0.5, 2.0)
    assert spectrum.teacher_power.tolist() == [5.0, 7.0]
    scaled = discrete_spectrum(1e-20 * values, 2)
    assert scaled.eigenvalues.size == 2


@pytest.mark.parametrize("ratio", [0.0, -1.0, np.nan, np.inf])
def test_ratios_that_are_none_are_refused(ratio):
    with pytest.raises(ValueError, match="ratio must be finite and positive"):
        marchenko_pastur(ratio)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights": np.array([0.5])}, "one entry for each eigenvalue"),
        ({"eigenvalues": np.array([0.0, 1.0])}, "must be positive"),
        ({"eigenvalues": np.array([-1.0, 1.0])}, "not negative"),
        ({"frozen": 0.5}, "must add to 1"),
        ({"ratio": 0.0}, "ratio must be"),
    ],
)
def test_spectra_that_are_none_are_refused(changes, reason):
    right = {"eigenvalues": np.array([1.0, 2.0]), "weights": np.array([0.5, 0.5]), "frozen": 0.0, "ratio": 1.0}
    Spectrum(**right)
    with pytest.raises(ValueError, match=reason):
        Spectrum(**{**right, **changes})


def test_a_data_set_without_eigenvalues_is_refused():
    with pytest.raises(ValueError, match="not all zero"):
        discrete_spectrum(np.zeros(3), 2)
    with pytest.raises(ValueError, match="not negative"):
        discrete_spectrum(np.array([-0.1, 1.0]), 2)
