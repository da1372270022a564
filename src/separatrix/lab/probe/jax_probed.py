"""A JAX function of parameters as the probes of the command line see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from separatrix.probes.chaos.measure import Chaos, measure_chaos
from separatrix.probes.jax_model import JaxModel
from separatrix.probes.tangent_kernel.jax_kernel import JaxTangentKernel

if TYPE_CHECKING:
    from separatrix.lab.probe.settings import ProbeSettings


def cross_entropy(outputs: Float[Array, "N ... C"], targets: Int[Array, "N ..."]) -> Float[Array, ""]:
    """Mean over examples (and positions) of the negative log-probability of the target."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[..., None], axis=-1))


def mean_square(outputs: Float[Array, "N ..."], targets: Float[Array, "N ..."]) -> Float[Array, ""]:
    """Mean over examples and outputs."""
    return jnp.mean((outputs - targets) ** 2)


_LOSSES = {"cross-entropy": cross_entropy, "mse": mean_square}


class JaxProbed:
    """``function(params, inputs) -> outputs`` with data and a loss (:class:`.Model`).

    Parameters
    ----------
    function
        Of a pytree of parameters.
    data
        Inputs and targets; floating-point inputs are computed in the type of the parameters.
    loss
        By name, or ``(outputs, targets) -> mean over the examples``.
    """

    def __init__(self, function: Callable, data: tuple[np.ndarray, np.ndarray], loss: str | Callable) -> None:
        self._function, self._data = function, data
        self._loss = _LOSSES[loss] if isinstance(loss, str) else loss
        self._compiled = jax.jit(function)
        self._compiled_losses = jax.jit(jax.vmap(lambda z, y: self._loss(z[None], y[None])))
        self._kernels: dict[Any, JaxTangentKernel] = {}

    def load(self, tree: Any) -> Any:
        """Arrays as they are, those of less than 32 bits in float32."""
        return jax.tree.map(_widened, tree)

    def finite(self, parameters: Any) -> bool:
        """Whether all parameters and the loss are finite."""
        if not all(bool(np.all(np.isfinite(a))) for a in jax.tree.leaves(parameters)):
            return False
        return bool(np.isfinite(self.loss(self.outputs(parameters))))

    def operators(self, parameters: Any, examples: int | None = None) -> JaxModel:
        """Derivatives at these parameters, on the first examples or all."""
        inputs, targets = self._examples(parameters, examples)
        return JaxModel(self._function, parameters, (inputs, targets), self._loss)

    def outputs(self, parameters: Any) -> Array:
        """Outputs of all examples; a JAX function has no batch statistics but its parameters."""
        with jax.default_matmul_precision("float32"):
            return self._compiled(parameters, self._examples(parameters)[0])

    def loss(self, outputs: Array) -> float:
        """Loss of the outputs of all examples."""
        return float(self._loss(outputs, self._targets(outputs.dtype)))

    def example_losses(self, outputs: Array) -> Float[np.ndarray, " N"]:
        """Loss of each example."""
        return np.asarray(self._compiled_losses(outputs, self._targets(outputs.dtype)), np.float64)

    @property
    def targets(self) -> np.ndarray:
        """Of all examples."""
        return self._data[1]

    def tangent_kernel(
        self, parameters: Any, examples: int, contraction: Any, memory_bytes: int
    ) -> Callable[[], Float[np.ndarray, "n n"]]:
        """What computes the exact tangent kernel of the first examples; compiled once for all checkpoints."""
        key = examples, contraction, memory_bytes
        if key not in self._kernels:
            inputs, _ = self._examples(parameters, examples)
            self._kernels[key] = JaxTangentKernel(
                self._function, parameters, jnp.asarray(inputs), contraction=contraction, memory_bytes=memory_bytes
            )
        return lambda: np.asarray(self._kernels[key](parameters))

    def chaos(self, parameters: Any, batches: Int[np.ndarray, "T B"], records: int, s: ProbeSettings) -> Chaos:
        """Perturbed copies and the prediction of the tangent map."""
        leaves, structure = jax.tree.flatten(parameters)
        trained = tuple(np.issubdtype(a.dtype, np.floating) for a in leaves)
        floating = [a for a, on in zip(leaves, trained, strict=True) if on]
        constants = [a for a, on in zip(leaves, trained, strict=True) if not on]
        assert s.learning_rate is not None
        rates = np.asarray([s.learning_rate, s.momentum], floating[0].dtype)
        return measure_chaos(
            _Descent(self._function, self._loss, structure, trained), (floating, [np.zeros_like(a) for a in floating]),
            batches, sigma=s.sigma, directions=s.directions, records=records, seed=s.seed,
            arguments=(*self._examples(parameters), constants, rates),
        )  # fmt: skip

    def _examples(self, parameters: Any, examples: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        wide = any(a.dtype == np.float64 for a in jax.tree.leaves(parameters))
        return tuple(_in(a[:examples], np.float64 if wide else np.float32) for a in self._data)  # pyright: ignore[reportReturnType]

    def _targets(self, dtype: Any) -> Array:
        return jnp.asarray(_in(self._data[1], dtype))


@dataclass(frozen=True)
class _Descent:
    """A step of stochastic gradient descent with momentum (the heavy ball), on the examples of a batch."""

    function: Callable
    loss: Callable
    structure: Any
    trained: tuple[bool, ...]

    def __call__(
        self, state: Any, batch: Int[Array, " B"], inputs: Array, targets: Array, constants: list[Array],
        rates: Float[Array, " 2"],
    ) -> Any:  # fmt: skip
        moving, velocity = state

        def value(moving: list[Array]) -> Array:
            own, fixed = iter(moving), iter(constants)
            parameters = self.structure.unflatten([next(own if on else fixed) for on in self.trained])
            return self.loss(self.function(parameters, inputs[batch]), targets[batch])

        slopes = jax.grad(value)(moving)
        velocity = [rates[1].astype(v.dtype) * v + g for v, g in zip(velocity, slopes, strict=True)]
        return [p - rates[0].astype(p.dtype) * v for p, v in zip(moving, velocity, strict=True)], velocity


def _widened(array: Any) -> np.ndarray:
    array = np.asarray(array)
    narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
    return array.astype(np.float32) if narrow else array


def _in(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Floating-point numbers in the type of the computation, others as they are."""
    return array.astype(dtype) if array.dtype.kind == "f" else array
