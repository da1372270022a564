"""A small convolutional network: 3 x 3 convolutions, the mean over all positions, one linear layer."""

from dataclasses import dataclass
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from separatrix.networks.activations import VARIANCE_GAIN, Activation, activate

#: One dictionary for each layer: "weight" (3, 3, in, out), or (in, out) in the last one, and "bias" (out,).
Parameters = list[dict[str, Array]]

_KERNEL = 3


@dataclass(frozen=True)
class CNN:
    """Convolutions without gaps at the edges, the first of stride 1 and the others of stride 2.

    Attributes
    ----------
    image_shape
        ``(height, width)`` or ``(height, width, channels)`` of an input, which comes as a flat vector.
    classes
        Outputs.
    channels
        Of the convolutions, in order.
    activation
        After each convolution.
    """

    image_shape: tuple[int, ...]
    classes: int
    channels: tuple[int, ...] = (16, 32, 32)
    activation: Activation = "gelu"

    def __post_init__(self) -> None:
        if len(self.image_shape) not in (2, 3) or min((*self.image_shape, *self.channels, self.classes)) < 1:
            raise ValueError(
                f"image_shape must be (height, width) or (height, width, channels) and all sizes positive, got "
                f"{self.image_shape}, channels {self.channels}, classes {self.classes}"
            )

    def init(self, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
        """Random parameters in float64: Gaussian weights of variance gain / fan-in, biases zero."""
        depths = (self.image_shape[2] if len(self.image_shape) == 3 else 1, *self.channels)
        shapes = [(_KERNEL, _KERNEL, before, after) for before, after in pairwise(depths)]
        layers = []
        for shape in (*shapes, (depths[-1], self.classes)):
            spread = np.sqrt(VARIANCE_GAIN[self.activation] / np.prod(shape[:-1]))
            layers.append({"weight": spread * rng.normal(size=shape), "bias": np.zeros(shape[-1])})
        return layers

    def __call__(self, parameters: Parameters, inputs: Float[Array, "b d"]) -> Float[Array, "b c"]:
        """Outputs for a batch of flat images."""
        height, width = self.image_shape[:2]
        images = inputs.reshape(len(inputs), height, width, -1)
        for index, layer in enumerate(parameters[:-1]):
            stride = 1 if index == 0 else 2
            images = activate(self.activation, _convolve(images, layer["weight"], stride) + layer["bias"])
        return jnp.mean(images, axis=(1, 2)) @ parameters[-1]["weight"] + parameters[-1]["bias"]


def _convolve(images: Float[Array, "b h w i"], weight: Float[Array, "3 3 i o"], stride: int) -> Float[Array, "b p q o"]:
    """Convolution with zeros beyond the edges, as one product of matrices.

    With a weight of its own for each of many runs XLA makes a grouped convolution, a hundred times slower on a CPU.
    """
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    neighbours = [
        padded[:, i : i + height : stride, j : j + width : stride] for i in range(_KERNEL) for j in range(_KERNEL)
    ]
    return jnp.concatenate(neighbours, axis=-1) @ weight.reshape(-1, weight.shape[-1])
