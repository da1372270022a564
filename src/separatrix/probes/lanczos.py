"""Lanczos recurrences with full re-orthogonalisation: a chain takes a product and gives the next vector to multiply.

The basis stays on the device, in the model's own arrays; what comes to the host are the few coefficients of the
projected matrix ``T``. In exact arithmetic the product of a basis vector has no part along earlier ones beyond its
neighbours, so the part that re-orthogonalisation takes away is a free measure of the error of the products.
"""

from collections.abc import Callable
from functools import wraps

import jax
import numpy as np
from array_api_compat import array_namespace, is_jax_array
from jaxtyping import Float

from separatrix.probes.operators import Array

_PANEL = 32  # most vectors of the basis in one array


def _compiled(function: Callable) -> Callable:
    """The same function of arrays, in one program where they are JAX's: its single operations cost more to call."""
    program = jax.jit(function)

    @wraps(function)
    def call(*arrays: Array) -> Array:
        return (program if is_jax_array(arrays[0]) else function)(*arrays)

    return call


@_compiled
def _without_known(w: Array, v: Array, rows: Array, coefficients: Array) -> tuple[Array, Array]:
    """``w`` less its part along ``v`` and known parts along other vectors, and the coefficient of the former."""
    along = v[0] @ w[0]
    return w - along * v - (coefficients @ rows)[None], along


@_compiled
def _without_panel(w: Array, panel: Array) -> tuple[Array, Array]:
    """``w`` less its parts along the rows of a panel, and the square of what was taken away."""
    along = panel @ w[0]
    return w - (along @ panel)[None], along @ along


@_compiled
def _normalised(w: Array) -> tuple[Array, Array]:
    """Unit vector and norm, ``(1,)``; zero stays zero."""
    norm = (w[0] @ w[0])[None] ** 0.5
    xp = array_namespace(norm)
    return w / xp.where(norm > 0, norm, xp.ones_like(norm)), norm


@_compiled
def _joined(first: Array, second: Array) -> Array:
    return array_namespace(first).concat([first, second])


class Basis:
    """Orthonormal vectors in a few arrays: one matrix product serves many, and appending one copies few.

    Neighbouring arrays of equal length are joined, as in a binary counter, so that lengths are powers of two.
    """

    def __init__(self) -> None:
        self._panels: list[Array] = []

    def __len__(self) -> int:
        return sum(len(panel) for panel in self._panels)

    def append(self, v: Array) -> None:
        """Add a vector, ``(1, P)``."""
        self._panels.append(v)
        while len(self._panels) > 1 and len(self._panels[-1]) == len(self._panels[-2]) < _PANEL:
            last = self._panels.pop()
            self._panels[-1] = _joined(self._panels[-1], last)

    def extend(self, rows: Array) -> None:
        """Add a block of vectors, ``(k, P)``."""
        self._panels.append(rows)

    def remove_from(self, w: Array) -> tuple[Array, list[Array]]:
        """What is orthogonal to the basis in ``w``, ``(1, P)``, and squares whose sum is that of the rest; one pass."""
        squares = []
        for panel in self._panels:
            w, square = _without_panel(w, panel)
            squares.append(square)
        return w, squares

    def combine(self, coefficients: Float[np.ndarray, "k m"], vector: Callable[[np.ndarray], Array]) -> Array:
        """Linear combinations of the basis, ``(k, P)``; ``vector`` puts the coefficients on the device."""
        total, start = None, 0
        for panel in self._panels:
            part = vector(np.ascontiguousarray(coefficients[:, start : start + len(panel)])) @ panel
            total = part if total is None else total + part
            start += len(panel)
        assert total is not None
        return total


class Chain:
    """One Krylov space, grown by a product at a time.

    Parameters
    ----------
    start
        Unit vector, ``(1, P)``.
    locked
        Orthonormal vectors that the chain stays orthogonal to.
    """

    def __init__(self, start: Array, locked: Basis | None = None) -> None:
        self.current = start
        self.basis = Basis()
        self._locked = locked or Basis()
        self.projected: Float[np.ndarray, "m m"] = np.zeros((0, 0))
        self._eigen: tuple[np.ndarray, np.ndarray] | None = None
        # by symmetry the next product has these coefficients along the basis, and along these of its vectors
        self._known = np.zeros(0)
        self._along = start, 0 * start[0, :1]
        self.coupling = 0.0
        #: Largest part of a product that symmetry forbids: the error of the products.
        self.asymmetry = 0.0

    @property
    def steps(self) -> int:
        """Vectors in the basis, m."""
        return len(self.basis)

    @property
    def exhausted(self) -> bool:
        """Whether the space is invariant: its eigenpairs are exact and it cannot grow."""
        scale = float(np.abs(self.projected).max(initial=0.0))
        return self.steps > 0 and self.coupling <= max(4 * self.asymmetry, 1e-300, 1e-14 * scale)

    def absorb(self, w: Array) -> None:
        """Take the product with :attr:`current` and make the next vector from it."""
        v, m = self.current, self.steps
        w, alpha = _without_known(w, v, *self._along)
        self.basis.append(v)
        self.current, norm = self._orthogonal(w)
        grown = np.zeros((m + 1, m + 1))
        grown[:m, :m] = self.projected
        grown[:m, m] = grown[m, :m] = self._known
        grown[m, m] = float(alpha)
        self.projected, self._eigen = grown, None
        self.coupling = norm.item()
        self._known = np.zeros(m + 1)
        self._known[m] = self.coupling
        self._along = v, norm

    def _orthogonal(self, w: Array) -> tuple[Array, Array]:
        """What is orthogonal to all vectors kept in ``w``, as a unit vector and its norm."""
        w, forbidden, locked, unit, norm = self._pass(w)
        self.asymmetry = max(self.asymmetry, forbidden)
        # twice is enough (Parlett): what is left after the second pass is orthogonal, or nothing
        if np.hypot(forbidden, locked) > 0.1 * norm.item():
            *_, unit, norm = self._pass(w)
        return unit, norm

    def _pass(self, w: Array) -> tuple[Array, float, float, Array, Array]:
        """What is orthogonal, once more as unit vector and norm, and what was taken away, of each basis."""
        w, forbidden = self.basis.remove_from(w)
        w, locked = self._locked.remove_from(w)
        unit, norm = _normalised(w)
        # nothing is waited for until everything is under way
        lengths = (sum(float(square) for square in squares) ** 0.5 for squares in (forbidden, locked))
        return w, *lengths, unit, norm

    def eigen(self) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"]]:
        """Ritz values in ascending order, and their vectors in the basis as columns."""
        if self._eigen is None:
            self._eigen = np.linalg.eigh(self.projected)
        return self._eigen

    def restart(self, keep: Float[np.ndarray, "m l"], vector: Callable[[np.ndarray], Array]) -> None:
        """Keep l Ritz vectors (columns, in the basis) and the current vector: a thick restart (Wu and Simon 2000)."""
        values = np.sum(keep * (self.projected @ keep), axis=0)
        rows = self.basis.combine(keep.T, vector)
        self._known = self.coupling * keep[-1]
        self._along = rows, vector(self._known)
        self.projected, self._eigen = np.diag(values), None
        self.basis = Basis()
        self.basis.extend(rows)
