"""Gradient noise of a fixed data set: the exact empirical moments over its N points.

The counterparts of :mod:`gradient_noise` and :mod:`modewise` when the batches are drawn from ``inputs`` ``(N, d_0)``
and ``outputs`` ``(N, d_L)`` instead of a Gaussian law. All moments are those of one sample drawn uniformly; multiply by
:func:`separatrix.systems.deep_linear.gradient_noise.batch_factor`. Arrays of any kind, leading batch axes on the
weights allowed. Derived here.
"""

import functools
import operator
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from separatrix.systems.deep_linear.gradient_noise import Weights, layer_product, partial_products


def dataset_mean_gradient(weights: Weights, inputs: Any, outputs: Any) -> list[Any]:
    """Gradient of the training loss ``mean |y - W x|^2 / 2`` for each layer, ``(..., d_l, d_{l-1})``."""
    ahead, behind = partial_products(weights)
    samples = inputs.shape[0]
    residual = outputs - inputs @ layer_product(weights).mT
    return [-((residual @ a).mT @ (inputs @ b.mT)) / samples for a, b in zip(ahead, behind, strict=True)]


def dataset_gradient_covariance(weights: Weights, inputs: Any, outputs: Any, layer: int, other: int) -> Any:
    """Covariance over the data set of the gradients of two layers (from 1), ``(d_l, d_{l-1}, d_m, d_{m-1})``.

    For weights without batch axes. Memory O(N d_l d_{l-1}).

    Raises
    ------
    ValueError
        If a layer number is not between 1 and L.
    """
    if not (1 <= layer <= len(weights) and 1 <= other <= len(weights)):
        raise ValueError(f"layers must lie between 1 and {len(weights)}, got {layer} and {other}")
    ahead, behind = partial_products(weights)
    samples = inputs.shape[0]
    residual = outputs - inputs @ layer_product(weights).mT
    flat = []
    for l in (layer - 1, other - 1):  # noqa: E741
        g = -(residual @ ahead[l])[:, :, None] * (inputs @ behind[l].mT)[:, None, :]
        flat.append((g - g.mean(axis=0)).reshape(samples, -1))
    shapes = [weights[l - 1].shape[-2:] for l in (layer, other)]  # noqa: E741
    return (flat[0].mT @ flat[1] / samples).reshape(*shapes[0], *shapes[1])


def dataset_noise_traces(weights: Weights, inputs: Any, outputs: Any) -> Any:
    """Trace of the one-sample gradient covariance of each layer over the data set, ``(..., L)``."""
    xp = array_namespace(*weights)
    ahead, behind = partial_products(weights)
    residual = outputs - inputs @ layer_product(weights).mT
    means = dataset_mean_gradient(weights, inputs, outputs)
    traces = []
    for a, b, mean in zip(ahead, behind, means, strict=True):
        error, hidden = residual @ a, inputs @ b.mT
        second = xp.mean(xp.sum(error * error, axis=-1) * xp.sum(hidden * hidden, axis=-1), axis=-1)
        traces.append(second - xp.sum(mean * mean, axis=(-2, -1)))
    return xp.stack(traces, axis=-1)


def dataset_mode_diffusion(weights: Weights, inputs: Any, outputs: Any, left: Any, right: Any) -> tuple[Any, Any]:
    """Gradient-flow speed and variance rate of the diagonal mode strengths ``w_aa`` on the data set.

    Sample i moves ``w_aa`` at rate ``f_i = sum_l (u_a^T P_l e_i)(x_i^T R_l v_a)``; its mean over the data set is the
    flow and its variance is ``S_aa`` of :func:`separatrix.systems.deep_linear.modewise.mode_moments`.

    Returns
    -------
    flow, variance_rate
        Both ``(..., r)``.
    """
    xp = array_namespace(*weights)
    ahead, behind = partial_products(weights)
    residual = outputs - inputs @ layer_product(weights).mT
    rate = sum(
        (residual @ (a @ (a.mT @ left))) * (inputs @ (b.mT @ (b @ right))) for a, b in zip(ahead, behind, strict=True)
    )
    flow = xp.mean(rate, axis=-2)
    return flow, xp.mean((rate - flow[..., None, :]) ** 2, axis=-2)


class FourthMoments(NamedTuple):
    """Moments of a data set from which its gradient noise follows at any weights, at a cost that does not grow with N.

    With ``z = (x, y - M x)`` of dimension ``D = d_0 + d_L`` every per-sample quantity here is a quadratic form in z.

    Attributes
    ----------
    covariance
        Covariance over the data set of the products ``z_a z_b``, a <= b, ``(p, p)`` with ``p = D (D + 1) / 2``.
    """

    covariance: Any


def fourth_moments(inputs: Any, outputs: Any, teacher: Any, chunk: int = 4096) -> FourthMoments:
    """:class:`FourthMoments` of a data set, NumPy arrays; memory O(p^2 + chunk p).

    ``teacher`` ``(d_L, d_0)`` only centres the outputs: near it no digits cancel.
    """
    z = np.concatenate([inputs, outputs - inputs @ teacher.T], axis=1)
    rows, columns = np.triu_indices(z.shape[1])
    mean = (z.T @ z / len(z))[rows, columns]
    covariance = np.zeros((rows.size, rows.size))
    for start in range(0, len(z), chunk):
        part = z[start : start + chunk]
        products = part[:, rows] * part[:, columns] - mean
        covariance += products.T @ products
    return FourthMoments(covariance / len(z))


def mode_diffusion_from_moments(weights: Weights, teacher: Any, moments: FourthMoments, left: Any, right: Any) -> Any:
    """The variance rate of :func:`dataset_mode_diffusion` from the moments of the data set, ``(..., r)``."""
    xp = array_namespace(*weights)
    ahead, behind = partial_products(weights)
    residual = teacher - layer_product(weights)
    d_out, d_in = residual.shape[-2:]
    # Sample i moves w_aa by z_i^T F_a z_i with F_a = sum_l (E^T P_l u_a, P_l u_a) (R_l v_a, 0)^T.
    above = [a @ (a.mT @ left) for a in ahead]
    below = [b.mT @ (b @ right) for b in behind]
    stacked = [xp.concat([residual.mT @ u, u], axis=-2) for u in xp.broadcast_arrays(*above)]
    layers = [u.mT[..., :, None] * v.mT[..., None, :] for u, v in zip(stacked, below, strict=True)]
    forms = functools.reduce(operator.add, layers)  # (..., r, D, d_0)
    rows, columns = np.triu_indices(d_in + d_out)
    # The entry for z_a z_b collects F_ab and F_ba; F has no columns beyond d_0.
    whole = xp.concat([forms, 0 * xp.broadcast_to(forms[..., :1], (*forms.shape[:-1], d_out))], axis=-1)
    upper, lower = whole[..., rows, columns], whole[..., columns, rows]
    coefficients = xp.where(xp.asarray(rows != columns), upper + lower, upper)
    return xp.sum((coefficients @ moments.covariance) * coefficients, axis=-1)
