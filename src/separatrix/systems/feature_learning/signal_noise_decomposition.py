"""Exact descent of the patch network in the coefficients of signal and noise; weights are never formed.

At every step ``w_jr(t) = w_jr(0) + j gamma_jr(t) mu / |mu|^2 + sum_i rho_jri(t) xi_i / |xi_i|^2`` with

    gamma_jr += -(eta/(n m)) |mu|^2  sum_i l'_i yt_i y_i 1[<w_jr, y_i mu> > 0],
    rho_jri  += -(eta/(n m)) |xi_i|^2 l'_i yt_i j        1[<w_jr, xi_i> > 0],

y and yt being true and observed labels and l' = -1 / (1 + exp(yt f)). Outputs need only products of the vectors mu and
xi_i with each other and with the initial weights: one step costs ``O(m n^2)``, whatever the dimension. The form is that
of Han et al. (ICML 2025, arXiv 2505.18909); the updates are derived here.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from separatrix.systems.feature_learning.patch_network import PatchData


class GramTask(NamedTuple):
    """What a run needs to know of its data; arrays (of NumPy or JAX), those of several runs stacked along a
    leading axis.

    Attributes
    ----------
    gram
        ``(n + 1, n + 1)``: products of mu, xi_1, ..., xi_n.
    start
        ``(2m, n + 1)``: products of the initial weights with them, filters of the output +1 first.
    true_labels, labels, weights
        ``(n,)``: true and observed labels, and the weight of each sample in the loss (1; 0 for one that is left out).
    fresh, fresh_start
        ``(n + 1, T)`` and ``(2m, T)``: products of the vectors and of the initial weights with fresh noise.
    fresh_labels, fresh_observed
        ``(T,)``: true labels of the fresh samples, and those flipped at the rates of the training set.
    """

    gram: Float[Array, "... v v"]
    start: Float[Array, "... f v"]
    true_labels: Float[Array, "... n"]
    labels: Float[Array, "... n"]
    weights: Float[Array, "... n"]
    fresh: Float[Array, "... v T"]
    fresh_start: Float[Array, "... f T"]
    fresh_labels: Float[Array, "... T"]
    fresh_observed: Float[Array, "... T"]


class Records(NamedTuple):
    """What is recorded after each group of steps; the leading axis is the run.

    Attributes
    ----------
    margins
        ``(B, t, n)``: observed label times output of each training sample.
    signal
        ``(B, t, 2)``: gamma, mean over the filters of the outputs +1 and -1.
    memory
        ``(B, t, n)``: largest ``|rho|`` of a sample over the filters of its observed label.
    test_error
        ``(B, t, 2)``: share of the fresh samples of class +1 and -1 that are not on the side of their true label.
    validation_error, noisy_validation_error
        ``(B, t)``: share of the validation samples not on the side of the true, and of the observed label.
    coefficients
        ``(B, t, 2m, n + 1)``: ``j gamma`` and ``rho`` of all filters, or without last axes if not asked for.
    """

    margins: Float[Array, "B t n"]
    signal: Float[Array, "B t 2"]
    memory: Float[Array, "B t n"]
    test_error: Float[Array, "B t 2"]
    validation_error: Float[Array, "B t"]
    noisy_validation_error: Float[Array, "B t"]
    coefficients: Float[Array, "B t ..."]


def fresh_products(
    vectors: Float[np.ndarray, "k d"], count: int, noise_scale: float, rng: np.random.Generator
) -> Float[np.ndarray, "k count"]:
    """Products of k given vectors with ``count`` fresh vectors ``N(0, sigma^2 I)``, which are not formed.

    They are Gaussian with covariance ``sigma^2 vectors vectors^T``: drawing them costs nothing in the dimension.
    """
    values, directions = np.linalg.eigh(vectors @ vectors.T)
    root = directions * np.sqrt(np.maximum(values, 0))
    return noise_scale * root @ rng.normal(size=(len(vectors), count))


def gram_task(
    data: PatchData, start: Float[np.ndarray, "2m d"], fresh: int, noise_scale: float, rates: tuple[float, float],
    rng: np.random.Generator,
) -> GramTask:  # fmt: skip
    """The products that the descent of ``data`` from the weights ``start`` needs, and ``fresh`` samples to test on.

    Parameters
    ----------
    fresh
        Number of fresh samples, classes alternating.
    noise_scale, rates
        sigma, and the shares of flipped labels in the classes +1 and -1, for the fresh samples.
    """
    vectors = np.concatenate([data.signal[None], data.noise])
    products = fresh_products(np.concatenate([vectors, start]), fresh, noise_scale, rng)
    classes = np.where(np.arange(fresh) % 2, -1.0, 1.0)
    flipped = rng.random(fresh) < np.where(classes > 0, *rates)
    arrays: list[Any] = [
        vectors @ vectors.T, start @ vectors.T, data.true_labels, data.labels, np.ones(len(data.labels)),
        products[: len(vectors)], products[len(vectors) :], classes, np.where(flipped, -classes, classes),
    ]  # fmt: skip
    return GramTask(*arrays)


def without_cross_products(task: GramTask) -> GramTask:
    """The same task as if signal and noise vectors were orthogonal to each other: an approximation, for comparison."""
    own = np.eye(task.gram.shape[-1])
    return task._replace(gram=task.gram * own)


def stack_tasks(tasks: list[GramTask]) -> GramTask:
    """Tasks of equal sizes along a leading axis."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *tasks)


