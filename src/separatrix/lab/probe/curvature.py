"""Kinds of probes of curvature: extreme eigenvalues, trace, what mini-batches see, and all of it by block."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from separatrix.lab import options
from separatrix.lab.probe.figures import lines_by_block
from separatrix.lab.probe.kind import Checkpoint, Column, Course, Kind, Measured, Value, always, of_estimate
from separatrix.lab.settings import SettingError
from separatrix.lab.study import Figure
from separatrix.probes import gradient_noise, matrices, stability, trace
from separatrix.probes.eigenpairs import eigenpairs
from separatrix.probes.operators import ModelOperators, ProbeError

if TYPE_CHECKING:
    from separatrix.lab.probe.settings import ProbeSettings


def edge_of_stability(s: ProbeSettings) -> tuple[float, str] | None:
    """Curvature that gradient descent with the step size of the settings just bears."""
    if s.learning_rate is None:
        return None
    return stability.gradient_descent_threshold(s.learning_rate, s.momentum), "edge of stability"


def _extreme(
    matrix: matrices.SymmetricMatrix, s: ProbeSettings, which: Literal["largest", "smallest"] = "largest"
) -> Value:
    made = eigenpairs(matrix, 1, which=which, tolerance=s.tolerance, seed=s.seed)
    return Value(float(made.values[0]), float(made.residuals[0]), made.converged)


def _eigenvalue(
    name: str,
    column: Column,
    matrix: Callable[[ModelOperators], matrices.SymmetricMatrix],
    which: Literal["largest", "smallest"] = "largest",
) -> Kind:
    def measure(checkpoint: Checkpoint) -> Measured:
        return Measured({column.name: _extreme(matrix(checkpoint.operators), checkpoint.settings, which)})

    return Kind(name, always(column), measure)


SHARPNESS = _eigenvalue(
    "sharpness",
    Column("sharpness", "largest eigenvalue of the Hessian", error="residual", level=edge_of_stability),
    matrices.hessian,
)
NEGATIVE = _eigenvalue(
    "negative",
    Column("most_negative", "most negative eigenvalue of the Hessian", error="residual"),
    matrices.hessian,
    "smallest",
)
GAUSS_NEWTON = _eigenvalue(
    "gauss-newton",
    Column("gauss_newton_sharpness", "largest eigenvalue of the Gauss-Newton matrix", error="residual"),
    matrices.gauss_newton,
)


def _measure_trace(checkpoint: Checkpoint) -> Measured:
    s = checkpoint.settings
    return Measured({"trace": of_estimate(trace.trace(matrices.hessian(checkpoint.operators), s.vectors, seed=s.seed))})


TRACE = Kind("trace", always(Column("trace", "trace of the Hessian")), _measure_trace)


def _measure_batches(checkpoint: Checkpoint) -> Measured:
    s = checkpoint.settings
    made = stability.batch_sharpness(checkpoint.operators, s.batch_size, s.vectors, seed=s.seed)
    return Measured({"batch_sharpness": of_estimate(made)})


def check_batch_size(s: ProbeSettings, course: Course) -> None:
    """Refuse mini-batches that are larger than the data."""
    if s.batch_size > course.operators.examples:
        raise SettingError(
            f"batch_size = {s.batch_size} is not allowed: the data have {course.operators.examples} examples."
        )


BATCH_SHARPNESS = Kind(
    "batch-sharpness",
    always(Column("batch_sharpness", "curvature of mini-batches along their gradients")),
    _measure_batches,
    check=check_batch_size,
)

# -- by block ---------------------------------------------------------------------------------------------------------


def blocks_of(s: ProbeSettings) -> Mapping[str, str]:
    """Regular expression of each block.

    Raises
    ------
    SettingError
        If a name cannot be that of a column, or an expression is none.
    """
    patterns = options.pairs("blocks", s.blocks)
    for name, pattern in patterns.items():
        if not name.isidentifier():
            raise SettingError(f"blocks = {name!r} is not allowed: the name of a block is letters, digits and _.")
        try:
            re.compile(pattern)
        except re.error as error:
            raise SettingError(f"blocks = {pattern!r} is not allowed: it is no regular expression ({error}).") from None
    return patterns


_BY_BLOCK = (
    ("sharpness", "largest eigenvalue of the block", "residual"),
    ("trace", "trace of the block", "error"),
    ("noise_trace", "variance of the gradient of an example", "error"),
)


def _block_columns(s: ProbeSettings) -> Sequence[Column]:
    return [
        Column(
            f"{block}_{quantity}", f"{label} {block}" if quantity != "noise_trace" else f"{label}, {block}", "", error
        )
        for block in blocks_of(s)
        for quantity, label, error in _BY_BLOCK
    ]


def _check_blocks(s: ProbeSettings, course: Course) -> None:
    if not blocks_of(s):
        raise SettingError("blocks needs a value for the probe blocks: it must be NAME=REGEX, one for each block.")
    try:
        matrices.groups(course.operators.blocks, blocks_of(s))
    except ProbeError as error:
        raise SettingError(f"blocks = {' '.join(s.blocks)!r} is not allowed: {error}.") from None


def _measure_blocks(checkpoint: Checkpoint) -> Measured:
    s, patterns = checkpoint.settings, blocks_of(checkpoint.settings)
    hessian = matrices.hessian(checkpoint.operators)
    traces = trace.group_traces(hessian, s.vectors, patterns=patterns, seed=s.seed)
    noises = gradient_noise.group_gradient_noise(checkpoint.operators, patterns=patterns)
    values = {}
    for block, pattern in patterns.items():
        values[f"{block}_sharpness"] = _extreme(matrices.restricted(hessian, pattern), s)
        values[f"{block}_trace"] = of_estimate(traces[block])
        values[f"{block}_noise_trace"] = of_estimate(noises[block].trace)
    return Measured(values)


def _block_figures(s: ProbeSettings) -> Sequence[Figure]:
    panels = {label: {block: f"{block}_{quantity}" for block in blocks_of(s)} for quantity, label, _ in _BY_BLOCK}
    caption = (
        "Left: largest eigenvalue of the diagonal block of the Hessian, all other parameters frozen, with its "
        "residual. Middle: its trace; right: variance of the gradient of one example, with standard errors. Open: not "
        "converged."
    )
    return [Figure("blocks", "Curvature and noise by block", caption, lines_by_block(panels))]


BLOCKS = Kind("blocks", _block_columns, _measure_blocks, check=_check_blocks, figures=_block_figures, seconds=1.5)
