"""Ensembles of the two-feature map: bifurcation diagrams, growth of a weak feature, ends of training.

State ``{"amplitude": sqrt(A), "log_weak": ln B, "residual_sum", "square_sum"}``, arrays ``(n,)``. Arguments:
``strong_step``, ``weak_step`` and ``weak_acts`` (1, or 0 for a weak feature so small that it changes no residual).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from separatrix.engines.counter_normals import Keys, member_keys
from separatrix.engines.ensemble import Arguments, State, evolve


@dataclass(frozen=True)
class FeatureMap:
    """One visit of the datum as :func:`separatrix.systems.feature_learning.oscillation_map.map_step` says.

    The weak part is kept in logarithms, since it may start below the smallest floating-point number. A strong part
    whose factor is negative has died: its amplitude is zero from then on. Likewise ``log_weak`` is then minus infinity.
    """

    block: int = 1 << 16

    def draw(self, keys: Keys, block: Array) -> tuple[()]:
        """Nothing is drawn."""
        del keys, block
        return ()

    def __call__(self, state: State, noise: tuple[()], t: Array, arguments: Arguments) -> State:
        """The state after one visit."""
        del noise, t
        residual = residuals(state, arguments)
        factor = 1 + arguments["weak_step"] * residual
        return {
            "amplitude": jnp.maximum(state["amplitude"] * (1 + arguments["strong_step"] * residual), 0),
            "log_weak": state["log_weak"] + 2 * jnp.log(jnp.maximum(factor, 0)),
            "residual_sum": state["residual_sum"] + residual,
            "square_sum": state["square_sum"] + residual**2,
        }


def residuals(state: State, arguments: Arguments) -> Float[Array, " n"]:
    """``l = 1 - A - B`` of every member."""
    # not a product: an infinitesimal weak feature grows beyond the largest number
    weak = jnp.where(arguments["weak_acts"] > 0, jnp.exp(state["log_weak"]), 0)
    return 1 - state["amplitude"] ** 2 - weak


def observe(state: State, arguments: Arguments) -> dict[str, Array]:
    """Strong contribution, logarithm of the weak one, and sums of residuals and of their squares so far."""
    del arguments
    return {
        "strong": state["amplitude"] ** 2,
        "log_weak": state["log_weak"],
        "residual_sum": state["residual_sum"],
        "square_sum": state["square_sum"],
    }


def iterate_map(
    strong_step: Float[np.ndarray, " n"],
    ratio: Float[np.ndarray, " n"],
    record_steps: Int[np.ndarray, " t"],
    *,
    strong_start: float = 1e-3,
    weak_start: float | None = 1e-3,
) -> Mapping[str, Float[np.ndarray, "t n"]]:
    """Iterate the map for many effective steps and feature ratios, in one compiled program.

    Parameters
    ----------
    strong_step, ratio
        ``eta_v`` and ``k`` of each member.
    record_steps
        Numbers of visits after which to record, nondecreasing. Record consecutive ones: every second visit sees one
        branch of a 2-cycle only.
    strong_start
        ``A_0``; at the unstable fixed point 1 nothing would oscillate.
    weak_start
        ``B_0``, or None for a weak feature so small that it changes no residual; ``log_weak`` then counts from zero.

    Returns
    -------
    Mapping of ``strong`` (A), ``log_weak`` (ln B), ``residual_sum`` and ``square_sum`` to arrays ``(t, n)``.

    Raises
    ------
    ValueError
        If a start is not positive, or ``strong_start`` is a fixed point.
    """
    if not (strong_start > 0 and strong_start != 1) or not (weak_start is None or weak_start > 0):
        raise ValueError(
            f"starts must be positive and the strong one not the fixed point 1, got {strong_start} and {weak_start}"
        )
    strong_step, ratio = (np.asarray(a, np.float64) for a in (strong_step, ratio))
    n = strong_step.size
    state = {
        "amplitude": np.full(n, np.sqrt(strong_start)),
        "log_weak": np.full(n, 0.0 if weak_start is None else np.log(weak_start)),
        "residual_sum": np.zeros(n),
        "square_sum": np.zeros(n),
    }
    shared = {"weak_acts": np.float64(weak_start is not None)}
    own = {"strong_step": strong_step, "weak_step": ratio * strong_step}
    # the keys are placeholders: the map draws nothing
    records, _ = evolve(FeatureMap(), observe, state, member_keys(0, "map", 0, n), shared, record_steps, own)
    return records
