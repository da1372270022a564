"""Training of a network's linearisation, with a kernel that stands still from some step on.

From the switch on the parameters ``theta`` are trained on ``f(theta_s, x) + J(theta_s, x) (theta - theta_s)`` with the
optimiser, the batches and the weight decay of the network itself; the decay acts on ``theta``, and the momentum starts
anew from zero. Source: Zhou, Yang, Ren, Sugiyama, Yan 2025 (arXiv 2503.16316); the expansion is standard.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from separatrix.systems.training_phases.training import Network, Parameters, cross_entropy

#: Parameters, momentum buffer and the parameters at the switch.
LinearizedState = tuple[Parameters, Parameters, Parameters]


def linearized(
    network: Callable[[Parameters, Any], Array], anchor: Parameters, parameters: Parameters, inputs: Any
) -> Float[Array, "*b c"]:
    """Outputs of the network's first-order expansion about ``anchor``."""
    outputs, change = jax.jvp(
        lambda p: network(p, inputs), (anchor,), (jax.tree.map(jnp.subtract, parameters, anchor),)
    )
    return outputs + change


def switched(parameters: Parameters) -> LinearizedState:
    """State at the switch of networks with these parameters, arrays of any leading axes: at rest, about themselves."""
    return parameters, jax.tree.map(np.zeros_like, parameters), parameters


@dataclass(frozen=True)
class LinearizedStep:
    """One step of SGD with momentum and weight decay on the mean cross-entropy of the expansion.

    The arguments are those of :class:`separatrix.systems.training_phases.training.MomentumStep`. One forward and one
    backward derivative at the switch.

    Attributes
    ----------
    network
        What is expanded.
    """

    network: Network

    def __call__(
        self, state: LinearizedState, batch: Int[Array, " b"], arguments: Mapping[str, Array]
    ) -> LinearizedState:
        """The state after a step."""
        parameters, velocity, anchor = state
        inputs, labels = arguments["inputs"][batch], arguments["labels"][batch]
        outputs, tangent = jax.linearize(lambda p: self.network(p, inputs), anchor)
        moved = jax.tree.map(jnp.subtract, parameters, anchor)
        slope = jax.grad(cross_entropy)(outputs + tangent(moved), labels)
        (gradient,) = jax.linear_transpose(tangent, moved)(slope)
        velocity = jax.tree.map(
            lambda v, g, p: arguments["momentum"] * v + g + arguments["weight_decay"] * p,
            velocity,
            gradient,
            parameters,
        )
        return jax.tree.map(lambda p, v: p - arguments["learning_rate"] * v, parameters, velocity), velocity, anchor
