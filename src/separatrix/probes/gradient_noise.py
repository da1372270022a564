"""Noise of mini-batch gradients from the gradients of single examples, which are never kept together.

The gradients come in tiles; each tile leaves a few sums behind. Deviations are taken from the mean gradient, which is
known beforehand, so that no difference of large numbers is formed. Covariances are those of one example drawn from the
population of which the data are a sample (divisor N - 1): divide by the batch size for a mini-batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from separatrix.probes.estimates import Estimate, mean_of
from separatrix.probes.matrices import SymmetricMatrix, groups, row_blocks, select
from separatrix.probes.operators import Array, ModelOperators, ProbeError


@dataclass(frozen=True, eq=False)
class GradientNoise:
    """Gradient noise of a model, or of a group of its parameters.

    Attributes
    ----------
    trace
        Trace of the covariance of the gradient of one example.
    gradient_square
        Squared norm of the population's mean gradient; unbiased, so it may come out negative where noise dominates.
    noise_scale
        ``trace / gradient_square``, the batch size at which noise and signal are equal (McCandlish et al. 2018, the
        simple noise scale); infinite if ``gradient_square`` is not positive. Its error is by the delta method.
    """

    trace: Estimate
    gradient_square: Estimate
    noise_scale: Estimate

    @property
    def converged(self) -> bool:
        """Whether all three have converged."""
        return self.trace.converged and self.gradient_square.converged and self.noise_scale.converged


def gradient_noise(model: ModelOperators, *, tolerance: float = 0.1, chunk: int | None = None) -> GradientNoise:
    """Covariance trace and noise scale of the gradient, with standard errors over the examples.

    Parameters
    ----------
    model
        The model, at least 3 examples.
    tolerance
        Relative standard error from which on an estimate counts as converged.
    chunk
        Examples at a time, as of ``per_example_moments``.

    Raises
    ------
    ProbeError
        If there are fewer than 3 examples, or the loss is not a mean or sum over examples.
    """
    return group_gradient_noise(model, patterns={"all": ""}, tolerance=tolerance, chunk=chunk)["all"]


def group_gradient_noise(
    model: ModelOperators,
    *,
    patterns: Mapping[str, str] | None = None,
    tolerance: float = 0.1,
    chunk: int | None = None,
) -> dict[str, GradientNoise]:
    """The same for groups of parameters, from one pass over the data.

    Parameters
    ----------
    model, tolerance, chunk
        As of :func:`gradient_noise`.
    patterns
        Groups, as of :func:`.matrices.groups`; by default each parameter.

    Raises
    ------
    ProbeError
        As :func:`gradient_noise`, or if :func:`.matrices.groups` refuses the patterns.
    """
    n = model.examples
    if n < 3:
        raise ProbeError(f"noise with its error needs at least 3 examples, got {n}")
    mean = _mean_gradient(model)
    xp = array_namespace(mean)
    places = groups(model.blocks, patterns)
    squares, overlaps = model.per_example_moments(mean, chunk)
    found = {}
    for name, group in places.items():
        centre = select(mean, group)
        parts = [number for number, place in enumerate(model.blocks.values()) if place in group]
        square = float(xp.sum(centre * centre))
        found[name] = _noise(squares[:, parts].sum(axis=1), overlaps[:, parts].sum(axis=1), square, tolerance)
    return found


def _noise(deviations: np.ndarray, overlaps: np.ndarray, square: float, tolerance: float) -> GradientNoise:
    """Estimates from ``|g_i - g|^2``, ``(g_i - g) . g`` and ``|g|^2`` with the mean gradient g."""
    n = len(deviations)
    spreads = deviations * n / (n - 1)
    trace = mean_of(spreads, n, tolerance)
    signal = square - trace.value / n
    # influence of an example on |g|^2 - trace / n, a U-statistic of order two
    on_signal = 2 * overlaps - (spreads - trace.value) / n
    signal_error = float(on_signal.std(ddof=1) / np.sqrt(n))
    estimate = lambda value, error: Estimate(value, error, n, n, bool(error <= tolerance * abs(value)))  # noqa: E731
    if signal <= 0:
        scale = Estimate(float("inf"), float("inf"), n, n, False)
    else:
        on_scale = (spreads - trace.value) / signal - trace.value / signal**2 * on_signal
        scale = estimate(trace.value / signal, float(on_scale.std(ddof=1) / np.sqrt(n)))
    return GradientNoise(trace, estimate(signal, signal_error), scale)


def two_batch_noise_scale(
    model: ModelOperators, small: int, large: int, repeats: int = 20, *, tolerance: float = 0.1, seed: int = 0
) -> GradientNoise:
    """The same from squared norms of mini-batch gradients of two sizes alone (McCandlish et al. 2018, appendix A).

    For models whose gradients of single examples cannot be had. Every repeat draws a mini-batch of the large size, and
    its first examples are the small one. Draws from a finite set of N examples scatter less than the population's, by
    the factor ``(N - B) / N``, which is undone. Errors come from the repeats, the noise scale's by the delta method:
    they say what the draws contribute and take the data as given.

    Parameters
    ----------
    model
        The model.
    small, large
        Two batch sizes, ``small < large < N``.
    repeats
        Number of repeats, at least 3: two gradients each.
    tolerance, seed
        As elsewhere.

    Raises
    ------
    ProbeError
        If the sizes or repeats cannot be used.
    """
    n = model.examples
    if not 1 <= small < large < n:
        raise ProbeError(f"batch sizes must satisfy 1 <= small < large < {n}, got {small} and {large}")
    if repeats < 3:
        raise ProbeError(f"noise with its error needs at least 3 repeats, got {repeats}")
    norms = np.empty((repeats, 2))
    for number in range(repeats):
        chosen = np.random.default_rng([seed, number]).permutation(n)[:large]
        for column, size in enumerate((small, large)):
            gradient = model.subset(chosen[:size]).gradient()
            norms[number, column] = float(array_namespace(gradient).sum(gradient * gradient))
    # E |g_B|^2 = |G_N|^2 + S (1/B - 1/N) with the full gradient G_N of the data, and E |G_N|^2 = |G|^2 + S / N
    spreads = (norms[:, 0] - norms[:, 1]) / (1 / small - 1 / large)
    signals = norms[:, 1] - spreads / large
    trace, signal = (mean_of(values, 2 * repeats, tolerance) for values in (spreads, signals))
    if signal.value <= 0:
        scale = Estimate(float("inf"), float("inf"), repeats, 2 * repeats, False)
    else:
        value = trace.value / signal.value
        influence = (spreads - value * signals) / signal.value
        error = float(influence.std(ddof=1) / np.sqrt(repeats))
        scale = Estimate(value, error, repeats, 2 * repeats, bool(error <= tolerance * value))
    return GradientNoise(trace, signal, scale)


def noise_along(
    model: ModelOperators, directions: Array, *, tolerance: float = 0.1, chunk: int | None = None
) -> list[Estimate]:
    """Variance of the gradient of one example along unit vectors, ``v^T C v``, exact over the data.

    Parameters
    ----------
    model
        The model.
    directions
        Unit vectors, ``(k, P)``: leading eigenvectors of the Hessian, for example.
    tolerance
        As of :func:`gradient_noise`.
    chunk
        Examples at a time, as of ``per_example_gradients``.

    Raises
    ------
    ProbeError
        As :func:`gradient_noise`, or if the directions have another shape.
    """
    if directions.ndim != 2 or directions.shape[1] != model.size:
        raise ProbeError(f"directions must have shape (k, {model.size}), got {tuple(directions.shape)}")
    n = model.examples
    if n < 3:
        raise ProbeError(f"noise with its error needs at least 3 examples, got {n}")
    mean = _mean_gradient(model)
    rows = [np.asarray((tile - mean) @ directions.T, np.float64) for tile in model.per_example_gradients(chunk)]
    squares = np.concatenate(rows) ** 2 * n / (n - 1)
    return [mean_of(column, n, tolerance) for column in squares.T]


@dataclass(frozen=True, eq=False)
class NoiseAlignment:
    """Gradient noise against curvature.

    Attributes
    ----------
    curvature
        ``tr(H C) / tr C``: mean curvature along the noise.
    per_example
        Curvature along the deviation of each sampled example times its squared length, relative to ``tr C``.
    """

    curvature: Estimate
    per_example: Float[np.ndarray, " n"]

    def over_isotropic(self, trace: Estimate, size: int) -> tuple[float, float]:
        """``(tr(H C) / tr C) / (tr H / P)`` and its standard error: 1 for isotropic noise.

        Parameters
        ----------
        trace
            Trace of H, from :mod:`.trace`.
        size
            P.
        """
        value = self.curvature.value * size / trace.value
        relative = np.hypot(self.curvature.standard_error / self.curvature.value, trace.standard_error / trace.value)
        return value, float(abs(value) * relative)


def noise_alignment(
    model: ModelOperators,
    matrix: SymmetricMatrix,
    examples: int = 64,
    *,
    tolerance: float = 0.1,
    seed: int = 0,
) -> NoiseAlignment:
    """Mean curvature along the gradient noise, ``tr(H C) / tr C``, from the deviations of sampled examples.

    A ratio of two means over the same examples; its error is by the delta method. Noise that prefers sharp directions
    lets stochastic gradient descent leave them (Zhu et al. 2019; Wu, Wang and Su 2022).

    Parameters
    ----------
    model
        The model.
    matrix
        H, of the same model.
    examples
        Number of examples sampled without replacement, at most N: one product each.
    tolerance, seed
        As elsewhere.

    Raises
    ------
    ProbeError
        If the number of examples cannot be used, or the gradients of all sampled examples are equal.
    """
    if not 3 <= examples <= model.examples:
        raise ProbeError(f"examples must lie between 3 and {model.examples}, got {examples}")
    chosen = np.sort(np.random.default_rng(seed).choice(model.examples, examples, replace=False))
    mean = _mean_gradient(model)
    xp = array_namespace(mean)
    part = model.subset(chosen)
    bent, lengths = [], []
    most = row_blocks(matrix, examples)[0][1]
    for tile in part.per_example_gradients(most):
        away = tile - mean
        bent.append(np.asarray(xp.sum(away * matrix.apply(away), axis=1), np.float64))
        lengths.append(np.asarray(xp.sum(away * away, axis=1), np.float64))
    top, bottom = np.concatenate(bent), np.concatenate(lengths)
    if not bottom.sum() > 0:
        raise ProbeError("the gradients of all examples are equal: there is no noise to align")
    value = float(top.sum() / bottom.sum())
    influence = (top - value * bottom) / bottom.mean()
    error = float(influence.std(ddof=1) / np.sqrt(examples))
    estimate = Estimate(value, error, examples, examples, bool(error <= tolerance * abs(value)))
    return NoiseAlignment(estimate, top / bottom.mean())


def _mean_gradient(model: ModelOperators) -> Array:
    """Mean over examples, also where the loss is their sum."""
    gradient = model.gradient()
    return gradient / model.examples if model.reduction == "sum" else gradient
