"""Symmetric matrices with a chosen spectrum, known by their products like those of a model, in NumPy."""

import numpy as np

from separatrix.probes.matrices import SymmetricMatrix


def dense(spectrum, seed=0, dtype=np.float64):
    """A random matrix with these eigenvalues as an array, and its products."""
    spectrum = np.asarray(spectrum, np.float64)
    frame, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(spectrum.size, spectrum.size)))
    array = (frame * spectrum) @ frame.T
    array = (array + array.T) / 2
    return array, products(array, dtype)


def products(array, dtype=np.float64, blocks=None):
    """The products with an array."""
    array = array.astype(dtype)
    size = len(array)
    return SymmetricMatrix(
        size,
        lambda rows: rows @ array,
        lambda values: np.asarray(values, dtype),
        np.dtype(dtype),
        blocks or {"first": slice(0, size // 2), "second": slice(size // 2, size)},
        lambda: 10**9,
    )
