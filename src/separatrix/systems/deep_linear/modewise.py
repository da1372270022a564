"""Drift and diffusion of the mode strengths ``w_ab = u_a^T W v_b`` at any weights, without alignment or balance.

A gradient g with respect to the product moves it by ``dW = -sum_l P_l g R_l dt`` with ``P_l = A_l A_l^T`` and
``R_l = B_l^T B_l`` (the covariance C of the inputs enters through g alone: its mean is ``-E C``), plus the Ito term of
the products of two layers' noises, of order learning_rate / batch_size. Exact for the Langevin equation with the full
gradient covariance; Corlouer et al. 2026 (arXiv 2604.06366) prop. 3.3 is the statement for depth L; the matrix form is
derived here. Arrays as in :mod:`separatrix.systems.deep_linear.gradient_noise`.
"""

from typing import Any, NamedTuple

from array_api_compat import array_namespace

from separatrix.systems.deep_linear.gradient_noise import (
    GAUSSIAN,
    InputLaw,
    Weights,
    layer_product,
    partial_products,
    per_network,
)


class ModeMoments(NamedTuple):
    """Drift and diffusion of every mode strength, per unit of gradient-flow time.

    Attributes
    ----------
    strength
        ``w_ab``, ``(..., r, r)``.
    flow
        Gradient-flow speed of ``w_ab``, ``(..., r, r)``.
    ito
        Ito correction: the drift of the Langevin equation is ``flow + (learning_rate / batch_size) * ito``.
    variance_rate
        ``S_ab``: the variance of ``w_ab`` grows at rate ``(learning_rate / batch_size) S_ab = 2 D_ab``.
    """

    strength: Any
    flow: Any
    ito: Any
    variance_rate: Any


def mode_moments(
    weights: Weights, teacher: Any, left: Any, right: Any, label_noise: Any, inputs: InputLaw = GAUSSIAN
) -> ModeMoments:
    """Exact :class:`ModeMoments` at the given weights; cost O(L^2 d^3), no sampling.

    Parameters
    ----------
    weights
        ``W_1..W_L``, each ``(..., d_l, d_{l-1})``.
    teacher
        ``M``, ``(d_L, d_0)``.
    left, right
        Directions ``u_a`` and ``v_b`` as columns, ``(d_L, r)`` and ``(d_0, r)``.
    label_noise
        Standard deviation of the label noise, a number or one for each network, ``(...)``.
    inputs
        Law of the inputs; whitened Gaussian by default.
    """
    xp = array_namespace(*weights)
    ahead, behind = partial_products(weights)
    depth = len(weights)
    product = layer_product(weights)
    residual = teacher - product
    coloured, rho = inputs.colour(residual), inputs.kurtosis
    q_matrix = rho * (coloured @ residual.mT)
    out_frames = [a @ (a.mT @ left) for a in ahead]  # P_l u_a
    back_frames = [b.mT @ (b @ right) for b in behind]  # B_l^T B_l v_b
    seen = [coloured @ v for v in back_frames]
    flow = sum(u.mT @ ev for u, ev in zip(out_frames, seen, strict=True))

    # Sums over pairs of layers (l, m), both layers stacked on axes of their own.
    out_stack, back_stack, seen_stack = (
        xp.stack(xp.broadcast_arrays(*frames), axis=-3) for frames in (out_frames, back_frames, seen)
    )
    noisy_stack = q_matrix[..., None, :, :] @ out_stack + per_network(label_noise, 3) ** 2 * out_stack
    coloured_stack = inputs.colour(back_stack.mT).mT
    pairs = lambda f, g: xp.moveaxis(f, -1, -3) @ xp.moveaxis(g, -1, -3).mT  # noqa: E731  (..., r, L, L)
    out, back = pairs(out_stack, noisy_stack), pairs(back_stack, coloured_stack)
    flat = lambda p: xp.reshape(p, (*p.shape[:-2], depth * depth))  # noqa: E731
    cross = out_stack.mT[..., :, None, :, :] @ seen_stack[..., None, :, :, :]  # u_a^T P_l E C R_m v_b
    swapped = xp.moveaxis(cross, -4, -3)
    variance_rate = flat(out) @ flat(back).mT + rho * xp.sum(cross * swapped, axis=(-4, -3))
    if rho != 1:
        variance_rate = variance_rate + (rho - 1) * flow * flow

    ito = 0 * flow
    for l in range(depth - 1):  # noqa: E741
        between = None  # W_{m-1} ... W_{l+1}
        for m in range(l + 1, depth):
            inner = ahead[l].mT if between is None else between @ ahead[l].mT
            z = behind[m].mT @ inner  # B_m^T (W_{m-1}..W_{l+1}) A_l^T, (d_0, d_L)
            z_back = inputs.colour(z.mT) @ back_frames[l]
            kick = q_matrix @ z_back + per_network(label_noise, 2) ** 2 * z_back
            kick = kick + rho * _trace(xp, z @ coloured)[..., None, None] * seen[l]
            if rho != 1:
                kick = kick + (rho - 1) * (coloured @ (z @ seen[l]))
            ito = ito + out_frames[m].mT @ kick
            between = weights[m] if between is None else weights[m] @ between
    return ModeMoments(left.mT @ product @ right, flow, ito, variance_rate)


def _trace(xp: Any, a: Any) -> Any:
    return xp.sum(a * xp.eye(a.shape[-1], dtype=a.dtype), axis=(-2, -1))
