"""The tangent kernel of a training run at its checkpoints: distances between all of them, size, spectrum, alignment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from separatrix.probes.tangent_kernel import jax_layers
from separatrix.probes.tangent_kernel.distance import (
    distance_matrix,
    effective_rank,
    kernel_distance,
    label_alignment,
    top_eigenvalues,
)
from separatrix.probes.tangent_kernel.jax_kernel import tangent_kernel
from separatrix.probes.tangent_kernel.products import sign_probes
from separatrix.systems.training_phases.training import as_inputs

#: Largest eigenvalues that are recorded.
EIGENVALUES = 5
#: Sign vectors with which two evaluations of a kernel are compared.
CHECKS = 8


@dataclass(frozen=True, eq=False)
class KernelCourse:
    """Statistics of one run's kernels at t checkpoints; the full kernel of all outputs unless another is named.

    Attributes
    ----------
    distance
        ``(t, t)``: kernel distances between all pairs of checkpoints.
    halves
        ``(2, t, t)``: the same from the first and from the second half of the examples.
    class_trace, sum_of_logits
        ``(t, t)``: the same for the two contracted kernels.
    norm, effective_rank, alignment
        ``(t,)``: Frobenius norm, ``tr(K)^2 / |K|^2``, alignment with the centred one-hot labels.
    eigenvalues
        ``(t, 5)``: the largest.
    rounding
        Distance between the last kernel and its evaluation by products with sign vectors, which differ in rounding
        alone: below it nothing is measured.
    """

    distance: Float[np.ndarray, "t t"]
    halves: Float[np.ndarray, "2 t t"]
    class_trace: Float[np.ndarray, "t t"]
    sum_of_logits: Float[np.ndarray, "t t"]
    norm: Float[np.ndarray, " t"]
    effective_rank: Float[np.ndarray, " t"]
    alignment: Float[np.ndarray, " t"]
    eigenvalues: Float[np.ndarray, "t k"]
    rounding: float


def kernel_course(
    function: Callable[[Any, Any], Any],
    checkpoints: Sequence[Any],
    inputs: Float[np.ndarray, "N d"] | Int[np.ndarray, "N T"],
    targets: Float[np.ndarray, "N C"],
) -> KernelCourse:
    """Kernels of ``function(parameters, inputs) -> (N, C)`` on fixed examples at every checkpoint.

    Parameters
    ----------
    function
        Hashable: compiled once for each.
    checkpoints
        Pytrees of NumPy arrays of one shape.
    inputs, targets
        Examples, N even, and their centred one-hot labels. The kernel is computed in the dtype of the parameters.
    """
    dtype = jax.tree.leaves(checkpoints[0])[0].dtype
    examples = as_inputs(inputs, dtype)
    traced = _traced(
        function, jax.tree.structure(checkpoints[0]), _shapes(checkpoints[0]), _shapes(examples[0])[0]
    )  # fmt: skip
    kernels = np.stack([np.asarray(_kernel(traced, parameters, examples)) for parameters in checkpoints])
    samples, classes = targets.shape
    half, blocks = samples // 2, kernels.reshape(len(kernels), samples, classes, samples, classes)
    signs = sign_probes((samples, classes), CHECKS, seed=0).astype(dtype)
    products = np.asarray(_products(function, checkpoints[-1], examples, signs))
    return KernelCourse(
        distance_matrix(list(kernels)),
        np.stack([distance_matrix(list(blocks[:, part, :, part, :])) for part in (slice(half), slice(half, None))]),
        distance_matrix(list(np.einsum("ticjc->tij", blocks))),
        distance_matrix(list(blocks.sum(axis=(2, 4)))),
        np.array([np.linalg.norm(one.astype(np.float64)) for one in kernels]),
        np.array([effective_rank(one) for one in kernels]),
        np.array([label_alignment(one, targets) for one in kernels]),
        np.stack([top_eigenvalues(one, EIGENVALUES) for one in kernels]),
        kernel_distance(signs.reshape(CHECKS, -1) @ kernels[-1], products.reshape(CHECKS, -1)),
    )


def _shapes(parameters: Any) -> tuple[tuple[tuple[int, ...], str], ...]:
    return tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(parameters))


@lru_cache(maxsize=16)
def _traced(
    function: Callable[[Any, Any], Any], structure: Any, shapes: tuple, example: tuple[tuple[int, ...], str]
) -> jax_layers.LayeredProgram:
    leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    return jax_layers.trace(function, jax.tree.unflatten(structure, leaves), jax.ShapeDtypeStruct(*example))


@partial(jax.jit, static_argnums=0)
def _kernel(traced: jax_layers.LayeredProgram, parameters: Any, inputs: Array) -> Array:
    return tangent_kernel(traced, "full", parameters, inputs)


@partial(jax.jit, static_argnums=0)
def _products(function: Callable[[Any, Any], Any], parameters: Any, inputs: Array, signs: Array) -> Array:
    """``K z`` by one backward and one forward derivative each."""
    along = lambda p: function(p, inputs)  # noqa: E731
    pull = jax.vjp(along, parameters)[1]
    return jax.lax.map(lambda z: jax.jvp(along, (parameters,), pull(z))[1], signs)
