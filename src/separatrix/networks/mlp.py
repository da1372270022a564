"""Multi-layer perceptrons in standard and NTK parametrisation, with or without batch normalisation."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from separatrix.networks.activations import VARIANCE_GAIN, Activation, activate

#: One dictionary for each layer: "weight" (inputs, outputs) and "bias", or "gain" and "shift" where it is normalised.
Parameters = list[dict[str, Array]]
#: Mean and variance of each normalised layer's units.
Statistics = list[tuple[Array, Array]]

_EPSILON = 1e-5  # added to a variance before it is divided by


@dataclass(frozen=True)
class MLP:
    """A fully connected network; frozen and hashable, so that a program is compiled once for each.

    Attributes
    ----------
    widths
        Inputs, hidden layers, outputs.
    activation
        Of the hidden layers.
    parametrisation
        ``standard``: weights of variance gain / fan-in. ``ntk``: weights of variance 1, multiplied in the forward pass
        by the root of gain / fan-in (Jacot, Gabriel, Hongler 2018): the same function at the start, another gradient.
    batch_norm
        Whether hidden layers are normalised over the batch before the activation (Ioffe, Szegedy 2015).
    """

    widths: tuple[int, ...]
    activation: Activation = "gelu"
    parametrisation: Literal["standard", "ntk"] = "standard"
    batch_norm: bool = False

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(f"widths must be at least two positive numbers, got {self.widths}")

    def init(self, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
        """Random parameters in float64: Gaussian weights, biases and shifts zero, gains one."""
        layers = []
        for index, (fan_in, fan_out) in enumerate(pairwise(self.widths)):
            spread = self._root(fan_in) if self.parametrisation == "standard" else 1.0
            layer = {"weight": spread * rng.normal(size=(fan_in, fan_out))}
            if self._normalised(index):
                layer |= {"gain": np.ones(fan_out), "shift": np.zeros(fan_out)}
            else:
                layer["bias"] = np.zeros(fan_out)
            layers.append(layer)
        return layers

    def __call__(
        self, parameters: Parameters, inputs: Float[Array, "b d"], statistics: Statistics | None = None
    ) -> Float[Array, "b c"]:
        """Outputs for a batch.

        Without ``statistics`` normalised layers take the mean and variance of the batch itself, as in training; an
        output then depends on the whole batch. With those of :meth:`statistics` it does not.
        """
        return self._forward(parameters, inputs, statistics)[0]

    def statistics(self, parameters: Parameters, inputs: Float[Array, "n d"]) -> Statistics:
        """Mean and variance of the units of each normalised layer over ``inputs``; empty without normalisation."""
        return self._forward(parameters, inputs, None)[1]

    def _root(self, fan_in: int) -> float:
        return float(np.sqrt(VARIANCE_GAIN[self.activation] / fan_in))

    def _normalised(self, index: int) -> bool:
        return self.batch_norm and index < len(self.widths) - 2

    def _forward(self, parameters: Parameters, inputs: Array, given: Statistics | None) -> tuple[Array, Statistics]:
        hidden, used = inputs, []
        for index, layer in enumerate(parameters):
            hidden = hidden @ layer["weight"]
            if self.parametrisation == "ntk":
                hidden = hidden * self._root(self.widths[index])
            if self._normalised(index):
                mean, variance = given[index] if given else (jnp.mean(hidden, axis=0), jnp.var(hidden, axis=0))
                used.append((mean, variance))
                hidden = (hidden - mean) / jnp.sqrt(variance + _EPSILON) * layer["gain"] + layer["shift"]
            else:
                hidden = hidden + layer["bias"]
            if index < len(parameters) - 1:
                hidden = activate(self.activation, hidden)
        return hidden, used
