"""Power laws from samples of independent members, some of which may be censored: fits, checks, crossings, collapses.

The model is a straight line in logarithms, ``log y = a + b log x + s z`` with Gaussian z: ``y`` is described by
geometric means, as it should be where a few extreme members would rule an arithmetic one. A member that was given up
at its cap is known to lie above it; the fit maximises the likelihood of that (Tobin 1958), so that the slow members
are neither dropped nor taken for finished. Without censored members it is least squares.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import special, stats

_ITERATIONS = 2000  # of the maximisation, at most
_TOLERANCE = 1e-9  # change of every parameter at which it ends


class PowerLaw(NamedTuple):
    """A fitted power law ``y = prefactor * x^exponent``.

    Attributes
    ----------
    exponent, interval
        Estimate and bootstrap interval over members.
    prefactor
        Geometric mean of y at x = 1.
    scatter
        Standard deviation of ``log y`` about the line.
    p_value
        Of the straight line against free geometric means: small where no power law describes the samples. NaN with two
        different x, where nothing is left to check.
    local_exponents
        ``(k - 1,)``: slopes between neighbouring x; they show where an exponent is still drifting.
    censored
        Fraction of censored members.
    resamples
        ``(r,)``: exponents of the resamples behind the interval.
    """

    exponent: float
    interval: tuple[float, float]
    prefactor: float
    scatter: float
    p_value: float
    local_exponents: Float[np.ndarray, " j"]
    censored: float
    resamples: Float[np.ndarray, " r"]


def power_law(
    x: Float[np.ndarray, " k"],
    samples: Sequence[Float[np.ndarray, " n"]],
    censored: Sequence[Bool[np.ndarray, " n"]] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
    paired: bool = False,
) -> PowerLaw:
    """Fit a power law through samples at k values of x.

    Parameters
    ----------
    x
        ``(k,)``, positive, increasing.
    samples
        k samples of positive numbers; a censored one is its lower bound.
    censored
        Which members are censored; none by default.
    confidence, seed, resamples
        Of the bootstrap.
    paired
        Whether the samples are of the same members, which are then resampled together.

    Raises
    ------
    ValueError
        If there are fewer than two x, x or samples are not positive, a sample has fewer than two members, all members
        at some x are censored, or paired samples differ in number.
    """
    x = np.asarray(x, np.float64)
    y = [np.asarray(sample, np.float64) for sample in samples]
    cut = [np.zeros(s.size, bool) for s in y] if censored is None else [np.asarray(c, bool) for c in censored]
    _check(x, y, cut, paired)
    group = np.repeat(np.arange(x.size), [s.size for s in y])
    log_y, flags = np.log(np.concatenate(y)), np.concatenate(cut)
    design = _line(np.log(x))[group]
    coefficients, scatter = _tobit(design, log_y[None], flags[None])
    rng = np.random.default_rng(seed)
    chosen = _resample(rng, [s.size for s in y], resamples, paired)
    redrawn, _ = _tobit(design, log_y[chosen], flags[chosen])
    # A resample of a group in which every member is censored has no finite maximum; it tells of a large y there.
    slopes = redrawn[:, 1]
    low, high = np.quantile(slopes, [0.5 - confidence / 2, 0.5 + confidence / 2])
    free = np.eye(x.size)[group]
    means, _ = _tobit(free, log_y[None], flags[None])
    return PowerLaw(
        float(coefficients[0, 1]),
        (float(low), float(high)),
        float(np.exp(coefficients[0, 0] - coefficients[0, 1] * np.log(x).mean())),
        float(scatter[0]),
        _lack_of_fit(design, free, log_y, flags),
        np.diff(means[0]) / np.diff(np.log(x)),
        float(flags.mean()),
        slopes,
    )


def geometric_means(
    samples: Sequence[Float[np.ndarray, " n"]], censored: Sequence[Bool[np.ndarray, " n"]] | None = None
) -> Float[np.ndarray, " k"]:
    """Geometric mean of each sample; censored members count with what the log-normal law expects above their bounds.

    The scatter in logarithms is taken to be the same in all samples.
    """
    y = [np.asarray(sample, np.float64) for sample in samples]
    cut = [np.zeros(s.size, bool) for s in y] if censored is None else [np.asarray(c, bool) for c in censored]
    _check(np.arange(1.0, len(y) + 1), y, cut, paired=False)
    group = np.repeat(np.arange(len(y)), [s.size for s in y])
    means, _ = _tobit(np.eye(len(y))[group], np.log(np.concatenate(y))[None], np.concatenate(cut)[None])
    return np.exp(means[0])


def _check(x: np.ndarray, y: list[np.ndarray], cut: list[np.ndarray], paired: bool) -> None:
    if x.ndim != 1 or x.size < 2 or len(y) != x.size or np.any(np.diff(x) <= 0) or not x[0] > 0:
        raise ValueError(f"x must be at least two increasing positive values with a sample each, got {x.tolist()}")
    for where, sample, flags in zip(x, y, cut, strict=True):
        if sample.ndim != 1 or sample.size < 2 or flags.shape != sample.shape:
            raise ValueError(f"the sample at x = {where:g} must hold at least two members, each with its flag")
        if not np.all(np.isfinite(sample) & (sample > 0)):
            raise ValueError(f"the sample at x = {where:g} must hold finite positive numbers")
        if flags.all():
            raise ValueError(f"at x = {where:g} all members are censored: nothing is known but a lower bound")
    if paired and len({sample.size for sample in y}) > 1:
        raise ValueError("paired samples must have equally many members")


def _line(log_x: np.ndarray) -> np.ndarray:
    """Columns of intercept and slope; centred, so that the two are independent."""
    return np.stack([np.ones_like(log_x), log_x - log_x.mean()], axis=1)


def _resample(rng: np.random.Generator, sizes: list[int], resamples: int, paired: bool) -> np.ndarray:
    """Indices into the joined samples, ``(resamples, N)``, each sample drawn from itself."""
    offsets = np.cumsum([0, *sizes[:-1]])
    if paired:
        together = rng.integers(0, sizes[0], (resamples, sizes[0]))
        return np.concatenate([together + offset for offset in offsets], axis=1)
    drawn = [rng.integers(0, size, (resamples, size)) + offset for size, offset in zip(sizes, offsets, strict=True)]
    return np.concatenate(drawn, axis=1)


def _tobit(design: np.ndarray, y: np.ndarray, censored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients ``(r, p)`` and scatter ``(r,)`` that maximise the likelihood of ``y`` ``(r, N)``, by expectation and
    maximisation: a censored value stands for its conditional mean and variance.
    """
    solve = np.linalg.pinv(design)
    coefficients = y @ solve.T
    residual = y - coefficients @ design.T
    scatter = np.sqrt(np.mean(residual**2, axis=1))
    if not censored.any():
        return coefficients, scatter
    scatter = np.maximum(scatter, 1e-12)
    for _ in range(_ITERATIONS):
        mean = coefficients @ design.T
        z = (y - mean) / scatter[:, None]
        # Inverse Mills ratio of the normal law beyond z, without overflow.
        hazard = np.exp(-(z**2) / 2 - special.log_ndtr(-z)) / np.sqrt(2 * np.pi)
        expected = np.where(censored, mean + scatter[:, None] * hazard, y)
        spread = np.where(censored, scatter[:, None] ** 2 * np.maximum(1 + z * hazard - hazard**2, 0), 0.0)
        before = np.concatenate([coefficients, scatter[:, None]], axis=1)
        coefficients = expected @ solve.T
        scatter = np.sqrt(np.mean((expected - coefficients @ design.T) ** 2 + spread, axis=1))
        if np.max(np.abs(np.concatenate([coefficients, scatter[:, None]], axis=1) - before)) < _TOLERANCE:
            break
    return coefficients, scatter


