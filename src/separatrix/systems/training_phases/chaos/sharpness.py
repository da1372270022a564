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


def mean_over_chunks(
    function: Callable[[Int[Array, " c"]], Any], rows: Int[Array, " b"], chunk: int | None
) -> Any:  # fmt: skip
    """Mean over ``rows`` of a function that is a mean over its own, evaluated on ``chunk`` at a time (None: on all)."""
    size = len(rows) if chunk is None else min(chunk, len(rows))
    whole, rest = jnp.split(rows, [len(rows) // size * size])

    def added(total: Any, part: Int[Array, " c"]) -> tuple[Any, None]:
        share = len(part) / len(rows)
        return jax.tree.map(lambda so_far, mean: so_far + share * mean, total, function(part)), None

    zero = jax.tree.map(lambda mean: jnp.zeros(mean.shape, mean.dtype), jax.eval_shape(function, rows[:size]))
    total, _ = jax.lax.scan(added, zero, whole.reshape(-1, size))
    return added(total, rest)[0] if len(rest) else total


@dataclass(frozen=True)
class CurvatureStep:
    """A step of :func:`separatrix.engines.parallel_runs.advance` that moves nothing and measures a batch.

    The state is the parameters and a queue ``(k, 4)``, whose last row becomes what is found: largest eigenvalue of the
    batch's Hessian with its residual, smallest Ritz value (which the smallest eigenvalue does not exceed), and
    the curvature along the gradient ``g . H g / g . g``. The gradient is also the first Lanczos vector, since most of
    it lies along the sharpest directions.

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
        self, state: tuple[Parameters, Float[Array, "k 4"]], batch: Int[Array, " b"], arguments: Mapping[str, Array]
    ) -> tuple[Parameters, Float[Array, "k 4"]]:
        """The same parameters and the queue with what was found."""
        parameters, queue = state
        flat, unravel = ravel_pytree(parameters)
        slope = lambda p, rows: jax.grad(lambda q: self.loss(unravel(q), rows, arguments))(p)  # noqa: E731
        mean = lambda function: mean_over_chunks(function, batch, self.chunk)  # noqa: E731
        values, residuals, along = lanczos(
            lambda vector: mean(lambda rows: jax.jvp(lambda p: slope(p, rows), (flat,), (vector,))[1]),
            mean(lambda rows: slope(flat, rows)),
            self.steps,
        )
        found = jnp.stack([values[-1], residuals[-1], values[0], along])
        return parameters, jnp.concatenate([queue[1:], found[None].astype(queue.dtype)])


def curvature_course(
    loss: Loss, states: Sequence[Parameters], batches: Sequence[Int[np.ndarray, "n k b"]], samples: int,
    arguments: Mapping[str, np.ndarray], chunk: int | None = CHUNK,
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:  # fmt: skip
    """Curvature along n runs at t checkpoints, as variables of a data set with dimensions member, step and batch.

    ``mini_batch_sharpness``: largest eigenvalue of the Hessian of each batch; ``batch_sharpness``: mean over batches of
    the curvature along their own gradients, as :func:`separatrix.probes.stability.batch_sharpness` defines it;
    ``sharpness``: largest eigenvalue of all samples (at most :data:`MOST_SAMPLES`); ``lowest_curvature``: smallest Ritz
    value of all samples, which their smallest eigenvalue does not exceed; ``sharpness_residual``: the largest residual
    of the largest eigenvalues, relative to them.

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
    chunk
        As of :class:`CurvatureStep`.
    """
    shape = len(states), len(batches[0])
    together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *states)

    def measured(steps: int, each: Int[np.ndarray, "m k b"]) -> Float[np.ndarray, "n t k 4"]:
        queue = np.zeros((*each.shape[:2], 4), jax.tree.leaves(together)[0].dtype)
        found = advance(CurvatureStep(loss, steps, chunk), (together, queue), each, (arguments,))[1]
        return np.swapaxes(found.reshape(*shape, *queue.shape[1:]), 0, 1)

    everything = np.arange(min(samples, MOST_SAMPLES), dtype=np.int32)
    small = measured(BATCH_STEPS, np.concatenate(batches))
    full = measured(FULL_STEPS, np.broadcast_to(everything, (shape[0] * shape[1], 1, everything.size)))[:, :, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        residuals = [each[..., 1] / np.abs(each[..., 0]) for each in (small, full)]
    times = ("member", "step")
    return {
        "mini_batch_sharpness": ((*times, "batch"), small[..., 0]),
        "batch_sharpness": (times, small[..., 3].mean(axis=-1)),
        "sharpness": (times, full[..., 0]),
        "lowest_curvature": (times, full[..., 2]),
        "sharpness_residual": (times, np.maximum(residuals[0].max(axis=-1), residuals[1])),
    }
