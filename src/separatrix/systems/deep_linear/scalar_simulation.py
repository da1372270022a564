"""Ensembles of one aligned, balanced mode: the exact SGD chain and its stochastic differential equation.

State ``{"root": a, ...}`` with ``a = w^{1/L}`` of shape ``(1, n)``. Arguments: ``singular_value``, ``label_noise``,
``learning_rate`` (and ``noise_scale``, ``step_size`` for the SDE).
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array

from separatrix.engines.counter_normals import Keys, normals
from separatrix.engines.ensemble import Arguments, State, noise_block
from separatrix.engines.sde import Milstein
from separatrix.systems.deep_linear.scalar_mode import chain_step, root_drift, root_noise


@dataclass(frozen=True)
class ScalarChain:
    """SGD of one mode, ``a <- a + eta a^{L-1} ((s - a^L) m + n)`` with ``m = mean x^2``, ``n = sigma mean x z``.

    The exact SGD of a network of diagonal matrices. With ``passage=True`` the state also carries
    ``{"passage_step": (1, n)}``, the first step after which ``a^L`` exceeds the argument ``passage_strength`` (-1
    before).
    """

    depth: int
    batch_size: int = 1
    passage: bool = False

    @property
    def block(self) -> int:
        """Steps drawn together."""
        return noise_block(2 * self.batch_size)

    def draw(self, keys: Keys, block: Array) -> dict[str, Array]:
        """Inputs and label noise, ``(block, B, n)`` each."""
        shape = (self.block, self.batch_size, -1)
        rows = self.block * self.batch_size
        return {
            "x": normals(keys, block, rows).reshape(shape),
            "z": normals(keys, block, rows, stream=1).reshape(shape),
        }

    def __call__(self, state: State, noise: dict[str, Array], t: Array, arguments: Arguments) -> State:
        """One SGD step."""
        root = state["root"]
        x, z = noise["x"].astype(root.dtype), noise["z"].astype(root.dtype)
        root = chain_step(
            root,
            jnp.mean(x**2, axis=0, keepdims=True),
            arguments["label_noise"] * jnp.mean(x * z, axis=0, keepdims=True),
            arguments["singular_value"],
            self.depth,
            arguments["learning_rate"],
        )
        if not self.passage:
            return {"root": root}
        passed = (state["passage_step"] < 0) & (root**self.depth >= arguments["passage_strength"])
        return {"root": root, "passage_step": jnp.where(passed, t.astype(jnp.int32) + 1, state["passage_step"])}


def scalar_sde(depth: int) -> Milstein:
    """Milstein's scheme for the SDE of ``a = w^{1/L}``, ``da = a^{L-1} [(s - a^L) dt + sqrt(kappa Qm) dB]`` (Ito).

    State ``(1, n)``; arguments ``singular_value``, ``label_noise``, ``noise_scale`` and ``step_size``. Strong order 1.
    """
    return Milstein(_RootDrift(depth), _RootNoise(depth))


@dataclass(frozen=True)
class _RootDrift:
    depth: int

    def __call__(self, root: Array, arguments: Arguments) -> Array:
        return root_drift(root, arguments["singular_value"], self.depth)


@dataclass(frozen=True)
class _RootNoise:
    depth: int

    def __call__(self, root: Array, arguments: Arguments) -> Array:
        return root_noise(
            root, arguments["singular_value"], self.depth, arguments["noise_scale"], arguments["label_noise"]
        )