def _log_likelihood(design: np.ndarray, y: np.ndarray, censored: np.ndarray) -> float:
    coefficients, scatter = _tobit(design, y[None], censored[None])
    z = (y - design @ coefficients[0]) / scatter[0]
    return float(np.sum(np.where(censored, special.log_ndtr(-z), -(z**2) / 2 - np.log(scatter[0]))))


def _lack_of_fit(line: np.ndarray, free: np.ndarray, y: np.ndarray, censored: np.ndarray) -> float:
    """p-value of the line against free means: the F test of lack of fit, or with censored members the likelihood
    ratio.
    """
    spare = free.shape[1] - 2
    if spare < 1:
        return float("nan")
    if censored.any():
        ratio = 2 * (_log_likelihood(free, y, censored) - _log_likelihood(line, y, censored))
        return float(stats.chi2.sf(max(ratio, 0.0), spare))
    squares = [float(np.sum((y - design @ (np.linalg.pinv(design) @ y)) ** 2)) for design in (line, free)]
    rest = y.size - free.shape[1]
    if squares[1] <= 0 or rest < 1:
        return float("nan")
    return float(stats.f.sf((squares[0] - squares[1]) / spare / (squares[1] / rest), spare, rest))


def log_crossing(x: Float[np.ndarray, " k"], y: Float[np.ndarray, "... k"], level: float) -> Float[np.ndarray, "..."]:
    """Where curves first rise through ``level``, linear between points in both logarithms; NaN where they do not.

    Parameters
    ----------
    x
        ``(k,)``, positive, increasing.
    y
        ``(..., k)``, positive.
    level
        Positive.
    """
    log_x, side = np.log(np.asarray(x, np.float64)), np.log(np.asarray(y, np.float64)) - np.log(level)
    rises = (side[..., :-1] < 0) & (side[..., 1:] >= 0)
    k = np.argmax(rises, axis=-1)
    below = np.take_along_axis(side, k[..., None], -1)[..., 0]
    above = np.take_along_axis(side, k[..., None] + 1, -1)[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(rises.any(axis=-1), below / (below - above), 0.0)
    return np.where(rises.any(axis=-1), np.exp(log_x[k] + share * (log_x[k + 1] - log_x[k])), np.nan)


def collapse_spread(
    x: Sequence[Float[np.ndarray, " k"]],
    y: Sequence[Float[np.ndarray, "... k"]],
    window: tuple[float, float],
    points: int = 32,
) -> Float[np.ndarray, "..."]:
    """How far rescaled curves are from one curve: the largest spread over their mean within a window.

    Parameters
    ----------
    x
        Abscissas of each curve, positive, increasing.
    y
        Values of each curve, ``(..., k)``, positive; leading axes (resamples) are kept.
    window
        Ends of the abscissas that are compared, cut to what all curves reach.
    points
        Abscissas compared, equidistant in the logarithm; between points curves are linear in both logarithms.

    Raises
    ------
    ValueError
        If there are fewer than two curves, or none of the window is reached by all.
    """
    if len(x) < 2 or len(y) != len(x):
        raise ValueError(f"a collapse needs at least two curves, got {len(x)}")
    low = max(window[0], *(one[0] for one in x))
    high = min(window[1], *(one[-1] for one in x))
    if not low < high:
        raise ValueError(f"the curves have no abscissas in common within {window}")
    at = np.linspace(np.log(low), np.log(high), points)
    curves = []
    for one, values in zip(x, y, strict=True):
        log_x, log_y = np.log(one), np.log(values)
        k = np.clip(np.searchsorted(log_x, at, side="right") - 1, 0, log_x.size - 2)
        share = (at - log_x[k]) / (log_x[k + 1] - log_x[k])
        curves.append(np.exp((1 - share) * log_y[..., k] + share * log_y[..., k + 1]))
    stacked = np.stack(curves)
    return np.max((stacked.max(axis=0) - stacked.min(axis=0)) / stacked.mean(axis=0), axis=-1)
