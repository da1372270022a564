"""Balance of adjacent layers, ``G = W_2^T W_2 - W_1 W_1^T``: kept by gradient flow, moved by noise. Derived here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp

from separatrix.systems.deep_linear.domain import check_nonnegative, check_positive


def scalar_imbalance_step(imbalance: Any, learning_rate: Any, gradient: Any) -> Any:
    """``a_1^2 - a_2^2`` after one step of a scalar two-layer network: ``imbalance (1 - learning_rate^2 gradient^2)``.

    ``gradient`` is the factor g in ``a_1 += learning_rate a_2 g``; exact.
    """
    return imbalance * (1 - learning_rate**2 * gradient**2)


def imbalance_increment(below: Any, above: Any, inputs: Any, error: Any, learning_rate: float) -> Any:
    """Exact change of ``above^T above - below below^T`` in one single-sample step.

    ``learning_rate^2 [ |r|^2 h h^T - |x|^2 (above^T r)(above^T r)^T ]`` with ``h = below @ x``; no first-order term.

    Parameters
    ----------
    below, above
        Adjacent layers ``(k, d)`` and ``(m, k)``.
    inputs
        What the lower layer sees, ``(d,)``.
    error
        The error r that drives the upper layer, ``(m,)``: for the last layer, ``y - W x``.
    learning_rate
        Step size.
    """
    hidden, back = below @ inputs, above.T @ error
    gain = (error @ error) * hidden[:, None] * hidden[None, :]
    return learning_rate**2 * (gain - (inputs @ inputs) * back[:, None] * back[None, :])


def imbalance_drift(below: Any, above: Any, label_noise: float, noise_scale: float) -> Any:
    """Mean rate of change of G at a solution with label noise, ``kappa sigma^2 (d_L W_1 W_1^T - d_0 W_2^T W_2)``."""
    d_out, d_in = above.shape[-2], below.shape[-1]
    return noise_scale * label_noise**2 * (d_out * (below @ below.T) - d_in * (above.T @ above))


def balance_time_course(
    time: float,
    singular_values: Sequence[float] | Float[np.ndarray, " r"],
    outputs: int,
    inputs: int,
    noise_scale: float,
    label_noise: float,
) -> tuple[float, float]:
    """``tr W_1 W_1^T`` and ``tr W_2^T W_2`` at ``time`` of a solution that was balanced at time 0.

    For a two-layer network whose hidden width equals the number of modes: each mode keeps ``|W_2 u|^2 |W_1 v|^2 = s^2``
    while its split follows :func:`imbalance_drift`; the ratio of the traces tends to ``outputs / inputs``.
    """
    s = np.asarray(singular_values, np.float64)
    check_positive(singular_values=s, outputs=outputs, inputs=inputs, noise_scale=noise_scale)
    check_nonnegative(time=time, label_noise=label_noise)

    def speed(_t: float, upper: np.ndarray) -> np.ndarray:
        lower = s**2 / upper
        return noise_scale * label_noise**2 * (outputs * lower - inputs * upper) / (1 + lower / upper)

    upper = s if time == 0 else solve_ivp(speed, (0, time), s, rtol=1e-10, atol=1e-12).y[:, -1]
    return float(np.sum(s**2 / upper)), float(np.sum(upper))
