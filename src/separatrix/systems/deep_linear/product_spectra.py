"""Singular values of products of many random matrices: what becomes of a signal in a deep network at its start.

A product of D square Gaussian matrices with entries ``N(0, 1/N)`` keeps the mean square of a vector, but most of its
singular values collapse: at large N the squared ones follow the Fuss-Catalan law of order D. A product of orthogonal
matrices keeps all of them at 1 ("dynamical isometry"; Saxe, McClelland, Ganguli 2014, arXiv 1312.6120, section 3). The
law: Penson and Zyczkowski 2011, arXiv 1103.3453; its parametrisation is re-derived from the moments here.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from separatrix.systems.deep_linear.domain import check_positive
from separatrix.systems.deep_linear.quadrature import legendre_rule


def product_singular_values(
    factors: Iterable[Float[np.ndarray, "... n n"]], numbers: Sequence[int]
) -> Float[np.ndarray, "... k n"]:
    """Singular values, decreasing, of the products of the first ``numbers`` factors (increasing).

    Absolute errors are rounding of the largest value of each product: what lies below ``1e-15`` of it is noise.

    Raises
    ------
    ValueError
        If the numbers do not increase from 1 on, or there are fewer factors.
    """
    if not numbers or numbers[0] < 1 or any(later <= earlier for earlier, later in pairwise(numbers)):
        raise ValueError(f"numbers must increase from at least 1, got {tuple(numbers)}")
    product, values = None, []
    for number, factor in enumerate(factors, start=1):
        product = factor if product is None else factor @ product
        if number in numbers:
            values.append(np.linalg.svd(product, compute_uv=False))
    if len(values) < len(numbers):
        raise ValueError(f"there must be at least {numbers[-1]} factors")
    return np.stack(values, axis=-2)


def fuss_catalan_moment(order: int, factors: int) -> float:
    """Mean of ``sigma^{2 order}``, ``binomial((D + 1) k, k) / (D k + 1)``, at infinite size."""
    check_positive(factors=factors, order=order)
    k, d = order, factors
    return float(np.exp(gammaln((d + 1) * k + 1) - gammaln(k + 1) - gammaln(d * k + 1)) / (d * k + 1))


def fraction_below(threshold: float, factors: int) -> float:
    """Share of the singular values below ``threshold`` in a product of ``factors`` Gaussian matrices of infinite size.

    With ``sigma^2 = sin^{D+1}((D+1) phi) / (sin phi sin^D(D phi))``, phi from 0 (the largest) to ``pi / (D+1)``
    (zero), the density of ``sigma^2`` is ``sin^2 phi sin^{D-1}(D phi) / (pi sin^D((D+1) phi))``.

    Raises
    ------
    ValueError
        If the threshold or the number of factors is not positive.
    """
    check_positive(threshold=threshold, factors=factors)
    d, end = factors, np.pi / (factors + 1)

    def log_square(phi: np.ndarray) -> np.ndarray:
        return (d + 1) * np.log(np.sin((d + 1) * phi)) - np.log(np.sin(phi)) - d * np.log(np.sin(d * phi))

    goal, low, high = 2 * np.log(threshold), 1e-9 * end, (1 - 1e-15) * end
    if goal >= log_square(np.asarray(low)):
        return 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if log_square(np.asarray(middle)) > goal else (low, middle)
    node, weight = legendre_rule(200)
    phi = low + (end - low) * (node + 1) / 2
    # density times |d sigma^2 / d phi|; the powers of sin cancel against those of sigma^2
    slope = (d + 1) ** 2 / np.tan((d + 1) * phi) - 1 / np.tan(phi) - d**2 / np.tan(d * phi)
    density = np.sin(phi) * np.sin((d + 1) * phi) / (np.pi * np.sin(d * phi)) * -slope
    return float(np.sum(weight * density) * (end - low) / 2)
