"""The kernel without the kernel: products with probe vectors, for models whose Jacobian does not fit.

``K z = J (J^T z)`` costs one pass backward and one forward. With the same m random sign vectors for all checkpoints the
products ``A = K Z`` stand for the kernels: errors of numerator and denominators of a distance mostly cancel, and all
distances among T checkpoints cost ``T m`` products. :func:`estimated_distances` gives them with standard errors;
:func:`~.distance.distance_matrix` takes the products as they are, and gives the same distances. In JAX
:mod:`.jax_products` has the products of many examples in one compiled program.

Source: derived; the shared probes are a Hutchinson (1990) estimate of each Frobenius inner product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from separatrix.probes.operators import ModelOperators, ProbeError
from separatrix.probes.tangent_kernel.blocks import refuse_unknown
from separatrix.probes.tangent_kernel.contraction import Contraction


def sign_probes(shape: tuple[int, ...], count: int, seed: int | Sequence[int]) -> Float[np.ndarray, "m ..."]:
    """``count`` vectors of independent random signs, each of ``shape`` (that of the model's outputs)."""
    return np.random.default_rng([*np.atleast_1d(seed), 0x51]).choice([-1.0, 1.0], size=(count, *shape))


def kernel_products(model: ModelOperators, probes: Float[np.ndarray, "m ..."], together: int = 8) -> np.ndarray:
    """``K z`` for every probe vector, ``(m, *outputs)``.

    Parameters
    ----------
    model
        The model at one checkpoint.
    probes
        ``(m, *outputs)``: the same for all checkpoints (:func:`sign_probes`).
    together
        Products taken at once: more are faster until memory is short, about that of as many gradients of all outputs.

    Raises
    ------
    ValueError
        If probes have another shape than the outputs.
    """
    shape = tuple(model.outputs().shape)
    if probes.shape[1:] != shape:
        raise ValueError(f"probes have shape {probes.shape[1:]} each, but the outputs of the model have {shape}")
    parts = [model.vector(probes[start : start + together]) for start in range(0, len(probes), together)]
    return np.concatenate([np.asarray(model.jvp(model.vjp(part))) for part in parts])


def contracted_products(
    model: ModelOperators, probes: Float[np.ndarray, "m ..."], contraction: Contraction, together: int = 8
) -> np.ndarray:
    """The same for a kernel that is contracted over the outputs of a model, ``(N, C)``.

    Such a kernel is ``sum_e (I x e)^T J J^T (I x e)``, where e runs over ``C^-1/2`` times the unit vectors of the
    outputs (class-trace) or is ``C^-1/2 (1, ..., 1)`` alone (sum-of-logits): a product takes C of the full kernel's, or
    one.

    Parameters
    ----------
    model, together
        As of :func:`kernel_products`.
    probes
        ``(m, *outputs)`` for the full kernel, ``(m, N)`` for the others.
    contraction
        Which kernel.

    Returns
    -------
    As the probes.

    Raises
    ------
    ProbeError
        If it is no contraction, or outputs to be contracted are not ``(N, C)``.
    """
    refuse_unknown(contraction)
    if contraction == "full":
        return kernel_products(model, probes, together)
    shape = tuple(model.outputs().shape)
    if len(shape) != 2:
        raise ProbeError(f"a contraction over outputs needs those of shape (examples, classes), got {shape}")
    classes = shape[1]
    directions = np.ones((1, classes)) if contraction == "sum-of-logits" else np.eye(classes)
    parts = [kernel_products(model, probes[..., None] * e, together) @ e for e in directions]
    return sum(parts[1:], parts[0]) / classes


@dataclass(frozen=True)
class DistanceEstimate:
    """Kernel distance estimated from random vectors, with its standard error over them."""

    distance: float
    standard_error: float
    probes: int


def estimated_distance(first: Float[Any, "m ..."], second: Float[Any, "m ..."]) -> DistanceEstimate:
    """Kernel distance from the products of two kernels with the same m probes; its bias is of order ``S / m``.

    The standard error is that of a ratio (delta method) over the probes.

    Raises
    ------
    ValueError
        If shapes differ, there are fewer than two probes, or a kernel is zero or not finite.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(
            f"a distance needs products with the same two or more probes, got {np.shape(first)} and {np.shape(second)}"
        )
    distance, error = estimated_distances([first, second])
    return DistanceEstimate(float(distance[0, 1]), float(error[0, 1]), len(first))


def estimated_distances(
    products: Sequence[Float[Any, "m ..."]] | Float[np.ndarray, "t m ..."],
) -> tuple[Float[np.ndarray, "t t"], Float[np.ndarray, "t t"]]:
    """Kernel distances between all pairs of t kernels from products with the same m probes, and their standard errors.

    Each distance is that of :func:`estimated_distance`. Sums of squared differences are formed probe by probe in
    float64, so that small distances keep their digits and memory stays at that of the products.

    Raises
    ------
    ValueError
        If there are fewer than two kernels or probes, shapes differ, or a kernel is zero or not finite.
    """
    shapes = {np.shape(one) for one in products}
    if len(products) < 2 or len(shapes) > 1 or len(products[0]) < 2:
        raise ValueError(
            f"distances need products of two or more kernels with the same two or more probes, got {len(products)} "
            f"kernels and products of shape {', '.join(map(str, sorted(shapes)))}"
        )
    m = len(products[0])
    flat = [np.asarray(one).reshape(m, -1) for one in products]
    lengths = np.array([np.sqrt(np.sum(one.astype(np.float64) ** 2)) for one in flat])
    if not np.all(np.isfinite(lengths)) or lengths.min() == 0:
        raise ValueError("the products must be finite and not all zero")
    apart = np.empty((m, len(flat), len(flat)))  # what each probe adds to the distance
    weight = np.empty_like(apart)  # and to the norms
    for probe in range(m):
        units = np.stack([one[probe].astype(np.float64) for one in flat]) / lengths[:, None]
        apart[probe] = cdist(units, units, "sqeuclidean") / 2
        share = np.sum(units**2, axis=1)
        weight[probe] = (share[:, None] + share) / 2
    distance = apart.sum(axis=0)
    error = np.sqrt(m / (m - 1) * np.sum((apart - distance * weight) ** 2, axis=0))
    return distance, error


@dataclass(frozen=True)
class KernelSize:
    """Trace, Frobenius norm and effective rank ``tr(K)^2 / |K|^2``, with standard errors over the probes."""

    trace: float
    trace_error: float
    norm: float
    norm_error: float
    effective_rank: float
    effective_rank_error: float


def kernel_size(products: Float[Any, "m ..."], probes: Float[np.ndarray, "m ..."]) -> KernelSize:
    """Size of a kernel from its products with random signs (Hutchinson's estimates).

    Raises
    ------
    ValueError
        If shapes differ or there are fewer than two probes.
    """
    products = np.asarray(products, np.float64).reshape(len(products), -1)
    probes = probes.reshape(len(probes), -1)
    if products.shape != probes.shape or len(probes) < 2:
        raise ValueError(f"two or more products of one shape are needed, got {products.shape} for {probes.shape}")
    m = len(probes)
    traces, squares = np.sum(products * probes, axis=1), np.sum(products**2, axis=1)
    trace, norm = float(traces.mean()), float(np.sqrt(squares.mean()))
    # influence of a probe on the ratio (delta method)
    on_rank = 2 * trace / norm**2 * (traces - trace) - trace**2 / norm**4 * (squares - norm**2)
    return KernelSize(
        trace,
        float(traces.std(ddof=1) / np.sqrt(m)),
        norm,
        float(squares.std(ddof=1) / np.sqrt(m) / (2 * norm)),
        trace**2 / norm**2,
        float(on_rank.std(ddof=1) / np.sqrt(m)),
    )
