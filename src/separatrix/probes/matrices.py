"""Symmetric matrices of a model that are known by their products: Hessian, Gauss-Newton, residual; parts of them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from array_api_compat import array_namespace

from separatrix.probes.operators import Array, ModelOperators, ProbeError

#: Places of a named group of parameters in a flat vector.
Group = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class SymmetricMatrix:
    """A symmetric matrix ``(P, P)`` that is known by its products.

    Attributes
    ----------
    size
        P.
    apply
        Products with a block of vectors, ``(k, P) -> (k, P)``.
    vector
        NumPy values as an array of the framework, of its dtype and on its device.
    dtype
        Of the vectors.
    blocks
        Place of each named parameter.
    free_memory
        Bytes that a basis of vectors may take.
    """

    size: int
    apply: Callable[[Array], Array]
    vector: Callable[[np.ndarray], Array]
    dtype: np.dtype
    blocks: Mapping[str, slice]
    free_memory: Callable[[], int]

    @property
    def rounding(self) -> float:
        """Unit roundoff of the vectors."""
        return float(np.finfo(self.dtype).eps)


def hessian(model: ModelOperators) -> SymmetricMatrix:
    """Hessian of the loss. Piecewise linear activations have none at their kinks, which are not seen."""
    return _of(model, model.hvp)


def gauss_newton(model: ModelOperators) -> SymmetricMatrix:
    """Gauss-Newton matrix ``J^T (d^2 loss / d outputs^2) J``: what the Hessian would be, were the outputs linear."""
    return _of(model, model.gauss_newton)


def residual(model: ModelOperators) -> SymmetricMatrix:
    """Hessian less Gauss-Newton matrix: the curvature of the outputs, weighted by the slope of the loss."""
    return _of(model, lambda rows: model.hvp(rows) - model.gauss_newton(rows))


def _of(model: ModelOperators, product: Callable[[Array], Array]) -> SymmetricMatrix:
    return SymmetricMatrix(model.size, product, model.vector, model.dtype, model.blocks, model.free_memory)


def preconditioned(matrix: SymmetricMatrix, diagonal: Array) -> SymmetricMatrix:
    """``D^(-1/2) H D^(-1/2)``: the curvature that a method with step sizes ``learning_rate / D`` meets.

    Parameters
    ----------
    matrix
        ``H``.
    diagonal
        ``D``, ``(P,)``, positive, in the model's framework: ``sqrt(v) + epsilon`` for Adam
        (:func:`.stability.adam_diagonal`).

    Raises
    ------
    ProbeError
        If the diagonal has another shape or an entry that is not positive.
    """
    if tuple(diagonal.shape) != (matrix.size,):
        raise ProbeError(f"the diagonal must have shape ({matrix.size},), got {tuple(diagonal.shape)}")
    if not float(array_namespace(diagonal).min(diagonal)) > 0:
        raise ProbeError("all entries of the diagonal must be positive")
    scale = diagonal**-0.5
    return SymmetricMatrix(
        matrix.size,
        lambda rows: scale * matrix.apply(scale * rows),
        matrix.vector,
        matrix.dtype,
        matrix.blocks,
        matrix.free_memory,
    )


def groups(blocks: Mapping[str, slice], patterns: Mapping[str, str] | None = None) -> dict[str, Group]:
    """Named groups of parameters, each parameter in one group.

    Parameters
    ----------
    blocks
        Place of each parameter, by its name.
    patterns
        Regular expression for each group: it holds the parameters in whose name the expression is found. None makes
        each parameter a group.

    Raises
    ------
    ProbeError
        If a parameter is in no group or in two, or a group is empty.
    """
    if patterns is None:
        return {name: (place,) for name, place in blocks.items()}
    found: dict[str, list[slice]] = {group: [] for group in patterns}
    for name, place in blocks.items():
        matching = [group for group, pattern in patterns.items() if re.search(pattern, name)]
        if len(matching) != 1:
            raise ProbeError(f"the parameter {name} must be in one group, and is in {matching or 'none'}")
        found[matching[0]].append(place)
    if empty := [group for group, places in found.items() if not places]:
        raise ProbeError(f"the group {empty[0]} has no parameter: {patterns[empty[0]]!r} is found in no name")
    return {group: tuple(places) for group, places in found.items()}


def restricted(matrix: SymmetricMatrix, pattern: str) -> SymmetricMatrix:
    """Diagonal block of the parameters in whose name a regular expression is found: all others are frozen.

    Raises
    ------
    ProbeError
        If there is no such parameter.
    """
    kept = {name: place for name, place in matrix.blocks.items() if re.search(pattern, name)}
    if not kept:
        raise ProbeError(f"{pattern!r} is found in the name of no parameter: {', '.join(matrix.blocks)}")
    sizes = [place.stop - place.start for place in kept.values()]
    ends = np.cumsum([0, *sizes]).tolist()
    blocks = {name: slice(*bounds) for name, bounds in zip(kept, pairwise(ends), strict=True)}

    zeros = matrix.vector(np.zeros(matrix.size))

    def apply(rows: Array) -> Array:
        xp = array_namespace(rows)
        nothing = xp.broadcast_to(zeros, (rows.shape[0], matrix.size))
        pieces, at = [], 0
        for place, own in zip(kept.values(), blocks.values(), strict=True):
            pieces += [nothing[:, at : place.start], rows[:, own]]
            at = place.stop
        pieces.append(nothing[:, at:])
        return select(matrix.apply(xp.concat(pieces, axis=1)), tuple(kept.values()))

    return SymmetricMatrix(ends[-1], apply, matrix.vector, matrix.dtype, blocks, matrix.free_memory)


def select(rows: Array, group: Group) -> Array:
    """Entries of a group of parameters, ``(..., P) -> (..., p)``."""
    parts = [rows[..., place] for place in group]
    return parts[0] if len(parts) == 1 else array_namespace(rows).concat(parts, axis=-1)


def random_rows(
    matrix: SymmetricMatrix, seed: int, start: int, stop: int, law: Literal["rademacher", "normal"]
) -> Array:
    """Random vectors number ``start .. stop - 1``, a row for each: a function of the seed and its number alone."""
    rows = []
    for number in range(start, stop):
        rng = np.random.default_rng([seed, number])
        if law == "normal":
            rows.append(rng.standard_normal(matrix.size))
        else:
            bits = np.unpackbits(np.frombuffer(rng.bytes(-(-matrix.size // 8)), np.uint8), count=matrix.size)
            rows.append(2.0 * bits - 1.0)
    return matrix.vector(np.stack(rows))


def row_blocks(matrix: SymmetricMatrix, count: int, most: int = 16) -> Sequence[tuple[int, int]]:
    """Half-open ranges of at most ``most`` of ``count`` vectors, fewer where they would fill the memory."""
    bytes_each = 4 * matrix.size * matrix.dtype.itemsize
    step = int(max(1, min(most, count, matrix.free_memory() // bytes_each)))
    return [(start, min(start + step, count)) for start in range(0, count, step)]