def reconstruct_weights(
    data: PatchData, start: Float[np.ndarray, "2m d"], coefficients: Float[np.ndarray, "... 2m v"]
) -> Float[np.ndarray, "... 2m d"]:
    """Weights from the decomposition: start, signal and noise vectors with their coefficients."""
    vectors = np.concatenate([data.signal[None], data.noise])
    return start + coefficients @ (vectors / np.sum(vectors**2, axis=1, keepdims=True))


def descend_in_coefficients(
    tasks: GramTask,
    learning_rate: Float[np.ndarray, " B"],
    record_steps: Int[np.ndarray, " t"],
    validation: int,
    keep_coefficients: bool = False,
) -> Records:
    """Train several networks, each by descent with its own learning rate, and record after ``record_steps`` steps.

    One compiled program for each shape; the runs are spread over the devices and do not see each other, so that a run
    has the same numbers in any company.

    Parameters
    ----------
    tasks
        Stacked along the leading axis B.
    learning_rate
        eta of each run.
    record_steps
        Nondecreasing; 0 records the start.
    validation
        Number of fresh samples, the first ones, that are kept apart for validation; the others are for the test error.
    keep_coefficients
        Whether to record all ``2m (n + 1)`` coefficients.
    """
    runs = len(learning_rate)
    devices = np.asarray(jax.devices()[: max(1, min(len(jax.devices()), runs))])
    padding = -runs % devices.size
    padded = jax.tree.map(lambda a: np.concatenate([a, a[-1:].repeat(padding, 0)]), (tasks, np.asarray(learning_rate)))
    between = np.diff(np.asarray(record_steps), prepend=0).astype(np.int32)
    records = _descend(Mesh(devices, ("runs",)), validation, keep_coefficients, *padded, between)
    return jax.tree.map(lambda a: np.asarray(a)[:runs], records)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _descend(
    mesh: Mesh, validation: int, keep: bool, tasks: GramTask, learning_rate: Array, between: Array
) -> Records:  # fmt: skip
    def share(tasks: GramTask, learning_rate: Array, between: Array) -> Records:
        # one run after the other: its Gram matrix stays in the cache, and no run depends on the size of the batch
        return jax.lax.map(lambda one: _one_run(one[0], one[1], between, validation, keep), (tasks, learning_rate))

    runs = P("runs")
    return jax.shard_map(share, mesh=mesh, in_specs=(runs, runs, P()), out_specs=runs, check_vma=False)(
        tasks, learning_rate, between
    )


def _one_run(task: GramTask, learning_rate: Array, between: Array, validation: int, keep: bool) -> Records:
    filters, vectors = task.start.shape
    width = filters // 2
    sign = jnp.where(jnp.arange(filters) < width, 1.0, -1.0)
    squares = jnp.diagonal(task.gram)
    total = jnp.sum(task.weights)

    def forward(weights_over_squares: Array) -> tuple[Array, Array, Array]:
        """Products with the signal as each sample sees it, with its noise, and the outputs."""
        products = task.start + weights_over_squares @ task.gram
        seen = products[:, :1] * task.true_labels
        noise = products[:, 1:]
        return seen, noise, _output(seen, noise, width)

    def step(_: int, scaled: Array) -> Array:
        # ``scaled`` holds the coefficients over the squared norms of their vectors
        seen, noise, output = forward(scaled)
        pull = task.weights * task.labels * jax.nn.sigmoid(-task.labels * output) / (total * width)
        signal = sign * jnp.sum(jnp.where(seen > 0, pull * task.true_labels, 0.0), axis=1)
        memory = sign[:, None] * jnp.where(noise > 0, pull, 0.0)
        return scaled + learning_rate * jnp.concatenate([signal[:, None], memory], axis=1)

    def record(scaled: Array, count: Array) -> tuple[Array, Records]:
        scaled = jax.lax.fori_loop(0, count, step, scaled)
        _, _, output = forward(scaled)
        coefficients = scaled * squares
        gamma = (sign * coefficients[:, 0]).reshape(2, width).mean(axis=1)
        largest = jnp.abs(coefficients[:, 1:]).reshape(2, width, vectors - 1).max(axis=1)
        memory = jnp.where(task.labels > 0, largest[0], largest[1])
        products = task.fresh_start + scaled @ task.fresh
        # the product of the signal with the weights is the first column of the products with the training vectors
        signal_product = (task.start + scaled @ task.gram)[:, :1]
        fresh = _output(signal_product * task.fresh_labels, products, width)
        wrong = (task.fresh_labels * fresh <= 0).astype(scaled.dtype)
        observed_wrong = (task.fresh_observed * fresh <= 0).astype(scaled.dtype)
        tested = jnp.arange(wrong.size) >= validation
        of_class = lambda sign: jnp.mean(wrong, where=tested & (task.fresh_labels == sign))  # noqa: E731
        share = lambda errors: jnp.mean(errors[:validation]) if validation else jnp.nan * errors[0]  # noqa: E731
        return scaled, Records(
            task.labels * output, gamma, memory, jnp.stack([of_class(1.0), of_class(-1.0)]),
            share(wrong), share(observed_wrong),
            coefficients if keep else jnp.zeros((), scaled.dtype),
        )  # fmt: skip

    return jax.lax.scan(record, jnp.zeros_like(task.start), between)[1]


def _output(seen: Array, noise: Array, width: int) -> Array:
    active = jnp.maximum(seen, 0.0) + jnp.maximum(noise, 0.0)
    return active[:width].mean(axis=0) - active[width:].mean(axis=0)
