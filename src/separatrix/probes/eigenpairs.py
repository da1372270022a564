"""Extreme eigenpairs of a model's curvature to a requested residual, by Lanczos with full re-orthogonalisation.

A run stops when the residuals of the recurrences are small enough, never because iterates stopped moving. A Krylov
space holds one vector of each eigenspace, so an eigenvalue that occurs twice would be found once: a second run,
orthogonal to what was found, tells whether anything was missed. At the end one more product, with a combination of all
vectors with random signs, is compared with what the recurrences say, and what they do not explain is added to every
residual; pairs that come from several runs are multiplied one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Bool, Float

from separatrix.probes.lanczos import Basis, Chain
from separatrix.probes.matrices import SymmetricMatrix, random_rows
from separatrix.probes.operators import Array, ProbeError

#: Units of rounding of the largest eigenvalue below which a value cannot be told from zero.
_ZERO = 32
_Condition = Callable[[Chain], bool]


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Extreme eigenvalues, the most extreme first.

    Attributes
    ----------
    values
        ``(k,)``.
    vectors
        Unit vectors, ``(k, P)``, in the model's framework.
    residuals
        ``|H v - value v|`` of each pair: an eigenvalue lies within it of ``value``.
    pair_converged
        Whether the residual of each is at most the tolerance, relative to its value.
    complete
        Whether a search orthogonal to these pairs found no more extreme one; None if there was no search.
    products
        Products with the matrix.
    asymmetry
        Largest part of a product that a symmetric matrix cannot have: the error of the products.
    """

    values: Float[np.ndarray, " k"]
    vectors: Array
    residuals: Float[np.ndarray, " k"]
    pair_converged: Bool[np.ndarray, " k"]
    complete: bool | None
    products: int
    asymmetry: float

    @property
    def converged(self) -> bool:
        """Whether all pairs have converged and none is known to be missing."""
        return bool(self.pair_converged.all()) and self.complete is not False


def eigenpairs(
    matrix: SymmetricMatrix,
    count: int = 1,
    *,
    which: Literal["largest", "smallest"] = "largest",
    tolerance: float = 1e-4,
    most_products: int = 1000,
    basis: int | None = None,
    confirm: int = 10,
    start: Array | None = None,
    seed: int = 0,
) -> Eigenpairs:
    """The algebraically largest or smallest eigenvalues and their vectors.

    Parameters
    ----------
    matrix
        The matrix.
    count
        Number of pairs k, at most P.
    which
        ``"smallest"`` gives the most negative ones.
    tolerance
        Residual of each pair relative to its value at which the search stops. A value within a few units of rounding
        of zero, on the scale of the largest, has converged when its residual is as small as that.
    most_products
        Products after which it stops in any case.
    basis
        Most vectors kept at a time; beyond it the search restarts from the best of them (thick restart). By default
        what the memory allows, at most ``max(100, 4 k)``.
    confirm
        Products spent on the search for a missed copy of a multiple eigenvalue when k is at least 2; 0 leaves it out.
    start
        Vector to start from, ``(P,)``, for example one found a few steps earlier in training; random by default.
    seed
        Of random vectors.

    Raises
    ------
    ProbeError
        If the count, tolerance or basis cannot be used, or the basis does not fit the memory.
    """
    sign = {"largest": 1.0, "smallest": -1.0}.get(which)
    if sign is None:
        raise ProbeError(f"which must be 'largest' or 'smallest', got {which!r}")
    if not 1 <= count <= matrix.size:
        raise ProbeError(f"count must lie between 1 and the number of parameters {matrix.size}, got {count}")
    if not tolerance > 0:
        raise ProbeError(f"tolerance must be positive, got {tolerance}")
    search = _Search(matrix, count, sign, tolerance, most_products, _basis_size(matrix, count, basis), seed)
    search.run(start)
    complete = search.confirm(confirm) if confirm and count > 1 else None
    return search.result(complete)


def _basis_size(matrix: SymmetricMatrix, count: int, basis: int | None) -> int:
    bytes_each = matrix.size * matrix.dtype.itemsize
    fitting = matrix.free_memory() // bytes_each - count
    least = min(count + 3, matrix.size)
    if basis is None:
        basis = int(min(max(100, 4 * count), fitting))
    if fitting < max(basis, least):
        raise ProbeError(
            f"a basis of {max(basis, least)} vectors needs {max(basis, least) * bytes_each} bytes, and "
            f"{matrix.free_memory()} are available"
        )
    if basis < least:
        raise ProbeError(f"basis must be at least {least} for {count} pairs, got {basis}")
    return min(basis, matrix.size)


@dataclass
class _Pair:
    """An eigenpair of ``sign * matrix``; its residual vector is ``coefficient * direction``; vectors ``(1, P)``."""

    value: float
    vector: Array
    coefficient: float
    direction: Array


