"""Lanczos recurrences with full re-orthogonalisation: a chain takes a product and gives the next vector to multiply.

The basis stays on the device, in the model's own arrays; what comes to the host are the few coefficients of the
projected matrix ``T``. In exact arithmetic the product of a basis vector has no part along earlier ones beyond its
neighbours, so the part that re-orthogonalisation takes away is a free measure of the error of the products.
"""

from collections.abc import Callable

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from separatrix.probes.operators import Array

_PANEL = 32  # most vectors of the basis in one array


class Basis:
    """Orthonormal vectors in a few arrays: one matrix product serves many, and appending one copies few.

    Neighbouring arrays of equal length are joined, as in a binary counter, so that lengths are powers of two.
    """

    def __init__(self) -> None:
        self._panels: list[Array] = []

    def __len__(self) -> int:
        return sum(len(panel) for panel in self._panels)

    def __getitem__(self, number: int) -> Array:
        for panel in self._panels:
            if number < len(panel):
                return panel[number]
            number -= len(panel)
        raise IndexError("the basis has fewer vectors")

    def append(self, v: Array) -> None:
        """Add a vector, ``(P,)``."""
        self._panels.append(v[None])
        while len(self._panels) > 1 and len(self._panels[-1]) == len(self._panels[-2]) < _PANEL:
            last = self._panels.pop()
            self._panels[-1] = array_namespace(v).concat([self._panels[-1], last])

    def extend(self, rows: Array) -> None:
        """Add a block of vectors, ``(k, P)``."""
        self._panels.append(rows)

    def remove_from(self, w: Array) -> tuple[Array, float]:
        """What is orthogonal to the basis in ``w``, and the norm of the rest; one pass."""
        products = [panel @ w for panel in self._panels]
        for panel, h in zip(self._panels, products, strict=True):
            w = w - h @ panel
        return w, sum(float(h @ h) for h in products) ** 0.5

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
        Unit vector, ``(P,)``.
    locked
        Orthonormal vectors that the chain stays orthogonal to.
    """

    def __init__(self, start: Array, locked: Basis | None = None) -> None:
        self.current = start
        self.basis = Basis()
        self._locked = locked or Basis()
        self.projected: Float[np.ndarray, "m m"] = np.zeros((0, 0))
        self._eigen: tuple[np.ndarray, np.ndarray] | None = None
        self._known = np.zeros(0)  # coefficients of the next product along the basis, by symmetry
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
        alpha = float(v @ w)
        w = w - alpha * v
        for i in np.flatnonzero(self._known):
            w = w - float(self._known[i]) * self.basis[int(i)]
        grown = np.zeros((m + 1, m + 1))
        grown[:m, :m] = self.projected
        grown[:m, m] = grown[m, :m] = self._known
        grown[m, m] = alpha
        self.projected, self._eigen = grown, None
        self.basis.append(v)
        w, norm = self._orthogonal(w)
        self.coupling = norm
        self._known = np.zeros(m + 1)
        self._known[m] = norm
        self.current = w / norm if norm > 0 else w

    def _orthogonal(self, w: Array) -> tuple[Array, float]:
        first = True
        while True:
            w, removed = self.basis.remove_from(w)
            if first:
                self.asymmetry = max(self.asymmetry, removed)
            if len(self._locked):
                w, shared = self._locked.remove_from(w)
                removed = max(removed, shared)
            norm = float(w @ w) ** 0.5
            # twice is enough (Parlett): what is left after the second pass is orthogonal, or nothing
            if removed <= 0.1 * norm or not first:
                return w, norm
            first = False

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
        self.projected, self._eigen = np.diag(values), None
        self.basis = Basis()
        self.basis.extend(rows)
