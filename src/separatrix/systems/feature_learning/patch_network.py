"""A two-layer ReLU network with shared filters on two patches, one of signal and one of noise, and its data.

A sample is ``x = (y mu, xi)`` with ``xi ~ N(0, sigma^2 I_d)``; the network ``f(x) = F_+ - F_-``,
``F_j = (1/m) sum_r [relu(<w_jr, y mu>) + relu(<w_jr, xi>)]``; training is full-batch descent on the mean logistic loss
of the observed labels. Source: Han et al. (ICML 2025, arXiv 2505.18909), after Cao et al. 2022.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclass(frozen=True, eq=False)
class PatchData:
    """Training samples of one draw.

    Attributes
    ----------
    signal
        ``mu``, ``(d,)``.
    noise
        ``xi``, ``(n, d)``.
    true_labels, labels
        ``(n,)``, +-1: the class that made the signal, and what the trainer is told.
    """

    signal: Float[np.ndarray, " d"]
    noise: Float[np.ndarray, "n d"]
    true_labels: Float[np.ndarray, " n"]
    labels: Float[np.ndarray, " n"]


def signal_norm(kappa: float, samples: int, dimension: int, noise_scale: float = 1.0) -> float:
    """``|mu|`` at which ``n SNR^2 = kappa``, with ``SNR = |mu| / (sigma sqrt d)``."""
    return noise_scale * float(np.sqrt(kappa * dimension / samples))


def time_per_step(learning_rate: float, samples: int, dimension: int, width: int, noise_scale: float = 1.0) -> float:
    """``learning_rate sigma^2 d / (n m)``: what one step adds to the time theta of the reduced dynamics."""
    return learning_rate * noise_scale**2 * dimension / (samples * width)


def flip_labels(
    true_labels: Float[np.ndarray, " n"], positive: float, negative: float, rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """Labels with exactly ``round(rate * class size)`` of each class flipped.

    Parameters
    ----------
    true_labels
        +-1.
    positive, negative
        Rates of the classes +1 and -1.
    """
    labels = np.array(true_labels, np.float64)
    for sign, rate in ((1, positive), (-1, negative)):
        members = np.flatnonzero(true_labels == sign)
        labels[rng.permutation(members)[: round(rate * members.size)]] *= -1
    return labels


def draw_patch_data(
    rng: np.random.Generator, samples: int, dimension: int, kappa: float, positive: float, negative: float,
    noise_scale: float = 1.0,
) -> PatchData:  # fmt: skip
    """Training samples, half of each class, with the signal along the first axis.

    Parameters
    ----------
    samples, dimension
        n, an even number, and d.
    kappa
        ``n SNR^2``.
    positive, negative
        Shares of flipped labels in the classes +1 and -1.
    noise_scale
        ``sigma``.

    Raises
    ------
    ValueError
        If n is odd or not positive.
    """
    if samples < 2 or samples % 2:
        raise ValueError(f"samples must be an even number, got {samples}")
    signal = np.zeros(dimension)
    signal[0] = signal_norm(kappa, samples, dimension, noise_scale)
    true_labels = np.repeat([1.0, -1.0], samples // 2)
    labels = flip_labels(true_labels, positive, negative, rng)
    return PatchData(signal, noise_scale * rng.normal(size=(samples, dimension)), true_labels, labels)


def initial_weights(rng: np.random.Generator, width: int, dimension: int, scale: float) -> Float[np.ndarray, "2m d"]:
    """``w_jr(0) ~ N(0, scale^2 I)``: m filters of the output +1, then m of the output -1."""
    return scale * rng.normal(size=(2 * width, dimension))


def network_output(
    weights: Float[Array, "2m d"], signal: Float[Array, " d"], classes: Float[Array, " n"], noise: Float[Array, "n d"]
) -> Float[Array, " n"]:
    """``f(x)`` of the samples ``(y mu, xi)``."""
    active = jnp.maximum(classes * (weights @ signal)[:, None], 0) + jnp.maximum(weights @ noise.T, 0)
    width = weights.shape[0] // 2
    return active[:width].mean(axis=0) - active[width:].mean(axis=0)


def mean_loss(
    weights: Float[Array, "2m d"], signal: Float[Array, " d"], classes: Float[Array, " n"], noise: Float[Array, "n d"],
    labels: Float[Array, " n"],
) -> Float[Array, ""]:  # fmt: skip
    """Mean of ``log(1 + exp(-label f))``."""
    return jnp.mean(jnp.logaddexp(0.0, -labels * network_output(weights, signal, classes, noise)))


@partial(jax.jit, static_argnames="steps_between")
def descend(
    weights: Float[Array, "2m d"], signal: Float[Array, " d"], classes: Float[Array, " n"], noise: Float[Array, "n d"],
    labels: Float[Array, " n"], learning_rate: Float[Array, ""], steps_between: tuple[int, ...],
) -> Float[Array, "t 2m d"]:  # fmt: skip
    """Weights after each group of steps of full-batch descent, by automatic differentiation.

    ``O(m n d)`` for each step; :mod:`.signal_noise_decomposition` takes the same steps in ``O(m n^2)``.
    """
    # at a tie jnp.maximum has the slope 1/2, and the paper's relu'(0) is 0; weights drawn at random never tie
    slope = jax.grad(mean_loss)

    def record(w: Array, count: Int[Array, ""]) -> tuple[Array, Array]:
        step = lambda _, w: w - learning_rate * slope(w, signal, classes, noise, labels)  # noqa: E731
        w = jax.lax.fori_loop(0, count, step, w)
        return w, w

    return jax.lax.scan(record, weights, jnp.asarray(steps_between, jnp.int32))[1]
