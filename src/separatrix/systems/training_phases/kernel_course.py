"""The tangent kernel of a training run at its checkpoints: distances between all of them, size, spectrum, alignment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from separatrix.probes.tangent_kernel.distance import distance_matrix
from separatrix.probes.tangent_kernel.jax_products import tangent_products
from separatrix.probes.tangent_kernel.products import estimated_distances, sign_probes
from separatrix.systems.training_phases.estimated_kernels import estimated_statistics
from separatrix.systems.training_phases.exact_kernels import exact_kernels, exact_statistics, rounding_distance

Function = Callable[[Any, Any], Any]
#: Largest eigenvalues that are recorded.
EIGENVALUES = 5
#: Disjoint subsets of the examples whose distances are recorded beside those of all.
SUBSETS = 4
#: Rows of the exact kernel, at most, of which an estimated one's rounding is measured.
_FEW_ROWS = 256


@dataclass(frozen=True, eq=False)
class KernelCourse:
    """Statistics of one run's kernels at t checkpoints; the full kernel of all outputs unless another is named.

    Attributes
    ----------
    distance
        ``(t, t)``: kernel distances between all pairs of checkpoints.
    standard_error
        ``(t, t)``: theirs over the random vectors, zero if kernels are exact. It is how far an estimate with fresh
        vectors would be away.
    subsets
        ``(4, t, t)``: the same distances from each quarter of the examples.
    class_trace, sum_of_logits
        ``(t, t)``: the same for the two contracted kernels; NaN if kernels are estimated.
    norm, effective_rank, alignment
        ``(t,)``: Frobenius norm, ``tr(K)^2 / |K|^2``, alignment with the centred one-hot labels.
    eigenvalues
        ``(t, 5)``: the largest; lower bounds, about one part in a thousand or less too small, if kernels are
        estimated.
    rounding
        Distance between two evaluations of a kernel at the last checkpoint, exact and by products, which differ in
        rounding alone: below it nothing is measured.
    redrawn
        Distance between the last two checkpoints, estimated once more from fresh vectors; the same as in ``distance``
        if kernels are exact.
    """

    distance: Float[np.ndarray, "t t"]
    standard_error: Float[np.ndarray, "t t"]
    subsets: Float[np.ndarray, "s t t"]
    class_trace: Float[np.ndarray, "t t"]
    sum_of_logits: Float[np.ndarray, "t t"]
    norm: Float[np.ndarray, " t"]
    effective_rank: Float[np.ndarray, " t"]
    alignment: Float[np.ndarray, " t"]
    eigenvalues: Float[np.ndarray, "t k"]
    rounding: float
    redrawn: float


def kernel_course(
    function: Function,
    checkpoints: Sequence[Any],
    inputs: Float[np.ndarray, "N d"] | Int[np.ndarray, "N T"],
    targets: Float[np.ndarray, "N C"],
    vectors: int = 0,
    seed: Sequence[int] = (0,),
) -> KernelCourse:
    """Kernels of ``function(parameters, inputs) -> (N, C)`` on fixed examples at every checkpoint.

    Parameters
    ----------
    function
        Hashable: compiled once for each.
    checkpoints
        Pytrees of NumPy arrays of one shape.
    inputs, targets
        Examples, N a multiple of four, and their centred one-hot labels. The kernel is computed in the dtype of the
        parameters.
    vectors
        Random sign vectors from whose products everything is estimated; 0 for exact kernels.
    seed
        Of these vectors: that of the study and the number of the run.
    """
    examples, last = _examples(checkpoints, inputs), checkpoints[-1]
    if vectors:
        signs, fresh = (sign_probes(targets.shape, vectors, [*seed, draw]) for draw in range(2))
        found = estimated_statistics(function, checkpoints, examples, targets, signs, fresh, SUBSETS, EIGENVALUES)
        examples = examples[: max(_FEW_ROWS // targets.shape[1], 2)]
        kernel = exact_kernels(function, [last], examples)[0]
    else:
        kernels = exact_kernels(function, checkpoints, examples)
        found = exact_statistics(kernels, targets, SUBSETS, EIGENVALUES)
        kernel = kernels[-1]
    return KernelCourse(**found, rounding=rounding_distance(function, last, examples, kernel, targets.shape[1]))


def kernel_distances(
    function: Function,
    checkpoints: Sequence[Any],
    inputs: Float[np.ndarray, "N d"],
    classes: int,
    vectors: int = 0,
    seed: Sequence[int] = (0,),
) -> Float[np.ndarray, "t t"]:
    """Distances alone; arguments as of :func:`kernel_course`, with the number of outputs C."""
    examples = _examples(checkpoints, inputs)
    if not vectors:
        return distance_matrix(list(exact_kernels(function, checkpoints, examples)))
    signs = sign_probes((len(examples), classes), vectors, [*seed, 0]).astype(_dtype(checkpoints))
    products = [np.asarray(tangent_products(function, p, examples, signs)[0]) for p in checkpoints]
    return estimated_distances(products)[0]


def _examples(checkpoints: Sequence[Any], inputs: np.ndarray) -> np.ndarray:
    """Inputs in the dtype of the parameters, unless they are numbers of tokens."""
    if np.issubdtype(inputs.dtype, np.integer):
        return inputs
    return inputs.astype(_dtype(checkpoints))


def _dtype(checkpoints: Sequence[Any]) -> np.dtype:
    return jax.tree.leaves(checkpoints[0])[0].dtype
