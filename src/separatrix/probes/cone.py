"""Does a moving kernel stay inside a narrow cone? Statistics of directions from their pairwise distances alone.

Kernels at several times are taken as unit vectors ``k_a = K_a / |K_a|``; all that is needed of them is the matrix of
kernel distances ``S_ab = 1 - <k_a, k_b>`` (:func:`separatrix.probes.tangent_kernel.distance.distance_matrix`). With
``G = 1 - S`` the mean direction is proportional to the sum of the ``k_a``, and every angle and every spread follows
from ``G``. Near the axis of a narrow cone ``1 - cos`` is computed from ``S``: from ``G`` it would lose its digits.

Source: derived; the cone is that of Zhou, Yang, Sugiyama, Yan 2025 (arXiv 2505.13900), who judge it by eye.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

#: Time constants tried by :func:`confinement`, as shares of the length of the window. A longer one bends so little
#: within the window that noise on a straight line looks like a distant plateau.
_RELAXATIONS = np.geomspace(0.01, 0.5, 200)


@dataclass(frozen=True, eq=False)
class Cone:
    """Shape of the set of directions.

    Attributes
    ----------
    angles
        ``(n,)``: angle of each direction from the mean direction, in radians.
    radius, median_radius
        Largest and median of them.
    effective_dimension
        Participation ratio ``(sum w)^2 / sum w^2`` of the variances ``w`` along principal directions, between 1 and
        ``n - 1``; NaN where all directions are equal.
    """

    angles: Float[np.ndarray, " n"]
    radius: float
    median_radius: float
    effective_dimension: float


def cone(distance: Float[np.ndarray, "n n"]) -> Cone:
    """Angular radius and effective dimension of the directions with these distances.

    Parameters
    ----------
    distance
        ``S``, symmetric with zeros on the diagonal, between 0 and 2.

    Raises
    ------
    ValueError
        If it is not such a matrix, or the directions cancel, so that there is no mean direction.
    """
    distance = _checked(distance)
    angles = _angle_from_axis(distance.mean(axis=1), distance)
    spread = np.linalg.eigvalsh(_doubly_centred(distance))
    total = spread.sum()
    dimension = float(total**2 / np.sum(spread**2)) if total > 0 else np.nan
    return Cone(angles, float(angles.max()), float(np.median(angles)), dimension)


def apex_angle(to_reference: Float[np.ndarray, " n"], distance: Float[np.ndarray, "n n"]) -> float:
    """Angle between a direction outside the cone (the kernel at the start, say) and the mean direction, in radians.

    A cone is narrow if its radius is small against this angle.

    Parameters
    ----------
    to_reference
        ``(n,)``: distances of the n directions from the one outside.
    distance
        ``S`` among the n directions.

    Raises
    ------
    ValueError
        As of :func:`cone`.
    """
    to_reference = np.asarray(to_reference, np.float64)
    distance = _checked(distance)
    if to_reference.shape != distance.shape[:1] or not np.all(np.isfinite(to_reference)):
        raise ValueError(f"there must be one finite distance for each of the {len(distance)} directions")
    return float(_angle_from_axis(to_reference.mean(keepdims=True), distance)[0])


def classical_scaling(
    distance: Float[np.ndarray, "n n"], dimensions: int = 3
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " d"]]:
    """Coordinates in which the directions have, as far as d dimensions allow, their distances ``|k_a - k_b|``.

    Torgerson's classical scaling of ``|k_a - k_b|^2 = 2 S_ab``; the sign of an axis is such that its largest entry is
    positive.

    Returns
    -------
    coordinates, share
        ``(n, d)``, centred, and the share of the total variance along each axis.

    Raises
    ------
    ValueError
        If ``distance`` is not one, or has fewer than ``dimensions + 1`` points.
    """
    distance = _checked(distance)
    if not 1 <= dimensions < len(distance):
        raise ValueError(f"{len(distance)} points span at most {len(distance) - 1} dimensions, got {dimensions}")
    values, vectors = np.linalg.eigh(_doubly_centred(distance))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    chosen = vectors[:, :dimensions] * np.sqrt(values[:dimensions])
    largest = chosen[np.abs(chosen).argmax(axis=0), np.arange(dimensions)]
    total = values.sum()
    share = values[:dimensions] / total if total > 0 else np.full(dimensions, np.nan)
    return chosen * np.where(largest < 0, -1.0, 1.0), share


@dataclass(frozen=True)
class Confinement:
    """Least-squares fit ``S(t, tau) = plateau (1 - exp(-(t - tau) / relaxation)) + drift (t - tau)``.

    Attributes
    ----------
    plateau
        Distance at which a confined motion stays, not negative.
    relaxation
        Time to get there, in the unit of time; at most half of the window, so that a plateau is one that was reached.
    drift
        Growth per unit of time that goes on; may be negative.
    drift_share
        ``drift T / (plateau + |drift| T)`` over the fitted window of length T: 0 for confined motion, 1 for steady
        drift. Its interval belongs over independent runs, not over the points of one curve.
    residual
        Root mean square of the residuals, relative to that of the curve.
    """

    plateau: float
    relaxation: float
    drift: float
    drift_share: float
    residual: float

    def at(self, elapsed: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
        """The fitted curve at these times since the reference."""
        return -self.plateau * np.expm1(-elapsed / self.relaxation) + self.drift * elapsed


def confinement(elapsed: Float[np.ndarray, " t"], curve: Float[np.ndarray, " t"]) -> Confinement:
    """Fit relaxation to a plateau and drift to the distance from a reference kernel.

    Parameters
    ----------
    elapsed
        ``(t,)``: times since the reference, positive, increasing; at least four.
    curve
        ``(t,)``: ``S(t, tau)``.

    Raises
    ------
    ValueError
        If there are fewer than four times, they do not increase from above zero, or the curve is not finite or is zero.
    """
    elapsed, curve = np.asarray(elapsed, np.float64), np.asarray(curve, np.float64)
    if elapsed.size < 4 or elapsed.shape != curve.shape or elapsed[0] <= 0 or np.any(np.diff(elapsed) <= 0):
        raise ValueError("a fit needs the curve at four or more positive, increasing times since the reference")
    if not np.all(np.isfinite(curve)) or not np.any(curve):
        raise ValueError("the curve of distances must be finite and not zero everywhere")
    length, scale = elapsed[-1], np.sqrt(np.mean(curve**2))
    best: tuple[float, float, float, float] | None = None
    for share in _RELAXATIONS:
        shapes = np.stack([-np.expm1(-elapsed / (share * length)), elapsed / length], axis=1)
        plateau, drift = np.linalg.lstsq(shapes, curve, rcond=None)[0]
        if plateau < 0:  # a plateau is a distance; what is left is steady drift
            plateau, drift = 0.0, float(shapes[:, 1] @ curve / (shapes[:, 1] @ shapes[:, 1]))
        error = float(np.sqrt(np.mean((curve - shapes @ [plateau, drift]) ** 2)) / scale)
        if best is None or error < best[0]:
            best = error, float(plateau), float(drift), float(share * length)
    assert best is not None
    error, plateau, drift, relaxation = best
    return Confinement(plateau, relaxation, drift / length, drift / (plateau + abs(drift)), error)


def radius_growth(distance: Float[np.ndarray, "n n"], fewest: int = 4) -> float:
    """Power of the window's duration with which the squared angular radius grows, over windows from the first one on.

    Directions are taken as equally spaced in time, n of them as a duration of n - 1. Near 0 where the motion is
    confined, 1 for a random walk, 2 for steady rotation.

    Parameters
    ----------
    distance
        ``S`` in the order of time.
    fewest
        Directions of the shortest window, at least 2.

    Raises
    ------
    ValueError
        If there are fewer than two windows of at least ``fewest`` directions, or directions do not differ.
    """
    counts, radii = growing_windows(distance, fewest)
    if np.any(radii <= 0):
        raise ValueError("all directions of the shortest window are equal, so that its radius is zero")
    return float(np.polyfit(np.log(counts - 1), 2 * np.log(radii), 1)[0])


def growing_windows(
    distance: Float[np.ndarray, "n n"], fewest: int = 4
) -> tuple[Int[np.ndarray, " w"], Float[np.ndarray, " w"]]:
    """Angular radius of windows that begin with the first direction.

    Returns
    -------
    counts, radii
        Directions in each window, about evenly spaced in the logarithm, and radii in radians.

    Raises
    ------
    ValueError
        If there are no more than ``fewest`` directions.
    """
    distance = _checked(distance)
    if len(distance) <= fewest:
        raise ValueError(f"growth needs more than {fewest} directions, got {len(distance)}")
    counts = np.unique(np.geomspace(fewest, len(distance), 12).round().astype(int))
    return counts, np.array([cone(distance[:n, :n]).radius for n in counts])


def random_walk(steps: Float[np.ndarray, " n-1"]) -> Float[np.ndarray, "n n"]:
    """Distances of a walk whose successive directions have these distances, each step turning into a new dimension.

    Such a step multiplies the cosine with every earlier direction by its own, so that
    ``1 - S_ab = prod_{a <= i < b} (1 - s_i)``: what an unconfined walk of the same speed would do in many dimensions.

    Parameters
    ----------
    steps
        ``s_i``, between 0 and 1 (a right angle), 1 excluded.

    Raises
    ------
    ValueError
        If one is not.
    """
    steps = np.asarray(steps, np.float64)
    if not np.all((steps >= 0) & (steps < 1)):
        raise ValueError("a random walk needs steps of distances between 0 and 1, 1 excluded")
    turned = np.concatenate([[0.0], np.cumsum(np.log1p(-steps))])
    return -np.expm1(-np.abs(turned[:, None] - turned))


def _checked(distance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    distance = np.asarray(distance, np.float64)
    if distance.ndim != 2 or distance.shape[0] != distance.shape[1] or len(distance) < 2:
        raise ValueError(f"distances must be a square matrix of at least two directions, got shape {distance.shape}")
    if not np.all(np.isfinite(distance)):
        raise ValueError("distances must be finite")
    if np.any(np.diagonal(distance) != 0) or not np.allclose(distance, distance.T, rtol=1e-9, atol=1e-14):
        raise ValueError("distances must be symmetric with zeros on the diagonal")
    if distance.min() < 0 or distance.max() > 2:
        raise ValueError(f"distances of directions lie between 0 and 2, got {distance.min():g} to {distance.max():g}")
    return distance


def _angle_from_axis(mean_distance: Float[np.ndarray, " n"], distance: Float[np.ndarray, "n n"]) -> np.ndarray:
    """Angles from the mean direction, given mean distances from the directions that make it."""
    overall = distance.mean()
    if overall >= 1:
        raise ValueError("the directions cancel, so that they have no mean direction")
    length = np.sqrt(1 - overall)
    # 1 - cos, with cos = (1 - mean_distance) / length
    short = (mean_distance - overall / (1 + length)) / length
    return 2 * np.arcsin(np.sqrt(np.clip(short / 2, 0.0, 1.0)))


def _doubly_centred(distance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    centred = distance - distance.mean(axis=0)
    return -(centred - centred.mean(axis=1, keepdims=True))
