"""Networks with one output in the tangent-kernel (NTK) parametrisation, many of them side by side.

Weights are standard Gaussian; each layer sends its input ``a`` to ``relu(W a sqrt(2 / fan_in))``, so that activations
keep a second moment of one, and the output is ``w . a / sqrt(width)``; no biases. Source: the group's training code for
Sclocchi, Geiger, Wyart 2023 (arXiv 2301.13703); the convolutional network is a smaller one.

Arrays have the networks along the first axis: weights ``(n, fan_in, fan_out)``, inputs ``(n, b, d)``, outputs ``(n,
b)``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from separatrix.engines.counter_normals import Keys, normals

Weights = tuple[Array, ...]
#: From outputs ``(n, b)`` to the factor of each sample's gradient in the change of the weights, ``(n, b)``.
Response = Callable[[Array], Array]


class Answer(NamedTuple):
    """What n networks say to b samples each.

    Attributes
    ----------
    output
        ``(n, b)``.
    responsive
        ``(n, b)``: whether any unit of the last hidden layer is active. If none is, the gradient of the output is
        exactly zero: the sample cannot be learned any more.
    """

    output: Float[Array, "n b"]
    responsive: Bool[Array, "n b"]


_START_STREAM = 64  # of the first layer's weights; the other layers' follow
_KERNEL, _STRIDE = 3, 2  # of the convolutions


@runtime_checkable
class Network(Protocol):
    """An architecture: a frozen (hashable) object."""

    def start(self, keys: Keys, inputs: int) -> Weights:
        """Random weights, one network for each key."""
        ...

    def outputs(self, weights: Weights, x: Float[Array, "n b d"]) -> Answer:
        """Output for every sample, and whether its gradient is not zero."""
        ...

    def step(self, weights: Weights, x: Float[Array, "n b d"], respond: Response) -> tuple[Weights, Answer]:
        """``w + sum_b respond(f)_b grad f(x_b)`` and the answer at w: one forward and one backward pass."""
        ...


def squared_norm(weights: Weights) -> Float[Array, " n"]:
    """Sum of squares of all weights of each network."""
    return sum((jnp.sum(w**2, axis=tuple(range(1, w.ndim))) for w in weights), jnp.zeros((), weights[0].dtype))


def _gaussian(keys: Keys, layer: int, shape: tuple[int, ...]) -> Array:
    numbers = normals(keys, jnp.uint32(0), int(np.prod(shape)), stream=_START_STREAM + layer)
    return jnp.moveaxis(numbers, -1, 0).reshape(-1, *shape)


@dataclass(frozen=True)
class DenseNetwork:
    """Fully connected layers.

    Attributes
    ----------
    hidden_layers
        D; without any it is a perceptron, ``f = w . x / sqrt(d)``.
    width
        h.
    """

    hidden_layers: int
    width: int

    def __post_init__(self) -> None:
        if self.hidden_layers < 0 or self.width < 1:
            raise ValueError(
                f"hidden_layers must be at least 0 and width at least 1, got {self.hidden_layers} and {self.width}"
            )

    def start(self, keys: Keys, inputs: int) -> Weights:
        """Random weights, one network for each key."""
        sizes = (inputs, *(self.width,) * self.hidden_layers, 1)
        return tuple(_gaussian(keys, layer, shape) for layer, shape in enumerate(pairwise(sizes)))

    def _forward(self, weights: Weights, x: Array) -> tuple[list[Array], Answer]:
        """What every layer sees, and the answer."""
        seen = [x]
        for w in weights[:-1]:
            seen.append(jax.nn.relu(seen[-1] @ w * (2 / w.shape[1]) ** 0.5))
        output = (seen[-1] @ weights[-1])[..., 0] * weights[-1].shape[1] ** -0.5
        return seen, Answer(output, jnp.any(seen[-1] != 0, axis=2))

    def outputs(self, weights: Weights, x: Float[Array, "n b d"]) -> Answer:
        """Output for every sample, and whether its gradient is not zero."""
        return self._forward(weights, x)[1]

    def step(self, weights: Weights, x: Float[Array, "n b d"], respond: Response) -> tuple[Weights, Answer]:
        """``w + sum_b respond(f)_b grad f(x_b)`` and the answer at w."""
        seen, answer = self._forward(weights, x)
        error = respond(answer.output)[..., None] * weights[-1].shape[1] ** -0.5
        updated = []
        for layer in range(len(weights) - 1, -1, -1):
            w = weights[layer]
            updated.append(w + jnp.swapaxes(seen[layer], 1, 2) @ error)
            if layer:
                scale = (2 / weights[layer - 1].shape[1]) ** 0.5
                error = jnp.where(seen[layer] > 0, error @ jnp.swapaxes(w, 1, 2) * scale, 0)
        return tuple(reversed(updated)), answer


@dataclass(frozen=True)
class ConvolutionalNetwork:
    """Convolutions of 3 x 3 with stride 2, relu, the sum over the image, and a linear output.

    Attributes
    ----------
    hidden_layers
        Convolutions, at least 1.
    width
        Channels of each.
    image_shape
        ``(height, width)`` of the inputs, which are flat.
    """

    hidden_layers: int
    width: int
    image_shape: tuple[int, int]

    def __post_init__(self) -> None:
        if self.hidden_layers < 1 or self.width < 1:
            raise ValueError(f"hidden_layers and width must be at least 1, got {self.hidden_layers} and {self.width}")

    def start(self, keys: Keys, inputs: int) -> Weights:
        """Random weights, one network for each key.

        Raises
        ------
        ValueError
            If the inputs are not whole images.
        """
        channels, rest = divmod(inputs, self.image_shape[0] * self.image_shape[1])
        if rest or not channels:
            raise ValueError(f"inputs must be images of {self.image_shape} pixels, got {inputs} numbers")
        sizes = (channels, *(self.width,) * self.hidden_layers)
        layers = [_gaussian(keys, k, (_KERNEL, _KERNEL, *shape)) for k, shape in enumerate(pairwise(sizes))]
        return (*layers, _gaussian(keys, self.hidden_layers, (self.width, 1)))

    def outputs(self, weights: Weights, x: Float[Array, "n b d"]) -> Answer:
        """Output for every sample, and whether its gradient is not zero."""

        def one(weights: Weights, x: Array) -> Answer:
            a = x.reshape(x.shape[0], *self.image_shape, -1)
            for w in weights[:-1]:
                scale = (2 / (_KERNEL**2 * w.shape[2])) ** 0.5
                a = jax.lax.conv_general_dilated(
                    a, w * scale, (_STRIDE, _STRIDE), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                a = jax.nn.relu(a)
            # The sum over the image, over the root of its pixels, is of order one like every other output.
            pooled = a.sum(axis=(1, 2)) * (a.shape[1] * a.shape[2]) ** -0.5
            return Answer((pooled @ weights[-1])[:, 0] * self.width**-0.5, jnp.any(pooled > 0, axis=1))

        return jax.vmap(one)(weights, x)

    def step(self, weights: Weights, x: Float[Array, "n b d"], respond: Response) -> tuple[Weights, Answer]:
        """``w + sum_b respond(f)_b grad f(x_b)`` and the answer at w."""

        def output(weights: Weights) -> tuple[Array, Array]:
            answer = self.outputs(weights, x)
            return answer.output, answer.responsive

        values, pull, responsive = jax.vjp(output, weights, has_aux=True)
        (change,) = pull(respond(values))
        return jax.tree.map(jnp.add, weights, change), Answer(values, responsive)
