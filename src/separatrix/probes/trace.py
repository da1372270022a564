"""Trace and diagonal of a model's curvature from random vectors, as a whole and for groups of parameters."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from separatrix.probes.estimates import Estimate, mean_of
from separatrix.probes.matrices import SymmetricMatrix, groups, random_rows, row_blocks, select
from separatrix.probes.operators import Array, ProbeError


def trace(matrix: SymmetricMatrix, probes: int = 32, *, tolerance: float = 0.05, seed: int = 0) -> Estimate:
    """Trace by Hutchinson's estimator ``z^T H z`` with random signs z (Hutchinson 1989); unbiased.

    Parameters
    ----------
    matrix
        The matrix.
    probes
        Number of random vectors, at least 2; one product each.
    tolerance
        Relative standard error from which on the estimate counts as converged.
    seed
        Of the random vectors.

    Raises
    ------
    ProbeError
        If there are fewer than 2 probes.
    """
    return group_traces(matrix, probes, patterns={"all": ""}, tolerance=tolerance, seed=seed)["all"]


def group_traces(
    matrix: SymmetricMatrix,
    probes: int = 32,
    *,
    patterns: Mapping[str, str] | None = None,
    tolerance: float = 0.05,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Traces of the diagonal blocks of groups of parameters, all from the same products; unbiased.

    ``E[z_b^T (H z)_b]`` is the trace of the block b whatever the other entries of z are. Estimates of different groups
    share their random vectors and are not independent.

    Parameters
    ----------
    matrix
        The matrix.
    probes, tolerance, seed
        As of :func:`trace`.
    patterns
        Groups, as of :func:`.matrices.groups`; by default each parameter.

    Raises
    ------
    ProbeError
        If there are fewer than 2 probes, or :func:`.matrices.groups` refuses the patterns.
    """
    _check(probes)
    places = groups(matrix.blocks, patterns)
    samples: dict[str, list[np.ndarray]] = {name: [] for name in places}
    for start, stop in row_blocks(matrix, probes):
        z = random_rows(matrix, seed, start, stop, "rademacher")
        quadratic = z * matrix.apply(z)
        xp = array_namespace(z)
        for name, group in places.items():
            samples[name].append(np.asarray(xp.sum(select(quadratic, group), axis=1), np.float64))
    return {name: mean_of(np.concatenate(values), probes, tolerance) for name, values in samples.items()}


def trace_hutch_plus_plus(
    matrix: SymmetricMatrix, products: int = 48, *, tolerance: float = 0.05, seed: int = 0
) -> Estimate:
    """Trace by Hutch++ (Meyer, Musco, Musco and Woodruff 2021); unbiased.

    A third of the products finds a space that holds the large eigenvalues, a third takes the trace there exactly, and
    Hutchinson's estimator is left with the rest: far better than it alone where few eigenvalues dominate, no better
    where the spectrum is flat. The standard error is that of the rest.

    Parameters
    ----------
    matrix
        The matrix.
    products
        Number of products, at least 6.
    tolerance, seed
        As of :func:`trace`.

    Raises
    ------
    ProbeError
        If there are fewer than 6 products.
    """
    if products < 6:
        raise ProbeError(f"Hutch++ needs at least 6 products, got {products}")
    sketch = min(products // 3, matrix.size)
    probes = products - 2 * sketch
    rows = random_rows(matrix, seed, 0, sketch, "rademacher")
    xp = array_namespace(rows)
    image = xp.concat([matrix.apply(rows[start:stop]) for start, stop in row_blocks(matrix, sketch)])
    # rows beyond the rank of the matrix are rounding; they do no harm, since any orthonormal rows serve
    frame = xp.linalg.qr(image.T)[0].T
    captured = 0.0
    for start, stop in row_blocks(matrix, sketch):
        part = frame[start:stop]
        captured += float(xp.sum(part * matrix.apply(part)))
    samples = []
    for start, stop in row_blocks(matrix, probes):
        z = random_rows(matrix, seed, sketch + start, sketch + stop, "rademacher")
        for _ in range(2):
            z = z - (z @ frame.T) @ frame
        samples.append(np.asarray(xp.sum(z * matrix.apply(z), axis=1), np.float64))
    return mean_of(np.concatenate(samples), products, tolerance, captured)


@dataclass(frozen=True, eq=False)
class DiagonalEstimate:
    """Estimated diagonal of a matrix.

    Attributes
    ----------
    values, standard_errors
        Of each entry, ``(P,)``, in the model's framework; errors of different entries are not independent.
    samples, products
        Random vectors, and products with the matrix.
    converged
        Whether the errors together are at most the tolerance: ``|standard_errors| <= tolerance |values|`` in Euclidean
        norm.
    """

    values: Array
    standard_errors: Array
    samples: int
    products: int
    converged: bool


def diagonal(matrix: SymmetricMatrix, probes: int = 32, *, tolerance: float = 0.1, seed: int = 0) -> DiagonalEstimate:
    """Diagonal by the estimator ``z * (H z)`` with random signs z (Bekas, Kokiopoulou and Saad 2007); unbiased.

    Parameters
    ----------
    matrix
        The matrix.
    probes, seed
        As of :func:`trace`.
    tolerance
        Norm of the standard errors relative to that of the values from which on the estimate counts as converged.

    Raises
    ------
    ProbeError
        If there are fewer than 2 probes.
    """
    _check(probes)
    mean = square = None
    done = 0
    for start, stop in row_blocks(matrix, probes):
        z = random_rows(matrix, seed, start, stop, "rademacher")
        xp = array_namespace(z)
        for sample in z * matrix.apply(z):
            done += 1
            if mean is None:
                mean, square = sample, xp.zeros_like(sample)
                continue
            step = sample - mean  # Welford's update: no difference of large sums
            mean = mean + step / done
            square = square + step * (sample - mean)
    assert mean is not None
    assert square is not None
    errors = (square / (probes * (probes - 1))) ** 0.5
    xp = array_namespace(mean)
    size, error = float(xp.sum(mean * mean)) ** 0.5, float(xp.sum(errors * errors)) ** 0.5
    return DiagonalEstimate(mean, errors, probes, probes, error <= tolerance * size)


def _check(probes: int) -> None:
    if probes < 2:
        raise ProbeError(f"a standard error needs at least 2 probes, got {probes}")
