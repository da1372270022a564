"""A toy world of items in a binary tree: the data on which stage-like learning was first explained exactly.

Source: Saxe, McClelland, Ganguli 2014, arXiv 1312.6120, section 1.2 and figure 2 (after Rogers and McClelland 2004).
"""

import numpy as np
from jaxtyping import Float


def hierarchical_items(levels: int = 3) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n f"]]:
    """One-hot items, the leaves of a binary tree, and their features: one for each node, 1 if the item lies below it.

    Returns
    -------
    inputs
        ``(2^levels, 2^levels)``, the identity: the covariance ``X^T X / N`` is ``I / 2^levels``, a multiple of I.
    features
        ``(2^levels, 2^(levels + 1) - 1)``, root first. The modes of the correlation are the splits of the tree: those
        of one level share a singular value.

    Raises
    ------
    ValueError
        If ``levels`` is below 1.
    """
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    items = np.arange(2**levels)
    nodes = [items >> (levels - level) == node for level in range(levels + 1) for node in range(2**level)]
    return np.eye(items.size), np.stack(nodes, axis=1).astype(np.float64)
