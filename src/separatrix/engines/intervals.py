"""Interval estimates that claims rest on: means, spreads, medians, fractions, powers; else the bootstrap."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

_ELEMENTS = 4_000_000  # resampled values held at once, 32 MB


def bonferroni(parts: int, confidence: float = 0.95) -> float:
    """Confidence of each of ``parts`` intervals (at least 1) that are to hold together with ``confidence``."""
    return 1 - (1 - confidence) / max(parts, 1)


def bootstrap(
    statistic: Callable[..., np.ndarray],
    values: Float[np.ndarray, "n ..."],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[float, tuple[float, float]]:
    """Estimate and percentile-bootstrap interval of a statistic of independent members.

    Parameters
    ----------
    statistic
        ``statistic(values, axis=k)`` reduces the members along axis k: ``np.mean``, ``np.median``, ...
    values
        Members along the first axis.
    confidence
        Coverage of the interval, in (0, 1).
    seed
        Seed of the resampling: the same data give the same interval.
    resamples
        Number of resamples; raised where ``confidence`` asks for quantiles further out than they reach.

    Returns
    -------
    estimate, (lower, upper)

    Raises
    ------
    ValueError
        If there is no member, or ``confidence`` is not in (0, 1).
    """
    values = np.asarray(values)
    if values.shape[0] == 0:
        raise ValueError("a bootstrap needs at least one member")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    # At least ten resamples beyond each end of the interval.
    resamples = max(resamples, int(np.ceil(20 / (1 - confidence))))
    rng = np.random.default_rng(seed)
    n = values.shape[0]
    chunk = max(1, _ELEMENTS // values.size)
    draws = []
    for start in range(0, resamples, chunk):
        index = rng.integers(0, n, (min(chunk, resamples - start), n), dtype=np.int32)
        draws.append(np.asarray(statistic(values[index], axis=1)))
    low, high = np.quantile(np.concatenate(draws), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(statistic(values, axis=0)), (float(low), float(high))


def mean_interval(values: Float[np.ndarray, " n"], *, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Mean of independent members and Student's interval of it.

    Raises
    ------
    ValueError
        If there are fewer than two members.
    """
    values = np.asarray(values, np.float64)
    if values.size < 2:
        raise ValueError(f"an interval of a mean needs at least two members, got {values.size}")
    reach = stats.t.ppf(0.5 + confidence / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    mean = float(values.mean())
    return mean, (float(mean - reach), float(mean + reach))


def median_interval(values: Float[np.ndarray, " n"], *, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Median of independent members and its distribution-free interval, between two order statistics.

    Too few members for the confidence give the whole range of the values.

    Raises
    ------
    ValueError
        If there is no member.
    """
    values = np.sort(np.asarray(values, np.float64))
    if values.size == 0:
        raise ValueError("an interval of a median needs at least one member")
    below = int(stats.binom.ppf(0.5 - confidence / 2, values.size, 0.5)) - 1
    low, high = max(below, 0), min(values.size - 1 - below, values.size - 1)
    return float(np.median(values)), (float(values[low]), float(values[high]))


def spread_interval(values: Float[np.ndarray, " n"], *, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Standard deviation of independent members and its large-sample interval, valid for any law with four moments.

    The error of ``log s`` is ``sqrt((m_4 / m_2^2 - 1) / (4 n))`` (delta method).

    Raises
    ------
    ValueError
        If there are fewer than two members, or all are equal.
    """
    values = np.asarray(values, np.float64)
    if values.size < 2 or np.all(values == values.flat[0]):
        raise ValueError(f"an interval of a spread needs at least two different members, got {values.size}")
    squares = (values - values.mean()) ** 2
    error = np.sqrt((np.mean(squares**2) / np.mean(squares) ** 2 - 1) / (4 * values.size))
    spread = float(values.std(ddof=1))
    factor = float(np.exp(stats.norm.ppf(0.5 + confidence / 2) * error))
    return spread, (spread / factor, spread * factor)


def log_slope(
    x: Float[np.ndarray, " k"], samples: Sequence[Float[np.ndarray, " n"]], *, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Power of ``x`` in the absolute mean of independent samples: least squares in logarithms, error by delta method.

    Parameters
    ----------
    x
        ``(k,)``, positive, not all equal.
    samples
        k samples of independent members; their means must not be zero.

    Raises
    ------
    ValueError
        If there are fewer than two samples, or as many different ``x``.
    """
    if len(samples) < 2 or np.unique(x).size < 2:
        raise ValueError(f"a power needs at least two different x with a sample each, got {np.asarray(x).tolist()}")
    means = np.array([np.mean(s) for s in samples])
    errors = np.array([np.std(s, ddof=1) / np.sqrt(np.size(s)) for s in samples]) / np.abs(means)
    centred = np.log(x) - np.log(x).mean()
    weights = centred / np.sum(centred**2)
    slope = float(np.sum(weights * np.log(np.abs(means))))
    reach = float(stats.norm.ppf(0.5 + confidence / 2) * np.sqrt(np.sum((weights * errors) ** 2)))
    return slope, (slope - reach, slope + reach)


def paired_difference(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"], *, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Difference of two fractions measured on the same members, and the interval of Agresti and Min (2005).

    ``first`` and ``second`` tell for each member whether the event happened. The interval adds half a member to each
    of the four outcomes, so that it keeps its length where all members agree.

    Raises
    ------
    ValueError
        If there is no member or the two differ in number.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"a paired difference needs the same members twice, got {first.shape} and {second.shape}")
    gained, lost, n = np.sum(first & ~second) + 0.5, np.sum(second & ~first) + 0.5, first.size + 2
    centre = (gained - lost) / n
    reach = stats.norm.ppf(0.5 + confidence / 2) * np.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return float(first.mean() - second.mean()), (float(max(centre - reach, -1)), float(min(centre + reach, 1)))


def clustered_fraction(
    successes: Int[np.ndarray, " n"], trials: Int[np.ndarray, " n"], *, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Fraction of successes over members that bring several dependent trials each, with Korn and Graubard's interval.

    The exact binomial interval with the number of independent trials that has the measured variance over members; where
    all members agree, each counts as one trial (Korn and Graubard 1998).

    Raises
    ------
    ValueError
        If there is no trial.
    """
    successes, trials = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    successes, trials = successes[trials > 0], trials[trials > 0]
    if trials.size == 0:
        raise ValueError("a fraction needs at least one trial")
    total, n = trials.sum(), trials.size
    fraction = successes.sum() / total
    variance = np.sum((successes - fraction * trials) ** 2) * n / max(n - 1, 1) / total**2
    effective = min(fraction * (1 - fraction) / variance, total) if variance > 0 else n
    kept, tail = fraction * effective, (1 - confidence) / 2
    low = stats.beta.ppf(tail, kept, effective - kept + 1) if kept > 0 else 0.0
    high = stats.beta.ppf(1 - tail, kept + 1, effective - kept) if kept < effective else 1.0
    return float(fraction), (float(low), float(high))


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a probability from ``successes`` out of ``trials``; informative at 0 and at ``trials`` too.

    Raises
    ------
    ValueError
        If there are no trials or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(
            f"successes must lie between 0 and the number of trials (at least 1), got {successes} of {trials}"
        )
    interval = stats.binomtest(int(successes), int(trials)).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)
