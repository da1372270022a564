"""Tangent kernels of a training run from their products with random vectors: what can be known without the kernels.

All checkpoints of a run share their sign vectors, so that errors of its distances mostly cancel; each run draws its
own, so that an interval over runs covers them. Traced and summed kernels have no such products, and stay unknown.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from separatrix.probes.tangent_kernel.jax_products import tangent_products
from separatrix.probes.tangent_kernel.products import estimated_distances, kernel_size

Function = Callable[[Any, Any], Any]
#: Vectors in a block of the search for eigenvalues, and blocks.
BLOCK, BLOCKS = 8, 3


def estimated_statistics(
    function: Function,
    checkpoints: Sequence[Any],
    examples: Any,
    targets: Float[np.ndarray, "N C"],
    signs: Float[np.ndarray, "m N C"],
    fresh: Float[np.ndarray, "m N C"],
    subsets: int,
    eigenvalues: int,
) -> dict[str, Any]:
    """Distances, size, alignment and spectrum by the names of :class:`.kernel_course.KernelCourse`.

    ``signs`` are the vectors of all checkpoints, ``fresh`` others for the last two.
    """
    dtype = jax.tree.leaves(checkpoints[0])[0].dtype

    def multiplied(vectors: np.ndarray, at: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        rows = np.concatenate([vectors, targets[None]]).astype(dtype)  # the labels' product gives their alignment
        found = [tangent_products(function, parameters, examples, rows, subsets) for parameters in at]
        full, within = (np.stack([np.asarray(pair[k]) for pair in found]) for k in range(2))
        return full, within

    products, within = multiplied(signs, checkpoints)
    again, _ = multiplied(fresh, checkpoints[-2:])
    distance, error = estimated_distances(products[:, :-1])
    sizes = [kernel_size(one[:-1], signs) for one in products]
    norm = np.array([one.norm for one in sizes])
    along = np.sum(products[:, -1].astype(np.float64) * targets, axis=(1, 2))
    unknown = np.full_like(distance, np.nan)
    return {
        "distance": distance,
        "standard_error": error,
        "redrawn": estimated_distances(again[:, :-1])[0][0, 1],
        "subsets": np.stack([estimated_distances(part)[0] for part in np.split(within[:, :-1], subsets, axis=2)]),
        "class_trace": unknown,
        "sum_of_logits": unknown,
        "norm": norm,
        "effective_rank": np.array([one.effective_rank for one in sizes]),
        "alignment": along / (norm * np.sum(targets**2)),
        "eigenvalues": np.stack(
            [
                _eigenvalues(function, parameters, examples, one, eigenvalues)
                for parameters, one in zip(checkpoints, products, strict=True)
            ]
        ),
    }


def _eigenvalues(
    function: Function, parameters: Any, examples: Any, products: Float[np.ndarray, "m N C"], count: int
) -> Float[np.ndarray, " k"]:
    """Largest eigenvalues on a block Krylov space that starts from products (Golub and Underwood 1977): lower bounds.

    A block finds eigenvalues that lie close together, where Lanczos' method from one vector may miss one of them.
    """
    shape, rows = products.shape[1:], products.reshape(len(products), -1).astype(np.float64)
    basis = np.linalg.svd(rows, full_matrices=False)[2][:BLOCK]
    images, block = np.empty((0, rows.shape[1])), basis
    for step in range(BLOCKS):
        if step:
            for _ in range(2):  # once more for the digits that the first pass loses
                block = block - (block @ basis.T) @ basis
            block = np.linalg.qr(block.T)[0].T
            basis = np.concatenate([basis, block])
        vectors = block.reshape(-1, *shape).astype(products.dtype)
        block = np.asarray(tangent_products(function, parameters, examples, vectors)[0], np.float64).reshape(
            block.shape
        )
        images = np.concatenate([images, block])
    projected = basis @ images.T
    return np.linalg.eigvalsh((projected + projected.T) / 2)[::-1][:count]
