"""Two-class points made of three patches: a weak feature in all of them, a strong one in most, and a background.

A point with label ``y = +-1`` is ``(y u, y v or 0, x)``: the weak feature ``u``, the strong feature ``v`` in a share
``rho`` of the points, the *plain* points being without it, and a background ``x`` orthogonal to both, Gaussian noise or
a real image (Lu, Wu, Yang and Zou 2023, arXiv 2310.17074). As ``u``, ``v`` and the backgrounds span orthogonal spaces,
the dynamics sees only norms of features and inner products of backgrounds, and filters that are shared by the patches
evolve as separate ones would.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True, eq=False)
class PatchData:
    """Points of the task.

    Attributes
    ----------
    labels
        ``(N,)``, all +1 or -1.
    strong
        ``(N,)``, whether the point has the strong feature.
    backgrounds
        ``(N, b)``, in coordinates of the space orthogonal to both features.

    Raises
    ------
    ValueError
        If the sizes differ, a label is not +-1, or a background is not finite.
    """

    labels: Float[np.ndarray, " N"]
    strong: Bool[np.ndarray, " N"]
    backgrounds: Float[np.ndarray, "N b"]

    def __post_init__(self) -> None:
        if not len(self.labels) == len(self.strong) == len(self.backgrounds) > 0:
            raise ValueError(
                f"labels, strong and backgrounds must be equally many and at least one, got {len(self.labels)}, "
                f"{len(self.strong)} and {len(self.backgrounds)}"
            )
        if not np.all(np.abs(self.labels) == 1):
            raise ValueError(f"labels must be +1 or -1, got {np.unique(self.labels).tolist()}")
        if not np.all(np.isfinite(self.backgrounds)):
            raise ValueError("backgrounds must be finite")

    @property
    def gram(self) -> Float[np.ndarray, "N N"]:
        """Inner products of the backgrounds."""
        return self.backgrounds @ self.backgrounds.T


def feature_norms(weak: Float[np.ndarray, " d"], strong: Float[np.ndarray, " d"]) -> tuple[float, float]:
    """Norms of the weak and the strong feature, given as vectors.

    Raises
    ------
    ValueError
        If they are not orthogonal (to 1e-6 of their norms), or the weak one is not the shorter.
    """
    weak, strong = np.asarray(weak, float), np.asarray(strong, float)
    norms = float(np.linalg.norm(weak)), float(np.linalg.norm(strong))
    check_norms(*norms)
    cosine = float(weak @ strong) / (norms[0] * norms[1])
    if abs(cosine) > 1e-6:
        raise ValueError(f"the features must be orthogonal, got a cosine of {cosine:.3g}")
    return norms


def check_norms(weak: float, strong: float) -> None:
    """Refuse norms with which the features change their roles.

    Raises
    ------
    ValueError
        Unless ``0 < weak < strong``.
    """
    if not (0 < weak < strong and math.isfinite(strong)):
        raise ValueError(f"the norms must satisfy 0 < weak < strong, got {weak:g} and {strong:g}")


@dataclass(frozen=True)
class TwoFeatureTask:
    """The task with Gaussian noise as background.

    Attributes
    ----------
    dimension
        ``d`` of a patch, at least 3.
    samples
        ``n`` points.
    weak_norm, strong_norm
        ``nu`` and ``nv``.
    strong_share
        ``rho``, probability of the strong feature, in (0, 1].
    noise_power
        ``sp^2 d``: mean squared norm of ``x ~ N(0, sp^2 I)`` before its part along ``u`` and ``v`` is removed.

    Raises
    ------
    ValueError
        If one of them is out of its range.
    """

    dimension: int = 400
    samples: int = 40
    weak_norm: float = 0.2
    strong_norm: float = 1.0
    strong_share: float = 0.9
    noise_power: float = 0.4

    def __post_init__(self) -> None:
        check_norms(self.weak_norm, self.strong_norm)
        if self.dimension < 3 or self.samples < 1:
            raise ValueError(
                f"dimension must be at least 3 and samples at least 1, got {self.dimension} and {self.samples}"
            )
        if not 0 < self.strong_share <= 1:
            raise ValueError(f"strong_share must lie in (0, 1], got {self.strong_share}")
        if not (self.noise_power >= 0 and math.isfinite(self.noise_power)):
            raise ValueError(f"noise_power must be finite and not negative, got {self.noise_power}")

    @property
    def ratio(self) -> float:
        """``k = (nu / nv)^2``."""
        return (self.weak_norm / self.strong_norm) ** 2

    @property
    def memorisation_over_learning(self) -> float:
        """``sp^2 d / (n (1 - rho) nu^2)``: how much faster the plain points are fitted by their noise than by ``u``.

        Below about 1 they teach the weak feature at any step, so that a large one is not needed; derived here.
        """
        plain = self.samples * (1 - self.strong_share) * self.weak_norm**2
        return self.noise_power / plain if plain > 0 else math.inf

    @property
    def noise_scale(self) -> float:
        """``sp``, standard deviation of a coordinate of the noise."""
        return math.sqrt(self.noise_power / self.dimension)

    def draw(self, rng: np.random.Generator) -> PatchData:
        """Points with independent, balanced labels."""
        n = self.samples
        return PatchData(
            rng.choice([-1.0, 1.0], n),
            rng.random(n) < self.strong_share,
            self.noise_scale * rng.normal(size=(n, self.dimension - 2)),
        )


@dataclass(frozen=True, eq=False)
class NetworkStart:
    """Weights before training as inner products with the features and as coordinates in the space of backgrounds.

    The first m units have output sign +1, the last m have -1.

    Attributes
    ----------
    weak, strong
        ``(2m,)``, inner products with ``u`` and ``v``.
    background
        ``(2m, b)``.
    """

    weak: Float[np.ndarray, " units"]
    strong: Float[np.ndarray, " units"]
    background: Float[np.ndarray, "units b"]


def gaussian_start(
    rng: np.random.Generator, width: int, scale: float, weak_norm: float, strong_norm: float, dimension: int
) -> NetworkStart:
    """Weights ``N(0, scale^2)`` in every coordinate; ``dimension`` is that of the space of backgrounds.

    Raises
    ------
    ValueError
        If ``scale`` is not positive: at zero all units are silent and have no gradient.
    """
    if not scale > 0:
        raise ValueError(f"the scale of the start must be positive, got {scale}: silent units have no gradient")
    weights = scale * rng.normal(size=(2 * width, dimension + 2))
    return NetworkStart(weak_norm * weights[:, 0], strong_norm * weights[:, 1], weights[:, 2:])
