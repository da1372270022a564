"""The curvature that a perturbation meets: extreme eigenvalues of the Hessians of mini-batches and of all samples.

The probes of :mod:`separatrix.probes.stability` stop on a residual and talk to the host after every product. Here a
fixed number of Lanczos steps is one compiled program for many states at once, and the residuals are recorded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from separatrix.engines.parallel_runs import advance

#: Samples whose Hessians are added one after the other, so that memory does not grow with the training set.
CHUNK = 64
#: Mini-batches measured at each state: those of the next steps.
BATCHES = 8
#: Samples that stand for the whole training set where it is larger: the first ones.
MOST_SAMPLES = 2048
#: Lanczos steps for a mini-batch, whose spectrum has few large eigenvalues, and for all samples.
BATCH_STEPS, FULL_STEPS = 8, 10

Parameters = Any
#: ``loss(parameters, rows, arguments)``: mean over the samples with these numbers.
Loss = Callable[[Parameters, Int[Array, " b"], Mapping[str, Array]], Array]


def lanczos(
    product: Callable[[Float[Array, " p"]], Float[Array, " p"]], start: Float[Array, " p"], steps: int
) -> tuple[Float[Array, " m"], Float[Array, " m"], Float[Array, ""]]:
    """Ritz values of a symmetric matrix after a fixed number of steps, fully re-orthogonalised and traceable.

    Parameters
    ----------
    product
        Multiplies the matrix with a vector.
    start
        First vector, ``(p,)``, of any length but zero.
    steps
        m, at most p.

    Returns
    -------
    values, residuals, rayleigh
        Ritz values in ascending order; for each the norm of the residual, within which an eigenvalue lies; and
        ``start . A start / start . start``.
    """
    first = start / jnp.linalg.norm(start)

    def one(index: Array, carry: tuple) -> tuple:
        vector, basis, diagonal, coupling = carry
        basis = basis.at[index].set(vector)
        after = product(vector)
        diagonal = diagonal.at[index].set(vector @ after)
        for _ in range(2):  # twice is enough (Parlett)
            after = after - (basis @ after) @ basis
        norm = jnp.linalg.norm(after)
        return after / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny), basis, diagonal, coupling.at[index].set(norm)

    zeros = jnp.zeros(steps, first.dtype)
    carry = first, jnp.zeros((steps, first.size), first.dtype), zeros, zeros
    _, _, diagonal, coupling = jax.lax.fori_loop(0, steps, one, carry)
    values, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(coupling[:-1], 1) + jnp.diag(coupling[:-1], -1))
    return values, coupling[-1] * jnp.abs(vectors[-1]), diagonal[0]


def hessian_product(
    loss: Loss, parameters: Parameters, rows: Int[Array, " b"], arguments: Mapping[str, Array], chunk: int | None
) -> Callable[[Float[Array, " p"]], Float[Array, " p"]]:
    """Product with the Hessian of the mean loss over ``rows``, ``chunk`` of them at a time (all at once: None)."""
    flat, unravel = ravel_pytree(parameters)
    size = len(rows) if chunk is None else min(chunk, len(rows))
    whole, rest = jnp.split(rows, [len(rows) // size * size])

    def weighted(part: Int[Array, " c"], vector: Float[Array, " p"]) -> Float[Array, " p"]:
        gradient = jax.grad(lambda p: loss(unravel(p), part, arguments))
        return len(part) / len(rows) * jax.jvp(gradient, (flat,), (vector,))[1]

    def product(vector: Float[Array, " p"]) -> Float[Array, " p"]:
        total = jnp.sum(jax.lax.map(lambda part: weighted(part, vector), whole.reshape(-1, size)), axis=0)
        return total + weighted(rest, vector) if len(rest) else total

    return product


@dataclass(frozen=True)
class CurvatureStep:
    """A step of :func:`separatrix.engines.parallel_runs.advance` that moves nothing and measures a batch.

    The state is the parameters and a queue ``(k, 5)``, whose last row becomes what is found: smallest and largest
    eigenvalue of the batch's Hessian, their residuals, and the curvature along the gradient ``g . H g / g . g``. The
    gradient is also the first Lanczos vector, since most of it lies along the sharpest directions.

    Attributes
    ----------
    loss
        Mean over the samples of a batch.
    steps
        Lanczos steps.
    chunk
        Samples at a time; None where the loss of one depends on the others (batch normalisation).
    """

    loss: Loss
    steps: int
    chunk: int | None = CHUNK

    def __call__(
        self, state: tuple[Parameters, Float[Array, "k 5"]], batch: Int[Array, " b"], arguments: Mapping[str, Array]
    ) -> tuple[Parameters, Float[Array, "k 5"]]:
        """The same parameters and the queue with what was found."""
        parameters, queue = state
        product = hessian_product(self.loss, parameters, batch, arguments, self.chunk)
        slope = ravel_pytree(jax.grad(self.loss)(parameters, batch, arguments))[0]
        values, residuals, along = lanczos(product, slope, self.steps)
        found = jnp.stack([values[0], values[-1], residuals[0], residuals[-1], along])
        return parameters, jnp.concatenate([queue[1:], found[None].astype(queue.dtype)])


def curvature_course(
    loss: Loss, states: Sequence[Parameters], batches: Sequence[Int[np.ndarray, "n k b"]], samples: int,
    arguments: Mapping[str, np.ndarray], separable: bool = True,
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:  # fmt: skip
    """Curvature along n runs at t checkpoints, as variables of a data set with dimensions member, step and batch.

    ``mini_batch_sharpness``, ``mini_batch_lowest``: largest and smallest eigenvalue of the Hessian of each batch;
    ``batch_sharpness``: mean over them of the curvature along their own gradients, as
    :func:`separatrix.probes.stability.batch_sharpness` defines it; ``sharpness``, ``lowest_curvature``: of all samples
    (at most :data:`MOST_SAMPLES`); ``curvature_residual``: the largest residual of these eigenvalues relative to the
    largest eigenvalue of the same Hessian.

    Parameters
    ----------
    loss
        Mean over the samples of a batch.
    states
        Parameters of the runs at each checkpoint, leaves ``(n, ...)``.
    batches
        Batches to measure at each checkpoint.
    samples
        Of the training set, N.
    arguments
        Of the loss.
    separable
        Whether the loss of a sample does not depend on the others of its batch.
    """
    shape = len(states), len(batches[0])
    together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *states)
    chunk = CHUNK if separable else None

    def measured(steps: int, each: Int[np.ndarray, "m k b"]) -> Float[np.ndarray, "n t k 5"]:
        queue = np.zeros((*each.shape[:2], 5), jax.tree.leaves(together)[0].dtype)
        found = advance(CurvatureStep(loss, steps, chunk), (together, queue), each, (arguments,))[1]
        return np.swapaxes(found.reshape(*shape, *queue.shape[1:]), 0, 1)

    everything = np.arange(min(samples, MOST_SAMPLES), dtype=np.int32)
    small = measured(BATCH_STEPS, np.concatenate(batches))
    full = measured(FULL_STEPS, np.broadcast_to(everything, (shape[0] * shape[1], 1, everything.size)))[:, :, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        residuals = [np.max(each[..., 2:4], axis=-1) / np.max(np.abs(each[..., :2]), axis=-1) for each in (small, full)]
    times = ("member", "step")
    return {
        "mini_batch_sharpness": ((*times, "batch"), small[..., 1]),
        "mini_batch_lowest": ((*times, "batch"), small[..., 0]),
        "batch_sharpness": (times, small[..., 4].mean(axis=-1)),
        "sharpness": (times, full[..., 1]),
        "lowest_curvature": (times, full[..., 0]),
        "curvature_residual": (times, np.maximum(residuals[0].max(axis=-1), residuals[1])),
    }
