"""The exact tangent kernel of a JAX function of a pytree of parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from separatrix.probes.operators import ProbeError
from separatrix.probes.tangent_kernel.blocks import checked_shape, from_blocks, refuse_unknown
from separatrix.probes.tangent_kernel.contraction import Contraction, block_of_examples, contract
from separatrix.probes.tangent_kernel.jax_layers import Factors, LayeredProgram, factor_sizes, factors, trace

Parameters = Any
Function = Callable[[Parameters, Any], Array]


class JaxTangentKernel:
    """``K = J J^T`` of ``function`` on fixed examples, at any parameters of the shapes of those given.

    Rows are ordered by example, then by output. One object compiles once for all checkpoints of a run.

    Parameters
    ----------
    function
        ``(parameters, inputs) -> (N, C)``. It must be deterministic, and the outputs of one example must not depend on
        the others.
    parameters
        Pytree of floating-point arrays; each of its numbers counts as one parameter, tied or not.
    inputs
        Array, or pytree of arrays, with the examples along the first axis.
    contraction
        Which kernel; see :data:`~separatrix.probes.tangent_kernel.contraction.Contraction`.
    memory_bytes
        Bound of the memory for the kernel and what it is made from; examples are taken in blocks that fit.

    Attributes
    ----------
    samples, outputs
        N and C.
    block, predicted_bytes
        Examples taken together, and the memory that this takes.

    Raises
    ------
    ProbeError
        If there are fewer than two examples; outputs are not ``(N, C)`` or not finite, differ from one call to the
        next (dropout), or depend on the other examples (batch norm in training mode); a parameter is not
        floating-point; or the memory does not suffice: one sentence.
    """

    def __init__(
        self,
        function: Function,
        parameters: Parameters,
        inputs: Any,
        *,
        contraction: Contraction = "full",
        memory_bytes: int = 2**30,
    ) -> None:
        refuse_unknown(contraction)
        for leaf in jax.tree.leaves(parameters):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise ProbeError(
                    f"a parameter has dtype {jnp.result_type(leaf)}, but only floating-point ones can vary"
                )
        whole, again = function(parameters, inputs), function(parameters, inputs)
        part = function(parameters, jax.tree.map(lambda a: a[: max(len(a) // 2, 1)], inputs))
        self.samples, self.outputs = checked_shape(whole, again, part)
        self.contraction: Contraction = contraction
        self._inputs = inputs
        self._traced = trace(function, parameters, jax.tree.map(lambda a: a[0], inputs))
        differentiated = 1 if contraction == "sum-of-logits" else self.outputs
        layers, rest = factor_sizes(self._traced)
        self.block, self.predicted_bytes = block_of_examples(
            self.samples, self.outputs, differentiated, layers, rest, max(whole.dtype.itemsize, 4), memory_bytes,
            contraction == "class-trace",
        )  # fmt: skip

    def __call__(self, parameters: Parameters) -> Float[Array, "n n"]:
        """Kernel at these parameters: ``(N C, N C)``, or ``(N, N)`` if it is contracted over outputs."""
        if self.block >= self.samples:
            return _whole(self._traced, self.contraction, parameters, self._inputs)
        part = lambda start: jax.tree.map(lambda a: a[start : start + self.block], self._inputs)  # noqa: E731
        return jnp.asarray(
            from_blocks(
                self.samples,
                self.block,
                lambda start: _factors(self._traced, self.contraction, parameters, part(start)),
                lambda first, second: np.asarray(_pair(self.contraction, first, second)),
            )
        )


def tangent_kernel(
    traced: LayeredProgram, contraction: Contraction, parameters: Parameters, inputs: Any
) -> Float[Array, "n n"]:
    """Kernel within a compiled program, from a function traced by :func:`.jax_layers.trace`; nothing is checked."""
    found = differentiated(traced, contraction, parameters, inputs)
    # Without the barrier XLA's CPU compiler (jaxlib 0.10.2) computes wrong sums of products some of whose factors are
    # constants (the derivatives of the last biases).
    found = jax.lax.optimization_barrier(found)
    return kernel_of(contraction, found, found)


def differentiated(traced: LayeredProgram, contraction: Contraction, parameters: Parameters, inputs: Any) -> Factors:
    """Jacobian of the outputs that the contraction asks for; precision below float32 is raised to it."""
    outputs = traced.program.out_avals[0]
    projection = None
    if contraction == "sum-of-logits":
        projection = jnp.full((outputs.shape[0], 1), outputs.shape[0] ** -0.5, outputs.dtype)
    found = factors(traced, parameters, inputs, projection)
    return jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype.itemsize < 4 else a, found)


def kernel_of(contraction: Contraction, first: Factors, second: Factors) -> Array:
    """Kernel between two blocks of examples, a matrix."""
    trace_only = contraction == "class-trace"
    part = contract(
        list(zip(first.layers, second.layers, strict=True)),
        list(zip(first.rest, second.rest, strict=True)),
        trace_only,
    )
    if not trace_only:
        return part.reshape(part.shape[0] * part.shape[1], -1)
    outputs = (first.layers[0].gradients if first.layers else first.rest[0]).shape[1]
    return part / outputs


_whole = jax.jit(tangent_kernel, static_argnums=(0, 1))
_factors = jax.jit(differentiated, static_argnums=(0, 1))
_pair = jax.jit(kernel_of, static_argnums=0)
