"""Competition of the modes of a two-layer linear network: what the amplitudes do before they decouple.

With ``W_1 V = [a^1 a^2 ..]`` and the rows of ``U^T W_2`` equal to ``b^1, b^2, ..`` (vectors over the hidden units),
gradient flow drives each pair (a^k, b^k) to ``a^k . b^k = s_k`` and each a^k away from the b of all other modes.
Source: Saxe, McClelland, Ganguli 2014, arXiv 1312.6120, equations 4 to 6.
"""

import numpy as np
from jaxtyping import Float

from separatrix.systems.deep_linear.domain import check_nonnegative


def mode_competition_velocity(
    inputs: Float[np.ndarray, "h r"], outputs: Float[np.ndarray, "r h"], singular_values: Float[np.ndarray, " r"]
) -> tuple[Float[np.ndarray, "h r"], Float[np.ndarray, "r h"]]:
    """Rates of change of the modes' vectors under gradient flow.

    ``da^k/dt = (s_k - a^k.b^k) b^k - sum_{g != k} b^g (a^k.b^g)`` and
    ``db^k/dt = (s_k - a^k.b^k) a^k - sum_{g != k} a^g (b^k.a^g)``.

    Parameters
    ----------
    inputs
        ``W_1 V``: column k is a^k.
    outputs
        ``U^T W_2``: row k is b^k.
    singular_values
        ``(r,)``; directions without a mode have 0.

    Raises
    ------
    ValueError
        If the shapes do not match or a singular value is negative.
    """
    s = _checked(inputs, outputs, singular_values)
    missing = np.diag(s) - outputs @ inputs
    return outputs.T @ missing, missing @ inputs.T


def mode_competition_energy(
    inputs: Float[np.ndarray, "h r"], outputs: Float[np.ndarray, "r h"], singular_values: Float[np.ndarray, " r"]
) -> float:
    """``(1/2) sum_k (s_k - a^k.b^k)^2 + (1/2) sum_{k != g} (a^k.b^g)^2``: what the velocity descends.

    Raises
    ------
    ValueError
        If the shapes do not match or a singular value is negative.
    """
    s = _checked(inputs, outputs, singular_values)
    return 0.5 * float(np.sum((np.diag(s) - outputs @ inputs) ** 2))


def _checked(inputs: np.ndarray, outputs: np.ndarray, singular_values: np.ndarray) -> np.ndarray:
    s = np.asarray(singular_values, np.float64)
    check_nonnegative(singular_values=s)
    if s.ndim != 1 or inputs.ndim != 2 or outputs.shape != inputs.shape[::-1] or inputs.shape[1] != s.size:
        raise ValueError(
            f"inputs, outputs and singular_values must have shapes (h, r), (r, h) and (r,), got {inputs.shape}, "
            f"{outputs.shape} and {s.shape}"
        )
    return s
