"""Domains of the theory's arguments: one sentence for each refusal."""

import numpy as np


def check_depth(depth: float, least: float = 2) -> None:
    """Raise ValueError unless ``depth`` is at least ``least``."""
    if not depth >= least:
        raise ValueError(f"depth must be at least {least}, got {depth}")


def check_kurtosis(kurtosis: float) -> None:
    """Raise ValueError unless ``kurtosis`` is finite and above 1/3, its value for inputs of one size (scalar signs)."""
    if not (np.isfinite(kurtosis) and 3 * kurtosis > 1):
        raise ValueError(f"kurtosis must be finite and above 1/3, got {kurtosis}")


def check_positive(**values: object) -> None:
    """Raise ValueError unless every element of every value is finite and positive."""
    for name, value in values.items():
        array = np.asarray(value, dtype=np.float64)
        if not np.all(np.isfinite(array) & (array > 0)):
            raise ValueError(f"{name} must be finite and positive, got {value}")


def check_nonnegative(**values: object) -> None:
    """Raise ValueError unless every element of every value is finite and not negative."""
    for name, value in values.items():
        array = np.asarray(value, dtype=np.float64)
        if not np.all(np.isfinite(array) & (array >= 0)):
            raise ValueError(f"{name} must be finite and not negative, got {value}")
