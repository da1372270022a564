"""Nodes of Gauss-Legendre quadrature, computed once."""

from functools import cache

import numpy as np
from jaxtyping import Float


@cache
def legendre_rule(points: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Nodes in (-1, 1) and weights of the rule with ``points`` points, read-only."""
    node, weight = np.polynomial.legendre.leggauss(points)
    node.flags.writeable = weight.flags.writeable = False
    return node, weight
