"""How large a step a deep linear network tolerates, and therefore how many steps it needs.

On the symmetric line ``a_1 = .. = a_L = a`` of the loss ``(s - a_1 .. a_L)^2 / 2`` the Hessian has two distinct
eigenvalues; the largest on the way from a small start is ``L s^{2-2/L}``, at the end. A step of its inverse (descent is
stable up to twice that) learns a mode in ``mode_solutions.scaled_time`` steps, a number that stays finite at infinite
depth. Source: Saxe, McClelland, Ganguli 2014, arXiv 1312.6120, section 1.3 and appendix; re-derived here.
"""

import numpy as np
from jaxtyping import Float

from separatrix.systems.deep_linear.domain import check_depth, check_nonnegative, check_positive


def symmetric_line_curvatures(
    strength: Float[np.ndarray, "..."] | float, singular_value: float, depth: int
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Hessian eigenvalues along the line (once) and across it (``L - 1`` times) at strength ``u = a^L``.

    ``L u^{2-2/L} - (L - 1)(s - u) u^{1-2/L}`` and ``(s - u) u^{1-2/L}``.

    Raises
    ------
    ValueError
        If the depth is below 1, the strength negative or the singular value not positive.
    """
    check_depth(depth, least=1)
    check_nonnegative(strength=strength)
    check_positive(singular_value=singular_value)
    u = np.asarray(strength, np.float64)
    if depth == 1:
        return np.ones_like(u), np.zeros_like(u)
    across = (singular_value - u) * u ** (1 - 2 / depth)
    return depth * u ** (2 - 2 / depth) - (depth - 1) * across, across


def optimal_learning_rate(largest_singular_value: float, depth: int) -> float:
    """Inverse of the largest curvature on the way, ``1 / (L s_1^{2-2/L})``.

    Raises
    ------
    ValueError
        If the depth is below 1 or infinite, or the singular value is not positive.
    """
    check_depth(depth, least=1)
    check_positive(largest_singular_value=largest_singular_value, depth=depth)
    return float(1 / (depth * largest_singular_value ** (2 - 2 / depth)))
