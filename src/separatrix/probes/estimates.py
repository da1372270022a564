"""A number estimated from independent samples, with its standard error and what it took."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean of independent samples.

    Attributes
    ----------
    value
        The estimate; unbiased unless the function that made it says otherwise.
    standard_error
        Standard deviation of the estimate, itself estimated from the samples; not a number for a single sample.
    samples
        Number of independent samples.
    products
        Products with the matrix (or gradients of mini-batches) that were made.
    converged
        Whether the standard error is at most the tolerance asked for, relative to the value.
    """

    value: float
    standard_error: float
    samples: int
    products: int
    converged: bool

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Student's interval of the value."""
        reach = float(stats.t.ppf(0.5 + confidence / 2, self.samples - 1)) * self.standard_error
        return self.value - reach, self.value + reach


def mean_of(samples: Sequence[float] | np.ndarray, products: int, tolerance: float, offset: float = 0.0) -> Estimate:
    """Mean of independent samples plus an offset without error.

    Parameters
    ----------
    samples
        ``(n,)``.
    products
        What they took.
    tolerance
        Standard error relative to the value from which on the estimate counts as converged.
    offset
        Added to the mean.
    """
    values = np.asarray(samples, np.float64)
    value = offset + float(values.mean())
    error = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")
    return Estimate(value, error, values.size, products, bool(error <= tolerance * abs(value)))
