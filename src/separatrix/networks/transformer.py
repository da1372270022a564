"""A decoder-only transformer: it predicts each token of a sequence from those before it."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from separatrix.networks.activations import Activation, activate

#: "tokens" (v, d), "positions" (T, d), "blocks" (one dictionary each), "norm", and "head" (d, v) unless it is tied.
Parameters = dict[str, Any]

#: Standard deviation of the weights in the code of GPT-2, and its smallest width: their product in quadrature, the
#: spread of what a layer makes of a normalised stream, is kept at other widths.
_SPREAD, _WIDTH = 0.02, 768
_EPSILON = 1e-5  # added to a variance before it is divided by


@dataclass(frozen=True)
class Transformer:
    """Blocks of causal attention and a perceptron, each behind a layer normalisation and added to what it was given.

    The architecture of GPT-2 (Radford et al. 2019) and its start, carried over to other widths. Embeddings are products
    with one-hot vectors: the scattered sums in the derivative of a look-up are slow on a CPU and keep no order on a
    GPU, where equal runs would then differ in their last bits.

    Attributes
    ----------
    vocabulary
        Number v of different tokens.
    context
        Longest sequence, T.
    depth, width, heads
        Blocks; size d of what flows between them, a multiple of the heads; attention heads in each.
    activation
        Of the perceptrons, which have one hidden layer of 4 d units.
    tied
        Whether the output layer is the transpose of the tokens' embedding.
    """

    vocabulary: int
    context: int
    depth: int = 2
    width: int = 64
    heads: int = 4
    activation: Activation = "gelu"
    tied: bool = False

    def __post_init__(self) -> None:
        sizes = (self.vocabulary, self.context, self.depth, self.width, self.heads)
        if min(sizes) < 1 or self.width % self.heads:
            raise ValueError(
                f"vocabulary, context, depth, width and heads must be positive and the width a multiple of the heads, "
                f"got {', '.join(map(str, sizes))}"
            )

    def init(self, rng: np.random.Generator) -> Parameters:
        """Random parameters in float64: Gaussian weights, biases and shifts zero, gains one.

        Weights have the spread ``s = 0.02 (768 / d)^(1/2)``, positions half of it, and layers whose outputs are added
        to the stream, 2 depth in all, ``s / (2 depth)^(1/2)``.
        """
        d, hidden = self.width, 4 * self.width
        spread = _SPREAD * np.sqrt(_WIDTH / d)
        added = spread / np.sqrt(2 * self.depth)

        def affine(fan_in: int, fan_out: int, spread: float = spread) -> dict[str, np.ndarray]:
            return {"weight": spread * rng.normal(size=(fan_in, fan_out)), "bias": np.zeros(fan_out)}

        def norm() -> dict[str, np.ndarray]:
            return {"gain": np.ones(d), "shift": np.zeros(d)}

        parameters = {
            "tokens": spread * rng.normal(size=(self.vocabulary, d)),
            "positions": spread / 2 * rng.normal(size=(self.context, d)),
            "blocks": [
                {
                    "attention_norm": norm(),
                    "attention": affine(d, 3 * d),
                    "attention_out": affine(d, d, added),
                    "perceptron_norm": norm(),
                    "perceptron": affine(d, hidden),
                    "perceptron_out": affine(hidden, d, added),
                }
                for _ in range(self.depth)
            ],
            "norm": norm(),
        }
        return parameters if self.tied else parameters | {"head": spread * rng.normal(size=(d, self.vocabulary))}

    def __call__(self, parameters: Parameters, tokens: Int[Array, "b t"]) -> Float[Array, "b t v"]:
        """Logits of the token that follows each position, a function of the tokens up to it; t is at most T."""
        table = parameters["tokens"]
        stream = jax.nn.one_hot(tokens, self.vocabulary, dtype=table.dtype) @ table
        stream = stream + parameters["positions"][: tokens.shape[1]]
        for block in parameters["blocks"]:
            attended = self._attend(_affine(block["attention"], _normalise(block["attention_norm"], stream)))
            stream = stream + _affine(block["attention_out"], attended)
            hidden = _affine(block["perceptron"], _normalise(block["perceptron_norm"], stream))
            stream = stream + _affine(block["perceptron_out"], activate(self.activation, hidden))
        return _normalise(parameters["norm"], stream) @ (table.T if self.tied else parameters["head"])

    def _attend(self, projected: Float[Array, "b t 3d"]) -> Float[Array, "b t d"]:
        """Values averaged over a position and those before it, with the softmax of query times key as weights."""
        batch, length, _ = projected.shape
        # the heads come before the positions, so that every product is a batch of plain matrix products
        split = projected.reshape(batch, length, 3, self.heads, self.width // self.heads)
        query, key, value = jnp.moveaxis(split, (2, 3), (0, 2))
        scores = query @ jnp.swapaxes(key, -1, -2) / np.sqrt(self.width // self.heads).astype(projected.dtype)
        seen = np.tril(np.ones((length, length), bool))
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
        return jnp.moveaxis(weights @ value, 1, 2).reshape(batch, length, self.width)


def _affine(layer: dict[str, Array], inputs: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    return inputs @ layer["weight"] + layer["bias"]


def _normalise(layer: dict[str, Array], inputs: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Layer normalisation (Ba, Kiros, Hinton 2016)."""
    centred = inputs - jnp.mean(inputs, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    return centred / jnp.sqrt(variance + _EPSILON) * layer["gain"] + layer["shift"]
