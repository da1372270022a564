"""Fixed-step schemes for ensembles of Ito stochastic differential equations.

Each scheme is a :class:`separatrix.engines.ensemble.Step` and states its orders, which the tests check. Members lie
along the last axis; the state is an array ``(components, n)``, and ``arguments`` is a mapping that holds ``step_size``
beside whatever the coefficients need.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from separatrix.engines.counter_normals import Keys, normals, signs
from separatrix.engines.ensemble import Arguments, noise_block

Coefficient = Callable[[Array, Arguments], Array]


@dataclass(frozen=True)
class EulerMaruyama:
    """``x + drift(x) dt + noise(x) dW`` for Ito noise.

    Attributes
    ----------
    drift, noise
        ``f(x, arguments)``. ``noise`` returns ``(components, n)`` for diagonal noise, one Brownian motion for each
        component, or ``(components, motions, n)`` for a full noise matrix. Reusable functions, not fresh lambdas:
        each one is a compilation.
    components
        Number of components of the state.
    motions
        Number of Brownian motions (columns of a noise matrix); 0 for diagonal noise.
    increments
        ``"gaussian"``, or ``"two-point"`` for +-sqrt(dt): the same weak order at a fraction of the cost, no strong one.
    refinement
        Number of finer Gaussian increments summed into each step: runs with step sizes ``h`` and refinement ``k`` share
        their Brownian path with a run of step size ``h / k`` (to float32 rounding), for every k.

    Raises
    ------
    ValueError
        If ``refinement`` is below 1, or above 1 with two-point increments, which have no path to share.
    """

    drift: Coefficient
    noise: Coefficient
    components: int = 1
    motions: int = 0
    increments: Literal["gaussian", "two-point"] = "gaussian"
    refinement: int = 1

    strong_order: ClassVar[float] = 0.5
    weak_order: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if self.refinement < 1:
            raise ValueError(f"refinement must be at least 1, got {self.refinement}")
        if self.increments == "two-point" and self.refinement > 1:
            raise ValueError(f"refinement must be 1 with two-point increments, got {self.refinement}")

    @property
    def _fine_block(self) -> int:
        # The finest steps are always drawn this many at a time: a path must not depend on the refinement.
        return noise_block(self.motions or self.components)

    @property
    def block(self) -> int:
        """Steps drawn together: those that fill a whole number of blocks of the finest steps."""
        return self._fine_block // math.gcd(self._fine_block, self.refinement)

    def draw(self, keys: Keys, block: Array) -> Float[Array, "block motions n"]:
        """Standardised Brownian increments."""
        motions = self.motions or self.components
        rows = self._fine_block * motions
        if self.increments == "two-point":
            return signs(keys, block, rows).reshape(self.block, motions, -1)
        parts = self.refinement // math.gcd(self._fine_block, self.refinement)
        first = block * np.uint32(parts)
        fine = jax.lax.map(lambda part: normals(keys, first + part, rows), jnp.arange(parts, dtype=jnp.uint32))
        fine = fine.reshape(self.block, self.refinement, motions, -1)
        return fine[:, 0] if self.refinement == 1 else fine.sum(1) * np.float32(self.refinement**-0.5)

    def __call__(self, state: Array, noise: Array, t: Array, arguments: Arguments) -> Array:
        """One step."""
        del t
        increment = noise.astype(state.dtype) * jnp.sqrt(arguments["step_size"])
        kick = self.noise(state, arguments)
        kick = kick * increment if self.motions == 0 else (kick * increment[None]).sum(1)
        return state + self.drift(state, arguments) * arguments["step_size"] + kick + self._correction(
            state, increment, arguments)  # fmt: skip

    def _correction(self, state: Array, increment: Array, arguments: Arguments) -> Array | float:
        del state, increment, arguments
        return 0.0


@dataclass(frozen=True)
class Milstein(EulerMaruyama):
    """Euler-Maruyama plus ``noise noise' (dW^2 - dt) / 2``: strong order 1 for diagonal noise.

    Diagonal means that component i of ``noise`` depends on component i of the state alone.
    """

    strong_order: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.motions:
            raise ValueError(f"Milstein's scheme here is for diagonal noise, motions = 0, got {self.motions}")

    def _correction(self, state: Array, increment: Array, arguments: Arguments) -> Array:
        noise, slope = jax.jvp(lambda x: self.noise(x, arguments), (state,), (jnp.ones_like(state),))
        return 0.5 * noise * slope * (increment**2 - arguments["step_size"])
