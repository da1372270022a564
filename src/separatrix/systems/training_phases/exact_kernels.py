"""Exact tangent kernels of a training run at all its checkpoints, and what is read from them."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from separatrix.probes.tangent_kernel import jax_layers
from separatrix.probes.tangent_kernel.contraction import block_of_examples
from separatrix.probes.tangent_kernel.distance import (
    distance_matrix,
    effective_rank,
    kernel_distance,
    label_alignment,
    top_eigenvalues,
)
from separatrix.probes.tangent_kernel.jax_kernel import tangent_kernel
from separatrix.probes.tangent_kernel.jax_products import tangent_products
from separatrix.probes.tangent_kernel.products import sign_probes

Function = Callable[[Any, Any], Any]
#: Sign vectors with which two evaluations of a kernel are compared.
CHECKS = 8


def exact_kernels(function: Function, checkpoints: Sequence[Any], examples: Any) -> Float[np.ndarray, "t n n"]:
    """Kernels of all outputs, ``n = N C`` rows, at every checkpoint."""
    program = traced(function, checkpoints[0], examples)
    return np.stack([np.asarray(_kernel(program, parameters, examples)) for parameters in checkpoints])


def exact_statistics(
    kernels: Float[np.ndarray, "t n n"], targets: Float[np.ndarray, "N C"], subsets: int, eigenvalues: int
) -> dict[str, Any]:
    """Distances, size, alignment and spectrum by the names of :class:`.kernel_course.KernelCourse`."""
    samples, classes = targets.shape
    blocks = kernels.reshape(len(kernels), samples, classes, samples, classes)
    parts = [slice(start, start + samples // subsets) for start in range(0, samples, samples // subsets)]
    distance = distance_matrix(list(kernels))
    return {
        "distance": distance,
        "standard_error": np.zeros_like(distance),
        "redrawn": distance[-2, -1],
        "subsets": np.stack([distance_matrix(list(blocks[:, part, :, part, :])) for part in parts]),
        "class_trace": distance_matrix(list(np.einsum("ticjc->tij", blocks))),
        "sum_of_logits": distance_matrix(list(blocks.sum(axis=(2, 4)))),
        "norm": np.array([np.linalg.norm(one.astype(np.float64)) for one in kernels]),
        "effective_rank": np.array([effective_rank(one) for one in kernels]),
        "alignment": np.array([label_alignment(one, targets) for one in kernels]),
        "eigenvalues": np.stack([top_eigenvalues(one, eigenvalues) for one in kernels]),
    }


def rounding_distance(
    function: Function, parameters: Any, examples: Any, kernel: Float[np.ndarray, "n n"], classes: int
) -> float:
    """Distance between a kernel and its evaluation by products with sign vectors, which differ in rounding alone."""
    samples = len(kernel) // classes
    signs = sign_probes((samples, classes), CHECKS, seed=0).astype(kernel.dtype)
    products, _ = tangent_products(function, parameters, examples, signs)
    return kernel_distance(signs.reshape(CHECKS, -1) @ kernel, np.asarray(products).reshape(CHECKS, -1))


def exact_bytes(layers: Sequence[tuple[int, int, int]], rest: int, samples: int, outputs: int, itemsize: int) -> int:
    """Memory in which one kernel is made, itself included; arguments as of :func:`.contraction.block_of_examples`."""
    return block_of_examples(samples, outputs, outputs, layers, rest, itemsize, 2**62, class_trace=False)[1]


def traced(function: Function, parameters: Any, examples: Any) -> jax_layers.LayeredProgram:
    """The function's program for one example, read once for each function and shapes."""
    leaves, structure = jax.tree.flatten(parameters)
    shapes = tuple((leaf.shape, np.dtype(leaf.dtype)) for leaf in leaves)
    return _traced(function, structure, shapes, examples.shape[1:], np.dtype(examples.dtype))


@lru_cache(maxsize=16)
def _traced(
    function: Function, structure: Any, shapes: tuple, example: tuple[int, ...], dtype: np.dtype
) -> jax_layers.LayeredProgram:
    leaves = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    return jax_layers.trace(function, jax.tree.unflatten(structure, leaves), jax.ShapeDtypeStruct(example, dtype))


@partial(jax.jit, static_argnums=0)
def _kernel(program: jax_layers.LayeredProgram, parameters: Any, inputs: Array) -> Array:
    return tangent_kernel(program, "full", parameters, inputs)
