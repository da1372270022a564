"""Activation functions by name, and the variance of the weights that keeps their signal at its size."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Activation = Literal["gelu", "relu", "tanh"]

#: Variance of a weight times its fan-in: 2 where about half of the units are off (He et al. 2015), else 1.
VARIANCE_GAIN = {"gelu": 2.0, "relu": 2.0, "tanh": 1.0}


def activate(name: Activation, values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The named activation of each value; GELU by the exact normal distribution function."""
    if name == "relu":
        return jnp.maximum(values, 0)
    return jnp.tanh(values) if name == "tanh" else jax.nn.gelu(values, approximate=False)
