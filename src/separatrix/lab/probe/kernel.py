"""The kind of probe that follows the tangent kernel.

Where the exact kernels of all checkpoints are small they are kept. Otherwise their products with random signs that all
checkpoints share stand for them, and everything has a standard error over the signs. Which of the two follows from the
shapes alone, so that it is the same wherever a run goes on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Shaped

from separatrix.lab.probe.figures import panels
from separatrix.lab.probe.kernel_course import EXACT, MOTION, PRODUCTS, SETTLED, draw_distances, motion, quantities
from separatrix.lab.probe.kind import Checkpoint, Column, Course, Kind, Measured, Shape, Value, always
from separatrix.lab.settings import SettingError
from separatrix.lab.study import Figure
from separatrix.probes.operators import ModelOperators
from separatrix.probes.tangent_kernel.contraction import TooLargeError
from separatrix.probes.tangent_kernel.distance import effective_rank, label_alignment
from separatrix.probes.tangent_kernel.products import contracted_products, kernel_size, sign_probes

if TYPE_CHECKING:
    from separatrix.lab.probe.settings import ProbeSettings

#: Bytes that one exact kernel and what it is made from may take, and what is kept of all checkpoints.
MOST_BYTES = 2**28

_SIZE = (
    Column("kernel_norm", "norm of the kernel"),
    Column("kernel_rank", "effective rank of the kernel"),
    Column("label_alignment", "alignment with the targets"),
)


def _rows(s: ProbeSettings, course: Course) -> tuple[int, ...]:
    """Shape of what a kernel maps to itself: examples, and outputs unless it is contracted over them."""
    examples = min(s.kernel_examples, course.operators.examples)
    return (examples, *course.outputs[1:]) if s.contraction == "full" else (examples,)


def _arrays(s: ProbeSettings, course: Course) -> Mapping[str, Shape]:
    rows = math.prod(_rows(s, course))
    if _exact(s, course):
        return {EXACT: {"kernel_row": rows, "kernel_column": rows}}
    return {PRODUCTS: {"kernel_vector": s.vectors, "kernel_row": rows}}


@functools.lru_cache(maxsize=1)
def _exact(s: ProbeSettings, course: Course) -> bool:
    """Whether exact kernels are made and kept. Outputs for each token have too many rows, and no exact kernel."""
    rows = _rows(s, course)
    if len(course.outputs) != 2 or _bytes(course, math.prod(rows) ** 2) > MOST_BYTES:
        return False
    try:
        course.model.tangent_kernel(course.parameters, rows[0], s.contraction, MOST_BYTES)
    except TooLargeError:
        return False
    return True


def _bytes(course: Course, numbers: int) -> int:
    """Of so many numbers at each checkpoint."""
    return len(course.steps) * numbers * course.operators.dtype.itemsize


def _check(s: ProbeSettings, course: Course) -> None:
    if any(second <= first for first, second in pairwise(course.steps)):
        raise SettingError(
            "The probe kernel needs checkpoints at increasing steps, which are the last numbers in their names, got "
            f"{', '.join(map(str, course.steps))}."
        )
    if s.contraction != "full" and len(course.outputs) != 2:
        raise SettingError(
            f"contraction = {s.contraction!r} is not allowed for outputs of shape {course.outputs}: it must be full."
        )
    rows = math.prod(_rows(s, course))
    if not _exact(s, course) and (needed := _bytes(course, s.vectors * rows)) > MOST_BYTES:
        raise SettingError(
            f"kernel_examples = {s.kernel_examples} is not allowed: products of {s.vectors} vectors with kernels of "
            f"{rows} rows take {needed / 2**20:.0f} MiB at {len(course.steps)} checkpoints, more than "
            f"{MOST_BYTES / 2**20:.0f} MiB; take fewer examples or vectors."
        )


def _measure(checkpoint: Checkpoint) -> Measured:
    s, course, model = checkpoint.settings, checkpoint.course, checkpoint.model
    rows = _rows(s, course)
    targets = indicators(model.targets[: rows[0]], course.outputs[1:])
    if not _exact(s, course):
        return _from_products(s, model.operators(checkpoint.parameters, rows[0]), rows, targets)
    kernel = model.tangent_kernel(checkpoint.parameters, rows[0], s.contraction, MOST_BYTES)()
    values = float(np.linalg.norm(kernel)), effective_rank(kernel), label_alignment(kernel, targets)
    return Measured(
        {column.name: Value(value, 0.0, True) for column, value in zip(_SIZE, values, strict=True)}, {EXACT: kernel}
    )


def _from_products(
    s: ProbeSettings, operators: ModelOperators, rows: tuple[int, ...], targets: Float[np.ndarray, "n ..."]
) -> Measured:
    signs = sign_probes(rows, s.vectors, s.seed)
    labels = (targets if s.contraction == "full" else targets.T).reshape(-1, *rows)
    both = contracted_products(operators, np.concatenate([signs, labels]), s.contraction)
    products, of_labels = both[: s.vectors], both[s.vectors :].astype(np.float64)
    size = kernel_size(products, signs)
    flat = labels.reshape(len(labels), -1)
    # <K, Y Y^T> is a sum of y^T K y, without any error
    alignment = float(np.sum(labels * of_labels)) / (size.norm * float(np.linalg.norm(flat @ flat.T)))
    found = (
        (size.norm, size.norm_error),
        (size.effective_rank, size.effective_rank_error),
        (alignment, abs(alignment) * size.norm_error / size.norm),
    )
    values = {
        column.name: Value(value, error, bool(error <= SETTLED * abs(value)))
        for column, (value, error) in zip(_SIZE, found, strict=True)
    }
    return Measured(values, {PRODUCTS: products.reshape(len(products), -1)})


def indicators(targets: Shaped[np.ndarray, "n ..."], outputs: tuple[int, ...]) -> Float[np.ndarray, "n ..."]:
    """Classes as centred indicators of the outputs (of an example, this shape); real targets as they are."""
    if targets.dtype.kind == "f":
        return targets.reshape(len(targets), *outputs).astype(np.float64)
    return (targets[..., None] == np.arange(outputs[-1])) - 1.0 / outputs[-1]


def _figures(s: ProbeSettings) -> Sequence[Figure]:  # noqa: ARG001
    distance = (
        "Kernel distance 1 - cos between all checkpoints. Two phases show as a dark block (small distances) at the "
        "lower right with lighter bands beside it; the dashed lines mark the cut where that contrast is largest."
    )
    moved = (
        "Distance from the kernel of the first checkpoint and of the one before, and the angle turned since then for "
        "each step of training. Error bars: standard errors over the random vectors; none where kernels are exact."
    )
    size = (
        "Frobenius norm of the kernel, its effective rank (the number of equal eigenvalues with the same trace and "
        "norm), and its alignment with the targets, which is 1 if it is their outer product."
    )
    return [
        Figure("kernel_distances", "Distances between tangent kernels", distance, draw_distances),
        Figure("kernel_motion", "Motion of the tangent kernel", moved, panels(MOTION)),
        Figure("kernel_size", "Size of the tangent kernel", size, panels(_SIZE)),
    ]


KERNEL = Kind(
    "kernel",
    always(*_SIZE, *MOTION),
    _measure,
    arrays=_arrays,
    check=_check,
    derive=motion,
    quantities=quantities,
    figures=_figures,
    seconds=1.5,
)
