"""Batch-1 SGD of squared-ReLU networks on three-patch points, exactly, in the space that training moves.

``f(x; W) = (1/m) sum_j j sum_r sum_patches relu(<w_jr, patch>)^2`` with output signs ``j = +-1`` and m units each, loss
``(y - f)^2 / 2``, one point at a time. A step moves weights along the patches of its point only, so that inner products
with the two features and with the backgrounds of the N training points, and the Gram matrix of these, are a closed
system: no array has the dimension of a patch, and nothing is approximated. Members lie along the last axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from separatrix.engines.counter_normals import Keys, random_words
from separatrix.engines.ensemble import Arguments, State, noise_block
from separatrix.systems.feature_learning.two_feature_task import NetworkStart, PatchData

_VISIT_STREAM = 0
#: What is summed over visits to points with the strong feature.
SUMS = ("visits", "residual_sum", "square_sum", "oscillating")


def network_state(data: Sequence[PatchData], starts: Sequence[NetworkStart], dtype: str) -> State:
    """State of one member for each data set and start, all of equal sizes.

    ``weak`` and ``strong`` ``(2m, n)``: inner products of the units with the features; ``background`` ``(2m, N, n)``:
    with the training backgrounds. ``gram`` ``(N, N, n)``, ``labels`` and ``present`` ``(N, n)`` are the data, which no
    step changes. ``sums`` ``(4, n)`` are the diagnostics :data:`SUMS`.
    """
    stack = lambda arrays: np.stack([np.asarray(a, dtype) for a in arrays], axis=-1)  # noqa: E731
    return {
        "weak": stack([start.weak for start in starts]),
        "strong": stack([start.strong for start in starts]),
        "background": stack([s.background @ d.backgrounds.T for s, d in zip(starts, data, strict=True)]),
        "gram": stack([one.gram for one in data]),
        "labels": stack([one.labels for one in data]),
        "present": stack([one.strong for one in data]),
        "sums": np.zeros((len(SUMS), len(data)), dtype),
    }


@dataclass(frozen=True)
class PatchSGD:
    """SGD with one point drawn uniformly, with replacement, in each step.

    Arguments: ``learning_rate``, ``weak_norm``, ``strong_norm``, ``threshold`` (``delta``: a visit with ``|l|`` of at
    least this counts as oscillating), ``decay_at`` and ``decay_factor`` (from that step on the learning rate is
    multiplied by the factor).

    Attributes
    ----------
    samples
        N.
    """

    samples: int

    @property
    def block(self) -> int:
        """Steps drawn together."""
        return noise_block(1)

    def draw(self, keys: Keys, block: Array) -> Array:
        """Numbers of the points visited, ``(block, n)``; 32 bits modulo N, whose bias is below ``N / 2**32``."""
        words = jnp.concatenate(random_words(keys, block, _VISIT_STREAM, self.block // 2))
        return (words % np.uint32(self.samples)).astype(jnp.int32)

    def __call__(self, state: State, noise: Array, t: Array, arguments: Arguments) -> State:
        """One SGD step."""
        dtype = state["weak"].dtype
        pick = lambda a, axis: jnp.take_along_axis(  # noqa: E731
            a, noise.reshape((1,) * (a.ndim - 1) + (-1,)), axis=axis, mode="promise_in_bounds"
        ).squeeze(axis)
        label, present = pick(state["labels"], 0), pick(state["present"], 0)
        rate = arguments["learning_rate"] * jnp.where(
            t.astype(dtype) >= arguments["decay_at"], arguments["decay_factor"], jnp.ones((), dtype)
        )
        weak, strong = jnp.maximum(label * state["weak"], 0), present * jnp.maximum(label * state["strong"], 0)
        background = jnp.maximum(pick(state["background"], 1), 0)
        signs = _output_signs(state)
        width = state["weak"].shape[0] // 2
        output = jnp.sum(signs * (weak**2 + strong**2 + background**2), axis=0) / width
        residual = 1 - label * output
        pull = signs * (2 * rate / width * residual)
        seen = present * jnp.stack(
            [
                jnp.ones_like(residual),
                residual,
                residual**2,
                (jnp.abs(residual) >= arguments["threshold"]).astype(dtype),
            ]
        )
        return state | {
            "weak": state["weak"] + pull * arguments["weak_norm"] ** 2 * weak,
            "strong": state["strong"] + pull * arguments["strong_norm"] ** 2 * strong,
            # the residual pushes f towards y: the background is seen without its label
            "background": state["background"] + (label * pull * background)[:, None] * pick(state["gram"], 0)[None],
            "sums": state["sums"] + seen,
        }


def _output_signs(state: State) -> Float[Array, "units 1"]:
    half = jnp.ones((state["weak"].shape[0] // 2, 1), state["weak"].dtype)
    return jnp.concatenate([half, -half])


def contributions(state: State) -> dict[str, Array]:
    """What the patches contribute to the output times the label.

    Returns
    -------
    ``weak`` and ``strong`` ``(2, n)``, for the labels +1 and -1 (B and A), and ``background`` ``(N, n)``.
    """
    signs, width = _output_signs(state), state["weak"].shape[0] // 2
    both = lambda a: jnp.stack(  # noqa: E731
        [jnp.sum(y * signs * jnp.maximum(y * a, 0) ** 2, axis=0) / width for y in (1, -1)]
    )
    background = jnp.sum(signs[:, None] * jnp.maximum(state["background"], 0) ** 2, axis=0) / width
    return {
        "weak": both(state["weak"]),
        "strong": both(state["strong"]),
        "background": state["labels"] * background,
    }


def observe(state: State, arguments: Arguments) -> dict[str, Array]:
    """Contributions, loss and accuracy on the training points, mean ``|l|`` of both kinds, sums so far, and weights.

    Weights as inner products, with which responses to new points can be computed
    (:func:`background_coefficients`).
    """
    del arguments
    parts = contributions(state)
    of_label = lambda a: jnp.where(state["labels"] > 0, a[0], a[1])  # noqa: E731
    margin = of_label(parts["weak"]) + state["present"] * of_label(parts["strong"]) + parts["background"]
    residual, present = 1 - margin, state["present"]
    mean_over = lambda a, kind: jnp.sum(a * kind, 0) / jnp.maximum(jnp.sum(kind, 0), 1)  # noqa: E731
    return {
        "weak": parts["weak"],
        "strong": parts["strong"],
        "loss": jnp.mean(residual**2, axis=0) / 2,
        "train_accuracy": jnp.mean((margin > 0).astype(margin.dtype), axis=0),
        "strong_residual": mean_over(jnp.abs(residual), present),
        "plain_residual": mean_over(jnp.abs(residual), 1 - present),
        "largest_weak_unit": jnp.max(jnp.abs(state["weak"]), axis=0),
        "sums": state["sums"],
        "weak_units": state["weak"],
        "background_units": state["background"],
    }


def background_coefficients(
    start: NetworkStart, data: PatchData, background: Float[np.ndarray, "... units N"]
) -> Float[np.ndarray, "... units N"]:
    """Coefficients ``c`` with which training has added backgrounds to the weights, ``w = w_0 + sum_i c_i x_i + ...``.

    Parameters
    ----------
    start, data
        Of the member.
    background
        ``(..., 2m, N)``, inner products of its units with the training backgrounds after training.
    """
    moved = np.asarray(background, np.float64) - start.background @ data.backgrounds.T
    return moved @ np.linalg.pinv(data.gram, hermitian=True)


def image_responses(
    start: NetworkStart, data: PatchData, coefficients: Float[np.ndarray, "... units N"],
    backgrounds: Float[np.ndarray, "T b"],
) -> Float[np.ndarray, "... units T"]:  # fmt: skip
    """Inner products of trained units with new backgrounds, ``(..., 2m, T)``."""
    return start.background @ backgrounds.T + coefficients @ (data.backgrounds @ backgrounds.T)


def noise_responses(
    rng: np.random.Generator, start: NetworkStart, data: PatchData, coefficients: Float[np.ndarray, "... units N"],
    noise_scale: float, count: int,
) -> Float[np.ndarray, "... units T"]:  # fmt: skip
    """Inner products of trained units with fresh noise ``N(0, noise_scale^2 I)``, drawn from their exact joint law.

    Given the weights they are Gaussian with covariance ``noise_scale^2 W W^T``, so that no patch has to be drawn. All
    leading entries of ``coefficients`` see the same random numbers.
    """
    weights = start.background + coefficients @ data.backgrounds
    values, vectors = np.linalg.eigh(weights @ np.swapaxes(weights, -1, -2))
    root = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    return noise_scale * root @ rng.normal(size=(root.shape[-1], count))


def class_accuracy(
    weak: Float[np.ndarray, "... units"], responses: Float[np.ndarray, "... units T"], labels: Float[np.ndarray, " T"]
) -> Float[np.ndarray, "..."]:
    """Share of points without the strong feature, of these labels and backgrounds, that the network classifies rightly.

    Parameters
    ----------
    weak
        ``(..., 2m)``, inner products with the weak feature that these points show; zeros for points without it.
    responses
        ``(..., 2m, T)``, inner products with their backgrounds.
    labels
        ``(T,)``.
    """
    signs = np.repeat([1.0, -1.0], weak.shape[-1] // 2)
    positive, negative = (np.sum(signs * np.maximum(y * weak, 0) ** 2, axis=-1, keepdims=True) for y in (1, -1))
    output = np.where(labels > 0, positive, negative)
    output = output + np.sum(signs[:, None] * np.maximum(responses, 0) ** 2, axis=-2)
    return np.mean(labels * output > 0, axis=-1)
