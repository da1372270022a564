"""The formulas of D3 and D4 against an ODE solver at tight tolerance (A3)."""

import numpy as np

from separatrix.lab import Measurement, Results
from separatrix.systems.deep_linear.exact_solutions.settings import Settings
from separatrix.systems.deep_linear.mode_solutions import balanced_strength

_ACCEPTED = (0.0, 1e-9)


def exactness(settings: Settings, results: Results) -> list[Measurement]:
    """Largest absolute error of the amplitudes of scalar pairs, and of the entries of W from unaligned starts."""
    del settings
    return [
        _largest("scalar pairs, amplitudes", results["pairs"]["exact"].values - results["pairs"]["numeric"].values),
        _largest(
            "two-layer networks, entries of W",
            results["unaligned"]["exact"].values - results["unaligned"]["numeric"].values,
        ),
    ]


def wrong_formulas(settings: Settings, results: Results) -> list[Measurement]:
    """The balanced formula for unbalanced pairs, and the zero-balanced one for unbalanced networks."""
    del settings
    pairs = results["pairs"]
    product = pairs["numeric"].values.prod(axis=2)
    # The balanced formula knows no start below zero.
    rising = product[:, 0] > 0
    s, start = pairs["singular_value"].values[rising, None], product[rising, :1]
    wrong = balanced_strength(pairs["time"].values, start, s)
    networks = results["unbalanced"]
    return [
        _largest("scalar pairs as if balanced, strength", wrong - product[rising]),
        _largest("unbalanced networks, entries of W", networks["exact"].values - networks["numeric"].values),
    ]


def _largest(label: str, error: np.ndarray) -> Measurement:
    largest = np.abs(error).reshape(len(error), -1).max(axis=1)
    # An exact formula has no better case: the worst draw is the statistic.
    worst = float(largest.max())
    return Measurement(f"{label}, largest error of any draw", worst, (worst, worst), _ACCEPTED, members=largest.size)
