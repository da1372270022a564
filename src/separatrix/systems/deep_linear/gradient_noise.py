"""Mean and covariance of the per-sample gradients of a deep linear network, in closed form.

Setting (Corlouer et al. 2026, arXiv 2604.06366, section 2 and appendix B): ``W = W_L ... W_1``, data ``y = M x +
label_noise z``, loss ``|y - W x|^2 / 2`` per sample, ``E = M - W``. The gradient of layer l is ``G_l = -(A_l^T e_x)(B_l
x)^T`` with ``A_l = W_L..W_{l+1}``, ``B_l = W_{l-1}..W_1`` and ``e_x = E x + label_noise z``. For Gaussian inputs the
fourth moments split into pairs, and everything follows from E, the input covariance and the partial products.

Every function takes NumPy, JAX (traced or not) or PyTorch arrays and returns the same kind, with any leading batch
axes; the label noise is a number, or an array of these axes with one for each network. Covariances are those of one
sample: multiply by :func:`batch_factor` for a mini-batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

Weights = Sequence[Any]  # W_1, ..., W_L, each (..., d_l, d_{l-1})


@dataclass(frozen=True)
class InputLaw:
    """Second and fourth moments of a centred elliptical input.

    Attributes
    ----------
    covariance
        ``(d_0, d_0)``, or None for whitened inputs.
    kurtosis
        ``E|x|^4 / (d_0 (d_0 + 2))`` of the whitened input: 1 for a Gaussian, ``d_0 / (d_0 + 2)`` on a sphere, above 1
        for heavy tails.
    """

    covariance: Any = None
    kurtosis: float = 1.0

    def colour(self, matrix: Any) -> Any:
        """``matrix @ covariance``."""
        return matrix if self.covariance is None else matrix @ self.covariance


GAUSSIAN = InputLaw()


def layer_product(weights: Weights) -> Any:
    """``W = W_L ... W_1``, shape ``(..., d_L, d_0)``."""
    product = weights[0]
    for w in weights[1:]:
        product = w @ product
    return product


def partial_products(weights: Weights) -> tuple[list[Any], list[Any]]:
    """``A_l = W_L..W_{l+1}`` ``(..., d_L, d_l)`` and ``B_l = W_{l-1}..W_1`` ``(..., d_{l-1}, d_0)`` for l = 1..L."""
    xp = array_namespace(*weights)
    identity = lambda d, like: xp.eye(d, dtype=like.dtype)  # noqa: E731
    behind = [identity(weights[0].shape[-1], weights[0])]
    for w in weights[:-1]:
        behind.append(w @ behind[-1])
    ahead = [identity(weights[-1].shape[-2], weights[-1])]
    for w in reversed(weights[1:]):
        ahead.append(ahead[-1] @ w)
    return ahead[::-1], behind


def mean_gradient(weights: Weights, teacher: Any, inputs: InputLaw = GAUSSIAN) -> list[Any]:
    """Gradient of the population loss, ``-A_l^T E C B_l^T`` for each layer, shape ``(..., d_l, d_{l-1})``."""
    ahead, behind = partial_products(weights)
    residual = inputs.colour(teacher - layer_product(weights))
    return [-(a.mT @ residual @ b.mT) for a, b in zip(ahead, behind, strict=True)]


def gradient_covariance(
    weights: Weights, teacher: Any, label_noise: Any, layer: int, other: int, inputs: InputLaw = GAUSSIAN
) -> Any:
    """Covariance of the one-sample gradients of two layers (numbered from 1), cross-layer blocks included.

    ``Cov(G_l[i,j], G_m[k,p]) = (A_l^T Q A_m)[i,k] (B_l C B_m^T)[j,p] + (A_l^T EC B_m^T)[i,p] (A_m^T EC B_l^T)[k,j]``
    with ``Q = E C E^T + label_noise^2``; for elliptical inputs of kurtosis rho, the two Gaussian terms carry rho and
    ``(rho - 1) mean_l[i,j] mean_m[k,p]`` is added.

    Returns
    -------
    Array ``(..., d_l, d_{l-1}, d_m, d_{m-1})``.
    """
    depth = len(weights)
    if not (1 <= layer <= depth and 1 <= other <= depth):
        raise ValueError(f"layers must lie between 1 and {depth}, got {layer} and {other}")
    ahead, behind = partial_products(weights)
    a_l, a_m, b_l, b_m = ahead[layer - 1], ahead[other - 1], behind[layer - 1], behind[other - 1]
    residual = teacher - layer_product(weights)
    coloured, rho = inputs.colour(residual), inputs.kurtosis
    out = a_l.mT @ (rho * (coloured @ residual.mT)) @ a_m + per_network(label_noise, 2) ** 2 * (a_l.mT @ a_m)
    back = inputs.colour(b_l) @ b_m.mT
    cross_l, cross_m = a_l.mT @ coloured @ b_m.mT, a_m.mT @ coloured @ b_l.mT
    covariance = out[..., :, None, :, None] * back[..., None, :, None, :]
    covariance = covariance + rho * cross_l[..., :, None, None, :] * cross_m.mT[..., None, :, :, None]
    if rho == 1:
        return covariance
    mean_l, mean_m = a_l.mT @ coloured @ b_l.mT, a_m.mT @ coloured @ b_m.mT
    return covariance + (rho - 1) * mean_l[..., :, :, None, None] * mean_m[..., None, None, :, :]


def noise_traces(weights: Weights, teacher: Any, label_noise: Any, inputs: InputLaw = GAUSSIAN) -> Any:
    """Trace of the one-sample gradient covariance of each layer, shape ``(..., L)``: the scalar "diffusion".

    ``tr Sigma_l = tr(A_l^T Q A_l) tr(B_l C B_l^T) + |A_l^T E C B_l^T|^2``, without sampling.
    """
    ahead, behind = partial_products(weights)
    xp = array_namespace(*weights)
    residual = teacher - layer_product(weights)
    coloured, rho = inputs.colour(residual), inputs.kurtosis
    traces = []
    for a, b in zip(ahead, behind, strict=True):
        signal = _sum2(xp, (a.mT @ coloured) * (a.mT @ residual))
        back = _sum2(xp, inputs.colour(b) * b)
        mean = a.mT @ coloured @ b.mT
        error = rho * signal + label_noise**2 * _sum2(xp, a * a)
        traces.append(error * back + (2 * rho - 1) * _sum2(xp, mean * mean))
    return xp.stack(xp.broadcast_arrays(*traces), axis=-1)


def product_gradient_covariance(residual: Any, label_noise: Any, inputs: InputLaw = GAUSSIAN) -> Any:
    """Covariance of ``g = -e_x x^T``, the one-sample gradient with respect to the product W.

    ``Cov(g[i,j], g[k,p]) = rho [(E C E^T)[i,k] C[j,p] + (EC)[i,p] (EC)[k,j]] + label_noise^2 delta_ik C[j,p]
    + (rho - 1) (EC)[i,j] (EC)[k,p]``. Shape ``(..., d_L, d_0, d_L, d_0)``.
    """
    xp = array_namespace(residual)
    d_out, d_in = residual.shape[-2:]
    covariance = xp.eye(d_in, dtype=residual.dtype) if inputs.covariance is None else inputs.covariance
    coloured, rho = inputs.colour(residual), inputs.kurtosis
    out = rho * (coloured @ residual.mT) + per_network(label_noise, 2) ** 2 * xp.eye(d_out, dtype=residual.dtype)
    total = out[..., :, None, :, None] * covariance[None, :, None, :]
    total = total + rho * coloured[..., :, None, None, :] * coloured.mT[..., None, :, :, None]
    return total + (rho - 1) * coloured[..., :, :, None, None] * coloured[..., None, None, :, :]


def batch_factor(batch_size: int, samples: int | None = None, replacement: bool = True) -> float:
    """Factor that turns a one-sample covariance into that of a mini-batch mean.

    ``1/B`` for fresh samples or draws with replacement; ``(N - B) / (B (N - 1))`` without, from ``samples`` = N points.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if samples is None or replacement:
        return 1 / batch_size
    if batch_size > samples:
        raise ValueError(f"batch_size must be at most the {samples} samples when drawn without replacement, got {batch_size}")  # fmt: skip  # noqa: E501
    return (samples - batch_size) / (batch_size * max(samples - 1, 1))


def per_network(value: Any, axes: int) -> Any:
    """A number, or one for each network ``(...)``, with ``axes`` trailing axes of length one to multiply matrices."""
    return value[(..., *(None,) * axes)] if getattr(value, "ndim", 0) else value


def _sum2(xp: Any, a: Any) -> Any:
    return xp.sum(a, axis=(-2, -1))
