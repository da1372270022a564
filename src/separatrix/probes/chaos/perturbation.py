"""Small perturbations of parameters: directions, sizes, and the smallest that the floating-point type can carry.

A perturbation has the relative size ``sigma``: its norm is ``sigma |theta|``, norms being taken over all parameters.
Zhou, Yang, Sugiyama, Yan 2025 (arXiv 2505.13900) give no usable size for theirs, so that ``sigma`` is a parameter.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy import optimize, special

from separatrix.probes.operators import ProbeError

Parameters = Any

#: Share of the coordinates that a perturbation must change.
LEAST_CHANGED = 0.5


def norms(tree: Parameters) -> Float[np.ndarray, " n"]:
    """Euclidean norm over all leaves ``(n, ...)`` of each of n runs, in float64."""
    leaves: list[np.ndarray] = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    with np.errstate(over="ignore"):  # of a run that blew up
        return np.sqrt(sum(np.sum(leaf.reshape(len(leaf), -1).astype(np.float64) ** 2, axis=1) for leaf in leaves))


def random_direction(rng: np.random.Generator, parameters: Parameters) -> Parameters:
    """A direction of norm 1, uniform on the sphere of all parameters of one run; leaves in float64."""
    return unit(jax.tree.map(lambda leaf: rng.normal(size=np.shape(leaf)), parameters))


def unit(direction: Parameters) -> Parameters:
    """A pytree of one run divided by its norm.

    Raises
    ------
    ProbeError
        If the norm is zero or not finite.
    """
    size = norms(jax.tree.map(lambda leaf: np.asarray(leaf)[None], direction))[0]
    if not (np.isfinite(size) and size > 0):
        raise ProbeError(f"a direction must have a positive, finite norm, got {size}")
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) / size, direction)


def perturbed(parameters: Parameters, direction: Parameters, sigma: float) -> Parameters:
    """``theta + sigma |theta| direction`` in the type of ``theta``.

    Parameters
    ----------
    parameters
        Of one run; not changed.
    direction
        Of norm 1.
    sigma
        Relative size; 0 gives an identical copy.

    Raises
    ------
    ProbeError
        If ``sigma`` is negative, or so small that less than half of the coordinates change: the sentence says the
        smallest usable one.
    """
    if sigma < 0:
        raise ProbeError(f"sigma must not be negative, got {sigma}")
    parameters = jax.tree.map(np.asarray, parameters)
    size = sigma * norms(jax.tree.map(lambda leaf: leaf[None], parameters))[0]
    with np.errstate(invalid="ignore", over="ignore"):
        copy = jax.tree.map(lambda p, d: (p.astype(np.float64) + size * d).astype(p.dtype), parameters, direction)
    if sigma > 0:
        pairs = list(zip(jax.tree.leaves(parameters), jax.tree.leaves(copy), strict=True))
        changed = sum(int(np.sum(a != b)) for a, b in pairs) / sum(a.size for a, _ in pairs)
        if changed < LEAST_CHANGED:
            raise ProbeError(
                f"sigma = {sigma:g} is too small: in {pairs[0][0].dtype} it changes {changed:.0%} of the coordinates; "
                f"the smallest usable one is {smallest_sigma(parameters):.1e}"
            )
    return copy


def smallest_sigma(parameters: Parameters) -> float:
    """Relative size at which a Gaussian direction is expected to change half of the coordinates of one run.

    A coordinate changes if its perturbation exceeds half the distance to the next floating-point number, which for a
    Gaussian of standard deviation ``s`` has probability ``erfc(spacing / (2 sqrt(2) s))``.
    """
    leaves: list[np.ndarray] = [np.asarray(leaf) for leaf in jax.tree.leaves(parameters)]
    spacing = np.concatenate([np.spacing(np.abs(leaf)).astype(np.float64).ravel() for leaf in leaves])
    total = norms([leaf[None] for leaf in leaves])[0]
    if total == 0:
        return 0.0

    def excess(log_spread: float) -> float:
        return float(np.mean(special.erfc(spacing / (2 * np.sqrt(2) * np.exp(log_spread))))) - LEAST_CHANGED

    middle = np.log(np.max(spacing))
    root: Any = optimize.brentq(excess, middle - 700, middle + 10)
    spread = np.exp(float(root))
    return float(spread * np.sqrt(spacing.size) / total)
