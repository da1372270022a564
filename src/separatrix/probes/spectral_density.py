"""Density of the eigenvalues of a model's curvature by stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017).

A Lanczos chain of m steps from a random vector gives a quadrature with m nodes for the spectral measure seen by that
vector; it integrates polynomials up to the degree 2 m - 1 exactly. The mean over vectors estimates the density, its
scatter gives the error.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from separatrix.probes.estimates import Estimate, mean_of
from separatrix.probes.lanczos import Chain
from separatrix.probes.matrices import SymmetricMatrix, random_rows, row_blocks
from separatrix.probes.operators import Array, ProbeError

_NODES_FOR_ERROR = 0.75  # share of the steps whose quadrature is compared with that of all steps


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """Quadrature nodes and weights of each random vector; densities are evaluated from them.

    Attributes
    ----------
    nodes, weights
        ``(probes, m)``; the weights of a probe sum to one.
    size
        Number of eigenvalues P.
    steps
        Products of each probe, m; fewer where its Krylov space was exhausted (nodes of weight zero fill up).
    truncation
        Wasserstein-1 distance between the mean measure and that of three quarters of the steps, over the spectral
        radius: what more steps might still change.
    standard_error
        Standard error of the cumulative distribution over the probes, integrated along the axis, over the spectral
        radius: about the Wasserstein-1 distance to be expected from the choice of probes.
    products
        Products with the matrix.
    converged
        Whether truncation and standard error are at most the tolerance.
    """

    nodes: Float[np.ndarray, "probes m"]
    weights: Float[np.ndarray, "probes m"]
    size: int
    steps: int
    truncation: float
    standard_error: float
    products: int
    converged: bool

    @property
    def radius(self) -> float:
        """Largest modulus of a node."""
        return float(np.abs(self.nodes[self.weights > 0]).max())

    def moment(self, order: int) -> Estimate:
        """Mean of the eigenvalues to the power ``order``, at most ``2 m - 1``; times P it is ``tr H^order``.

        Raises
        ------
        ProbeError
            If the order is too high for the number of steps.
        """
        if not 0 <= order <= 2 * self.steps - 1:
            raise ProbeError(f"moments up to {2 * self.steps - 1} are exact for {self.steps} steps, got {order}")
        return mean_of(np.sum(self.weights * self.nodes**order, axis=1), self.products, 0.05)

    def cumulative(self, points: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Share of eigenvalues at or below each point, and its standard error over the probes."""
        below = self.nodes[:, :, None] <= np.asarray(points, np.float64)
        return _mean_and_error(np.einsum("pm,pmn->pn", self.weights, below))

    def density(
        self, points: Float[np.ndarray, " n"], width: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Density, each eigenvalue widened to a Gaussian, and its standard error over the probes.

        Parameters
        ----------
        points
            Eigenvalues at which to evaluate.
        width
            Standard deviation of the Gaussians, in the unit of the eigenvalues.

        Raises
        ------
        ProbeError
            If the width is not positive.
        """
        return self._widened(self.nodes, self.weights, np.asarray(points, np.float64), width)

    def log_density(
        self, exponents: Float[np.ndarray, " n"], width: float, sign: Literal[1, -1] = 1
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Density over ``log10 |eigenvalue|`` of the positive or the negative eigenvalues, and its standard error.

        It integrates to the share of eigenvalues of that sign. Those that are zero within rounding appear wherever
        rounding puts them: far to the left.

        Parameters
        ----------
        exponents
            Decimal logarithms at which to evaluate.
        width
            Standard deviation of the Gaussians, in decades.
        sign
            Of the eigenvalues.

        Raises
        ------
        ProbeError
            If the width is not positive.
        """
        kept = (sign * self.nodes > 0) & (self.weights > 0)
        logarithms = np.log10(np.where(kept, np.abs(self.nodes), 1.0))
        return self._widened(logarithms, np.where(kept, self.weights, 0.0), np.asarray(exponents, np.float64), width)

    @staticmethod
    def _widened(
        nodes: np.ndarray, weights: np.ndarray, points: np.ndarray, width: float
    ) -> tuple[np.ndarray, np.ndarray]:
        if not width > 0:
            raise ProbeError(f"width must be positive, got {width}")
        z = (points - nodes[:, :, None]) / width
        bells = np.exp(-0.5 * z**2) / (width * np.sqrt(2 * np.pi))
        return _mean_and_error(np.einsum("pm,pmn->pn", weights, bells))


def spectral_density(
    matrix: SymmetricMatrix, probes: int = 8, steps: int = 60, *, tolerance: float = 0.01, seed: int = 0
) -> SpectralDensity:
    """Quadrature of the density of eigenvalues.

    Parameters
    ----------
    matrix
        The matrix.
    probes
        Number of random vectors, at least 2.
    steps
        Lanczos steps m of each, one product each.
    tolerance
        Of truncation and standard error, relative to the spectral radius.
    seed
        Of the random vectors.

    Raises
    ------
    ProbeError
        If there are fewer than 2 probes or steps, or the bases do not fit the memory.
    """
    if probes < 2 or steps < 2:
        raise ProbeError(f"a density with its error needs at least 2 probes and 2 steps, got {probes} and {steps}")
    steps = min(steps, matrix.size)
    needed = steps * matrix.size * matrix.dtype.itemsize
    if needed > matrix.free_memory():
        raise ProbeError(
            f"a basis of {steps} vectors needs {needed} bytes, and {matrix.free_memory()} are available: take fewer "
            "steps"
        )
    together = int(max(1, min(probes, 4, matrix.free_memory() // needed)))
    chains, products = [], 0
    for start, stop in row_blocks(matrix, probes, together):
        made = _chains(matrix, random_rows(matrix, seed, start, stop, "normal"), steps)
        products += sum(len(projected) for projected in made)
        chains += made
    whole = _quadratures(chains, steps)
    shorter = [max(1, int(_NODES_FOR_ERROR * len(t))) for t in chains]
    part = _quadratures([t[:m, :m] for t, m in zip(chains, shorter, strict=True)], steps)
    radius = max(float(np.abs(whole[0][whole[1] > 0]).max()), np.finfo(np.float64).tiny)
    truncation = _wasserstein(whole, part) / radius
    error = _cumulative_error(*whole) / radius
    converged = truncation <= tolerance and error <= tolerance
    return SpectralDensity(*whole, matrix.size, steps, truncation, error, products, bool(converged))


def _chains(matrix: SymmetricMatrix, starts: Array, steps: int) -> list[np.ndarray]:
    """Projected matrices of chains that advance together."""
    xp = array_namespace(starts)
    rows = (starts[i : i + 1] for i in range(len(starts)))
    chains = [Chain(row / float(xp.sum(row * row)) ** 0.5) for row in rows]
    for _ in range(steps):
        growing = [chain for chain in chains if not chain.exhausted]
        if not growing:
            break
        products = matrix.apply(xp.concat([chain.current for chain in growing]))
        for number, chain in enumerate(growing):
            chain.absorb(products[number : number + 1])
    return [chain.projected for chain in chains]


def _quadratures(chains: list[np.ndarray], steps: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.zeros((len(chains), steps)), np.zeros((len(chains), steps))
    for i, projected in enumerate(chains):
        values, vectors = np.linalg.eigh(projected)
        nodes[i, : len(values)], weights[i, : len(values)] = values, vectors[0] ** 2
    return nodes, weights


def _steps_of(nodes: np.ndarray, weights: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Cumulative distribution of each probe on an ascending axis, ``(probes, n)``."""
    rows = []
    for x, w in zip(nodes, weights, strict=True):
        order = np.argsort(x)
        total = np.concatenate([[0.0], np.cumsum(w[order])])
        rows.append(total[np.searchsorted(x[order], axis, side="right")])
    return np.stack(rows)


def _wasserstein(one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]) -> float:
    axis = np.unique(np.concatenate([one[0].ravel(), two[0].ravel()]))
    difference = _steps_of(*one, axis).mean(axis=0) - _steps_of(*two, axis).mean(axis=0)
    return float(np.sum(np.abs(difference[:-1]) * np.diff(axis)))


def _cumulative_error(nodes: np.ndarray, weights: np.ndarray) -> float:
    axis = np.unique(nodes)
    _, error = _mean_and_error(_steps_of(nodes, weights, axis))
    return float(np.sum(error[:-1] * np.diff(axis)))


def _mean_and_error(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
