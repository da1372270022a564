"""What a network, linear or not, has learned of each singular mode of its data: the modes of its own correlation."""

from dataclasses import dataclass
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from separatrix.engines.ensemble import Arguments, State
from separatrix.engines.lanes import outer_product, product
from separatrix.systems.deep_linear.network_simulation import Activation, batch, network_output


@dataclass(frozen=True)
class ResponseObserver:
    """Records the modes of the correlation between inputs and outputs of the network, and the loss.

    For a linear network on inputs of covariance ``c I`` the strength is ``c u_a^T W v_a``, which tends to ``s_a``.
    Arguments: ``inputs`` ``(N, d_0)``, ``outputs`` ``(N, d_L)`` and the singular vectors of their correlation,
    ``right`` ``(d_0, r)`` and ``left`` ``(d_L, r)``.
    """

    activation: Activation = "linear"

    def __call__(self, state: State, arguments: Arguments) -> dict[str, Array]:
        """``strength``, ``(r, n)``: ``u_a^T <f(x) x^T> v_a``; ``loss``, ``(n,)``: ``<|y - f(x)|^2> / 2``."""
        x, y = batch(state, arguments)
        output = network_output(state, x, self.activation)
        left, right = (jnp.asarray(arguments[name], x.dtype) for name in ("left", "right"))
        members, samples = x.shape[-1], x.shape[1]
        inward = jnp.broadcast_to((right.T @ x[..., 0])[..., None], (right.shape[1], samples, members))
        outward = product(jnp.broadcast_to(left.T[..., None], (*left.T.shape, members)), output)
        squares = jnp.sum((y - output) ** 2, axis=0)[None]
        # Sums over samples run in one order whatever the number of members, unlike those of a reduction.
        return {
            "strength": jnp.diagonal(outer_product(outward, inward), axis1=0, axis2=1).T / samples,
            "loss": 0.5 * outer_product(squares, jnp.ones_like(squares))[0, 0] / samples,
        }


def tied_groups(singular_values: Float[np.ndarray, " r"], gap: float = 1e-6) -> list[slice]:
    """Runs of equal singular values, equal within ``gap`` of the largest: only their subspace is determined.

    Parameters
    ----------
    singular_values
        Decreasing.
    gap
        Relative.
    """
    s = np.asarray(singular_values, np.float64)
    starts = [0, *(np.flatnonzero(-np.diff(s) > gap * s[0]) + 1), s.size]
    return [slice(int(first), int(last)) for first, last in pairwise(starts)]


def group_means(values: Float[np.ndarray, "... r"], groups: list[slice]) -> Float[np.ndarray, "... g"]:
    """Mean over each group of modes, the last axis: the trace over its subspace does not depend on the vectors."""
    return np.stack([values[..., group].mean(axis=-1) for group in groups], axis=-1)
