"""How the kernels of a study are taken, exactly or from products with random vectors, and what that costs."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from separatrix.probes.tangent_kernel.jax_layers import factor_sizes
from separatrix.probes.tangent_kernel.jax_products import product_bytes
from separatrix.systems.training_phases.estimated_kernels import BLOCK, BLOCKS
from separatrix.systems.training_phases.exact_kernels import exact_bytes, traced
from separatrix.systems.training_phases.kernel_course import SUBSETS
from separatrix.systems.training_phases.task import Task, TrainingSettings, kernel_function

#: Exact kernels have no error: they may cost this many times as much as estimated ones.
PATIENCE = 4.0
#: Bytes that the exact kernels of one run may take unless they are asked for.
EXACT_BYTES = 2**32
#: Forward passes in a product, and in one together with those of subsets (measured).
_PASSES, _WITHIN = 4, 6
#: Passes over an exact kernel that its statistics take, beside one for each other checkpoint.
_SWEEPS = 60
_SECONDS = 3e-11  # of a multiplication on one core (measured)


@dataclass(frozen=True)
class KernelCost:
    """What the kernels of one run at all its checkpoints take.

    Attributes
    ----------
    multiplications, bytes
        Work, and peak memory.
    """

    multiplications: float
    bytes: int

    @property
    def seconds(self) -> float:
        """Expected duration on one core."""
        return _SECONDS * self.multiplications


def sign_vectors(settings: TrainingSettings, task: Task, network: Any, checkpoints: int) -> int:
    """Random vectors from which kernels are estimated; 0 if they are exact.

    With ``kernel = "auto"`` they are exact where they fit and cost at most four times as much.
    """
    if settings.kernel == "auto":
        exact, estimated = (kernel_cost(settings, task, network, checkpoints, m) for m in (0, settings.kernel_vectors))
        cheap = exact.multiplications <= PATIENCE * estimated.multiplications
        return 0 if cheap and exact.bytes <= EXACT_BYTES else settings.kernel_vectors
    return 0 if settings.kernel == "exact" else settings.kernel_vectors


def kernel_cost(
    settings: TrainingSettings, task: Task, network: Any, checkpoints: int, vectors: int, dtype: str = "float32"
) -> KernelCost:
    """Cost of a run's kernels, from shapes alone."""
    shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype)  # noqa: E731
    parameters = jax.tree.map(shape, network.init(np.random.default_rng(0)))
    inputs = task.split.inputs
    examples = jax.ShapeDtypeStruct(
        (settings.examples, *inputs.shape[1:]), inputs.dtype if np.issubdtype(inputs.dtype, np.integer) else dtype
    )
    function = kernel_function(task, network)
    layers, rest = factor_sizes(traced(function, parameters, examples))
    samples, outputs, size = settings.examples, task.classes, np.dtype(dtype).itemsize
    rows = samples * outputs
    forward = samples * (rest + sum(positions * seen * put_out for positions, seen, put_out in layers))
    if vectors:
        work = checkpoints * forward * (_WITHIN * (vectors + 1) + _PASSES * BLOCK * BLOCKS)
        # products and those of subsets, gathered one by one, then stacked; the former of one vector in float64
        kept = 4 * size * (vectors + 1) * rows * checkpoints + 8 * rows * checkpoints
        return KernelCost(work, kept + product_bytes(function, parameters, examples, SUBSETS))
    gram = rows**2 * (rest + checkpoints + _SWEEPS)
    for positions, seen, put_out in layers:
        dense = positions == 1
        gram += samples**2 * seen + rows**2 * put_out if dense else rows**2 * seen * put_out
        gram += 0 if dense else outputs * samples * positions * seen * put_out
    work = checkpoints * (2 * outputs * forward + gram)
    kept = 2 * size * rows**2 * checkpoints  # gathered one by one, then stacked
    return KernelCost(work, kept + exact_bytes(layers, rest, samples, outputs, size))


def describe_kernel(settings: TrainingSettings, task: Task, network: Any, checkpoints: int) -> str:
    """The kernel in words: which rows it has, and how it was taken."""
    vectors = sign_vectors(settings, task, network, checkpoints)
    how = f"estimated from {vectors} sign vectors for each run" if vectors else "exact"
    return f"Kernel of all {task.classes} outputs for {settings.examples} training samples, {how}."
