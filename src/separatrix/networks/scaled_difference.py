"""Any network made lazy: the difference of two equal copies times a large factor."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from separatrix.networks.cnn import CNN
from separatrix.networks.mlp import MLP
from separatrix.networks.transformer import Transformer

#: Those of the network, times the scale, of either copy.
Parameters = tuple[Any, Any]


@dataclass(frozen=True)
class ScaledDifference:
    """``f(a, b) = scale (g(a / scale) - g(b / scale))`` of a network g, with ``a = b`` at the start.

    The outputs are zero at the start whatever the scale, so that learning asks of ``g`` a change of order 1 / scale
    and training tends to that of the linearisation (Chizat, Oyallon, Bach 2019, arXiv 1812.07956: scaled outputs, and
    a doubled network that starts at zero). The parameters carry the scale too: learning rates then mean what they do
    for ``g``, and the tangent kernel at the start is twice that of ``g``.

    Attributes
    ----------
    network
        g.
    scale
        Positive; 1 is not lazy at all.
    """

    network: MLP | CNN | Transformer
    scale: float

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")

    def init(self, rng: np.random.Generator) -> Parameters:
        """Random parameters of the network, times the scale, twice."""
        parameters = jax.tree.map(lambda leaf: self.scale * leaf, self.network.init(rng))
        return parameters, jax.tree.map(np.copy, parameters)

    def __call__(self, parameters: Parameters, inputs: Any) -> Float[Array, "*b c"]:
        """Outputs for a batch."""
        first, second = (self.network(self._divided(one), inputs) for one in parameters)
        return self.scale * (first - second)

    def _divided(self, parameters: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf / self.scale, parameters)
