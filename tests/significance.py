"""Statistical assertions whose chance of a false alarm is one in a million, however many numbers are compared."""

import numpy as np
from scipy import stats

FALSE_ALARM = 1e-6


def assert_standard_normal(z):
    """No entry of ``z`` is too large for independent or dependent N(0, 1) numbers (Bonferroni)."""
    z = np.asarray(z)
    limit = stats.norm.isf(FALSE_ALARM / 2 / z.size)
    assert np.max(np.abs(z)) < limit, f"z = {z[np.abs(z) >= limit]} beyond {limit:.2f}"


def assert_means(samples, expected):
    """The means along the last axis (independent samples) equal ``expected`` within their standard errors."""
    samples = np.asarray(samples, np.float64)
    error = samples.std(axis=-1, ddof=1) / np.sqrt(samples.shape[-1])
    assert_standard_normal((samples.mean(axis=-1) - expected) / error)


def assert_equally_likely(counts):
    """Chi-square test of equal probabilities."""
    assert stats.chisquare(np.ravel(counts)).pvalue > FALSE_ALARM
