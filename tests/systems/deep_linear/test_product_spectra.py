"""Singular values of products: brute force, the moments of the Fuss-Catalan law, known fractions."""

import numpy as np
import pytest
from scipy.integrate import quad

from separatrix.systems.deep_linear.product_spectra import (
    fraction_below,
    fuss_catalan_moment,
    product_singular_values,
)

KNOWN = {1: (0.0, 0.82), 2: (0.04, 0.55), 5: (0.21, 0.18), 10: (0.41, 0.029), 20: (0.63, 9.8e-4), 50: (0.80, 2.8e-8)}


@pytest.fixture(scope="module")
def gaussian():
    rng = np.random.default_rng(0)
    return product_singular_values((rng.normal(0, 0.1, (20, 100, 100)) for _ in range(50)), tuple(KNOWN))


def test_products_of_the_first_factors():
    factors = np.random.default_rng(1).normal(size=(4, 3, 3))
    found = product_singular_values(factors, (1, 3))
    np.testing.assert_allclose(found[0], np.linalg.svd(factors[0])[1], rtol=1e-14)
    np.testing.assert_allclose(found[1], np.linalg.svd(factors[2] @ factors[1] @ factors[0])[1], rtol=1e-12)
    for wrong in ((), (0, 1), (2, 2)):
        with pytest.raises(ValueError, match="must increase from at least 1"):
            product_singular_values(factors, wrong)
    with pytest.raises(ValueError, match="at least 5 factors"):
        product_singular_values(factors, (1, 5))


def test_fractions_and_medians_of_gaussian_products(gaussian):
    for k, (number, (share, median)) in enumerate(KNOWN.items()):
        values = gaussian[:, k]
        below = (values < 0.01).mean(axis=1)
        # twenty draws of a hundred values: the shares were measured on other draws
        error = 6 * below.std(ddof=1) / 20**0.5 + 0.006
        assert below.mean() == pytest.approx(share, abs=error + 0.005)
        assert below.mean() == pytest.approx(fraction_below(0.01, number), abs=error)
        assert np.median(values) == pytest.approx(median, rel=0.2)


def test_second_moments_are_kept_and_fourth_ones_grow(gaussian):
    square = gaussian[:, :4] ** 2
    for k, number in enumerate((1, 2, 5, 10)):
        for order in (1, 2):
            means = (square[:, k] ** order).mean(axis=1)
            # at size N the moments differ from the limit by O(1 / N^2), times D^2
            error = 6 * means.std(ddof=1) / 20**0.5
            assert means.mean() == pytest.approx(fuss_catalan_moment(order, number), abs=error + 0.02)
    assert fuss_catalan_moment(2, 10) == pytest.approx(11)


@pytest.mark.parametrize("factors", [1, 2, 7])
def test_the_law_has_its_moments(factors):
    # integrate 2 x P(sigma > x) over x: the mean square
    top = ((factors + 1) ** (factors + 1) / factors**factors) ** 0.5
    mean, _ = quad(lambda x: 2 * x * (1 - fraction_below(x, factors)), 0, top, epsrel=1e-7, limit=200)
    assert mean == pytest.approx(fuss_catalan_moment(1, factors), rel=1e-5)


def test_one_factor_is_the_quarter_circle():
    for x in (0.01, 0.5, 1.3, 1.99):
        expected = (x * np.sqrt(4 - x**2) / 2 + 2 * np.arcsin(x / 2)) / np.pi
        assert fraction_below(x, 1) == pytest.approx(expected, rel=1e-9)
    assert fraction_below(2.01, 1) == 1.0
    with pytest.raises(ValueError, match="threshold must be finite and positive"):
        fraction_below(0.0, 1)