class _Search:
    def __init__(
        self, matrix: SymmetricMatrix, count: int, sign: float, tolerance: float, most: int, basis: int, seed: int
    ) -> None:
        self.matrix, self.count, self.sign, self.tolerance = matrix, count, sign, tolerance
        self.most, self.basis, self.seed = most, basis, seed
        self.products, self.asymmetry, self.largest, self._draws = 0, 0.0, 0.0, 0
        self.found: list[_Pair] = []

    def run(self, start: Array | None) -> None:
        """Fill up to ``count`` pairs: one chain, and further ones where a chain is exhausted before."""
        self._grow(Chain(self._start(start)), lambda _: self.count)
        while len(self.found) < self.count and self.products < self.most:
            self._grow(self._apart(), lambda _: self.count - len(self.found))

    def confirm(self, steps: int) -> bool:
        """Look for a more extreme pair outside of the ones found; take over what is found and look again."""
        while len(self.found) < self.matrix.size and self.products < self.most:
            chain = self._apart()
            threshold = self.found[-1].value + self._allowed(self.found[-1].value)
            above = partial(_count_above, threshold)
            self._advance(chain, lambda chain, above=above: chain.steps >= steps or above(chain) > 0)
            if not above(chain):
                return True
            self._grow(chain, above)
        return len(self.found) == self.matrix.size

    def result(self, complete: bool | None) -> Eigenpairs:
        """The pairs found, with their residuals."""
        vectors = self._vectors()
        values = np.array([pair.value for pair in self.found])
        rounding = 16 * self.matrix.rounding * self.largest
        residuals = np.hypot(self._residuals(values, vectors), rounding)
        allowed = np.array([self._allowed(v) for v in values])
        return Eigenpairs(
            self.sign * values, vectors, residuals, residuals <= allowed, complete, self.products, self.asymmetry
        )

    def _vectors(self) -> Array:
        return array_namespace(self.found[0].vector).concat([pair.vector for pair in self.found])

    def _residuals(self, values: np.ndarray, vectors: Array) -> np.ndarray:
        xp = array_namespace(vectors)
        if len({id(pair.direction) for pair in self.found}) > 1:
            # pairs of several chains also have small parts along each other, which no recurrence knows
            column = self.matrix.vector(values)[:, None]
            away = xp.concat([self._product(pair.vector) for pair in self.found]) - column * vectors
            return np.asarray(xp.sum(away * away, axis=1), np.float64) ** 0.5
        signs = 2.0 * np.random.default_rng([self.seed, 1]).integers(0, 2, len(values)) - 1.0
        coefficients = np.array([pair.coefficient for pair in self.found])
        predicted = self.matrix.vector((signs * values)[None]) @ vectors
        predicted = predicted + float(signs @ coefficients) * self.found[0].direction
        away = self._product(self.matrix.vector(signs[None]) @ vectors) - predicted
        return np.hypot(coefficients, float(xp.sum(away * away)) ** 0.5)

    def _allowed(self, value: float) -> float:
        nothing = _ZERO * self.matrix.rounding * self.largest
        return self.tolerance * abs(value) if abs(value) > nothing else nothing

    def _product(self, v: Array) -> Array:
        self.products += 1
        product = self.matrix.apply(v)
        return product if self.sign > 0 else -product

    def _start(self, start: Array | None, locked: Basis | None = None) -> Array:
        v = random_rows(self.matrix, self.seed, self._draws, self._draws + 1, "normal")
        v = v if start is None else start[None]
        self._draws += 1
        if locked is not None:
            for _ in range(2):
                v, _ = locked.remove_from(v)
        norm = float(array_namespace(v).sum(v * v)) ** 0.5
        if not (norm > 0 and np.isfinite(norm)):
            raise ProbeError("the vector to start from must be finite and not zero")
        return v / norm

    def _apart(self) -> Chain:
        """A chain from a random vector, orthogonal to all pairs found."""
        locked = Basis()
        locked.extend(self._vectors())
        return Chain(self._start(None, locked), locked)

    def _advance(self, chain: Chain, done: _Condition) -> None:
        """Grow the chain until it is ``done`` or exhausted, or products run out."""
        while True:
            if chain.steps and (done(chain) or chain.exhausted or self.products >= self.most):
                return
            chain.absorb(self._product(chain.current))
            self.asymmetry = max(self.asymmetry, chain.asymmetry)
            self.largest = max(self.largest, float(np.abs(np.diag(chain.projected)).max()))
            if not np.isfinite(chain.coupling):
                raise ProbeError("a product with the matrix is not finite")
            if chain.steps >= self.basis and not chain.exhausted and not done(chain):
                wanted = min(self.count + max(2, (self.basis - self.count) // 2), self.basis - 1)
                chain.restart(chain.eigen()[1][:, -wanted:], self.matrix.vector)

    def _grow(self, chain: Chain, wanted: Callable[[Chain], int]) -> None:
        """Converge the ``wanted`` largest pairs of a chain and merge them with those found."""

        def done(chain: Chain) -> bool:
            k = wanted(chain)
            if chain.steps < k:
                return False
            values, vectors = chain.eigen()
            self.largest = max(self.largest, float(np.abs(values).max()))
            errors = chain.coupling * np.abs(vectors[-1, -k:])
            # below the error of the products no further step helps
            floor = 2 * chain.asymmetry
            return all(e <= max(0.9 * self._allowed(v), floor) for e, v in zip(errors, values[-k:], strict=True))

        self._advance(chain, done)
        values, vectors = chain.eigen()
        k = min(wanted(chain), chain.steps)
        rows = chain.basis.combine(vectors[:, -k:].T, self.matrix.vector)
        new = [
            _Pair(float(values[-k + i]), rows[i : i + 1], float(chain.coupling * vectors[-1, -k + i]), chain.current)
            for i in range(k)
        ]
        self.found = sorted([*self.found, *new], key=lambda pair: -pair.value)[: self.count]


def _count_above(threshold: float, chain: Chain) -> int:
    return int(np.sum(chain.eigen()[0] > threshold))
