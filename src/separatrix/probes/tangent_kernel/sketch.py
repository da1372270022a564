"""Kernel distances from random directions in the space of parameters, without the bias of the plain estimate.

With ``Y = J Omega / sqrt(m)``, Omega Gaussian, ``<Y Y^T, Y' Y'^T>`` estimates ``<K, K'>`` plus
``(tr(J^T J')^2 + tr((J^T J')^2)) / m``, which for kernels of high rank is several times the distance that is asked for.
Only pairs of different directions are free of it: ``m / (m - 1) sum_{a != b} (Y^T Y')_ab^2``. A sketch costs m forward
derivatives and keeps ``m N C`` numbers; shared probes on the side of the outputs (:mod:`.products`) are more accurate
for the same memory and cost two to three times as much.

Source: derived and checked by brute force.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from separatrix.probes.operators import ModelOperators
from separatrix.probes.tangent_kernel.products import DistanceEstimate


def parameter_sketch(model: ModelOperators, count: int, seed: int, together: int = 8) -> Float[np.ndarray, "m ..."]:
    """``J omega_a / sqrt(m)`` for m Gaussian directions, ``(m, *outputs)``; the same directions for the same seed.

    Raises
    ------
    ValueError
        If ``count`` is below 3, the fewest that an estimate with an error needs.
    """
    if count < 3:
        raise ValueError(f"a sketch needs three or more directions, got {count}")
    parts = []
    for start in range(0, count, together):
        size = min(together, count - start)
        directions = np.stack(
            [
                np.random.default_rng([seed, 0x5E, number]).normal(size=model.size)
                for number in range(start, start + size)
            ]
        )
        parts.append(np.asarray(model.jvp(model.vector(directions))))
    return np.concatenate(parts) / np.sqrt(count)


def sketched_distance(first: Float[Any, "m ..."], second: Float[Any, "m ..."]) -> DistanceEstimate:
    """Kernel distance from two sketches with the same directions; may be slightly negative, since it is unbiased.

    The standard error is a jackknife over the directions.

    Raises
    ------
    ValueError
        If shapes differ, or there are fewer than three directions.
    """
    a, b = (np.asarray(one, np.float64).reshape(len(one), -1) for one in (first, second))
    if a.shape != b.shape or len(a) < 3:
        raise ValueError(
            f"a distance needs sketches with the same three or more directions, got {a.shape} and {b.shape}"
        )
    squares = np.stack([left @ right.T for left, right in ((a, b), (a, a), (b, b))]) ** 2
    squares[:, np.arange(len(a)), np.arange(len(a))] = 0.0  # pairs of different directions only
    total = squares.sum(axis=(1, 2))
    distance = lambda sums: 1 - sums[0] / np.sqrt(sums[1] * sums[2])  # noqa: E731
    without = distance(total[:, None] - squares.sum(axis=1) - squares.sum(axis=2))
    m = len(a)
    error = np.sqrt((m - 1) / m * np.sum((without - without.mean()) ** 2))
    return DistanceEstimate(float(distance(total)), float(error), m)
