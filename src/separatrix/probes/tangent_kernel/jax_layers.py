"""Where in a JAX function are weights applied as layers, and what do they see? Found by reading the traced program.

A weight ``W`` that is used once, in a matrix product or a convolution ``y = h W``, has the Jacobian

    d f_c / d W = sum over positions t of  h_t (d f_c / d y_t)^T,

so that two small arrays, inputs and back-propagated gradients, stand for a large one. The function is traced for one
example, calls of compiled functions are unfolded, and a zero is added to the output of every layer: the derivative with
respect to that zero is the back-propagated gradient. Weights that are used twice (tied), inside a loop, or in any other
way, and biases, are differentiated as they are. Whatever the program looks like, the result is the exact Jacobian; its
form decides only how fast the kernel is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun
from jaxtyping import Array

Parameters = Any
#: Calls whose body is a program of its own that can be read in place.
_CALLS = ("pjit", "jit", "closed_call", "core_call")
#: Operations on a weight that only move its entries about.
_RESHAPES = ("transpose", "reshape", "squeeze", "copy")


class LayerFactors(NamedTuple):
    """Jacobian of one layer's weight as inputs and back-propagated gradients.

    Attributes
    ----------
    inputs
        ``(N, T, d_in)``: what the layer sees at its T positions (1 for a dense layer).
    gradients
        ``(N, C, T, d_out)``: gradient of each output with respect to what the layer puts out.
    """

    inputs: Array
    gradients: Array


class Factors(NamedTuple):
    """The whole Jacobian of N examples and C outputs: layers, and the rest as it is, ``(N, C, p)`` each."""

    layers: tuple[LayerFactors, ...]
    rest: tuple[Array, ...]


@dataclass(frozen=True)
class _Layer:
    """One equation of the program that applies a weight; ``place`` is its position among the operands."""

    equation: int
    leaf: int
    place: int


@dataclass(frozen=True, eq=False)
class LayeredProgram:
    """A function of (parameters, one example), traced, with the layers found in it."""

    program: ClosedJaxpr
    layers: tuple[_Layer, ...]
    leaves: int

    @property
    def rest(self) -> tuple[int, ...]:
        """Numbers of the parameter arrays that are not weights of layers."""
        taken = {layer.leaf for layer in self.layers}
        return tuple(leaf for leaf in range(self.leaves) if leaf not in taken)


def trace(function: Callable[[Parameters, Array], Array], parameters: Parameters, example: Any) -> LayeredProgram:
    """Trace ``function(parameters, batch)`` for a batch of one and find its layers.

    Only shapes and dtypes of ``parameters`` and of ``example`` (one example, without batch axis) are read.
    """
    shapes, structure = jax.tree.flatten(jax.tree.map(_shape, parameters))

    def one(leaves: Sequence[Array], x: Any) -> Array:
        batch = jax.tree.map(lambda a: a[None], x)
        return function(jax.tree.unflatten(structure, leaves), batch)[0]

    folded = jax.make_jaxpr(one)(shapes, jax.tree.map(_shape, example))
    flat = jax.make_jaxpr(lambda *values: _unfolded(folded, values))(*folded.in_avals)
    return LayeredProgram(flat, _find_layers(flat, len(shapes)), len(shapes))


def factors(traced: LayeredProgram, parameters: Parameters, inputs: Any, projection: Array | None = None) -> Factors:
    """Jacobian of a batch of N examples in the form of its layers.

    Parameters
    ----------
    traced
        From :func:`trace`.
    parameters, inputs
        Pytrees of arrays; ``inputs`` with a leading axis N.
    projection
        ``(C, q)``: differentiate these q combinations of the outputs instead of the outputs.
    """
    leaves = jax.tree.leaves(parameters)
    rest = tuple(leaves[number] for number in traced.rest)

    def one(x: Any) -> tuple[tuple[Array, ...], tuple[tuple[Array, ...], tuple[Array, ...]]]:
        taps = tuple(jnp.zeros(_output(traced, layer).shape, _output(traced, layer).dtype) for layer in traced.layers)

        def outputs(taps: tuple[Array, ...], rest: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
            whole = list(leaves)
            for number, value in zip(traced.rest, rest, strict=True):
                whole[number] = value
            logits, seen = _tapped(traced, whole, jax.tree.leaves(x), taps)
            return logits if projection is None else projection.T @ logits, seen

        slopes, seen = jax.jacrev(outputs, argnums=(0, 1), has_aux=True)(taps, rest)
        return seen, slopes

    seen, (slopes, others) = jax.vmap(one)(inputs)
    layers = tuple(
        LayerFactors(inputs, _as_rows(traced, layer, gradients))
        for layer, inputs, gradients in zip(traced.layers, seen, slopes, strict=True)
    )
    return Factors(layers, tuple(other.reshape(*other.shape[:2], -1) for other in others))


def factor_sizes(traced: LayeredProgram) -> tuple[list[tuple[int, int, int]], int]:
    """``(T, d_in, d_out)`` of each layer, and the number of other parameters."""
    sizes = []
    for layer in traced.layers:
        weight = traced.program.jaxpr.eqns[layer.equation].invars[layer.place].aval
        channels = _output_channels(traced, layer)
        positions = math.prod(_output(traced, layer).shape) // channels
        sizes.append((positions, math.prod(weight.shape) // channels, channels))
    leaves = traced.program.in_avals[: traced.leaves]
    return sizes, sum(math.prod(leaves[number].shape) for number in traced.rest)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


# -- reading the program --------------------------------------------------------------------------------------------


def _unfolded(program: ClosedJaxpr, values: Sequence[Array]) -> list[Array]:
    """Evaluate with the bodies of compiled functions in place, so that a trace of it has no calls."""
    known = _Values(program, values)
    for equation in program.jaxpr.eqns:
        operands = known.read(equation.invars)
        if equation.primitive.name in _CALLS:
            body = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            known.write(equation.outvars, _unfolded(body, operands))
        else:
            known.write(equation.outvars, _evaluated(program, equation, operands))
    return known.read(program.jaxpr.outvars)


class _Values:
    """Values of the variables of a program as it is evaluated."""

    def __init__(self, program: ClosedJaxpr, inputs: Sequence[Any]) -> None:
        self._table: dict[Any, Any] = {}
        self.write(program.jaxpr.constvars, program.consts)
        self.write(program.jaxpr.invars, inputs)

    def read(self, variables: Sequence[Any]) -> list[Any]:
        return [v.val if isinstance(v, Literal) else self._table[v] for v in variables]

    def write(self, variables: Sequence[Any], values: Sequence[Any]) -> None:
        self._table.update(zip(variables, values, strict=True))


def _evaluated(program: ClosedJaxpr, equation: Any, operands: Sequence[Any]) -> Sequence[Any]:
    """Results of one equation, as a program of its own: how to call a primitive differs between versions of JAX."""
    inputs = {v: value for v, value in zip(equation.invars, operands, strict=True) if not isinstance(v, Literal)}
    alone = program.jaxpr.replace(constvars=[], invars=list(inputs), outvars=equation.outvars, eqns=[equation])
    return jaxpr_as_fun(ClosedJaxpr(alone, []))(*inputs.values())


def _find_layers(program: ClosedJaxpr, leaves: int) -> tuple[_Layer, ...]:
    """Weights whose only use is as an operand of a layer, possibly after being transposed or reshaped."""
    jaxpr = program.jaxpr
    names = dict(zip(jaxpr.invars[:leaves], range(leaves), strict=True))
    uses: dict[int, list[_Layer | None]] = {leaf: [] for leaf in range(leaves)}
    for number, equation in enumerate(jaxpr.eqns):
        for place, variable in enumerate(equation.invars):
            if isinstance(variable, Literal) or variable not in names:
                continue
            leaf = names[variable]
            if equation.primitive.name in _RESHAPES:
                names[equation.outvars[0]] = leaf
            else:
                uses[leaf].append(_Layer(number, leaf, place) if _applies(equation, place) else None)
    for variable in jaxpr.outvars:
        if not isinstance(variable, Literal) and variable in names:
            uses[names[variable]].append(None)
    once = [found[0] for found in uses.values() if len(found) == 1]
    return tuple(sorted((layer for layer in once if layer is not None), key=lambda layer: layer.equation))


def _applies(equation: Any, place: int) -> bool:
    """Whether the operand at ``place`` is the weight of a layer that :func:`_seen` can read."""
    name, options = equation.primitive.name, equation.params
    if name == "dot_general":
        return not options["dimension_numbers"][1][0]
    if name == "conv_general_dilated":
        return place == 1 and options["feature_group_count"] == 1 and options["batch_group_count"] == 1
    return False


def _tapped(
    traced: LayeredProgram, leaves: Sequence[Array], x: Sequence[Array], taps: Sequence[Array]
) -> tuple[Array, tuple[Array, ...]]:
    """Outputs with ``taps`` added to what the layers put out, and what each layer sees, ``(T, d_in)``."""
    known = _Values(traced.program, [*leaves, *x])
    number = {layer.equation: k for k, layer in enumerate(traced.layers)}
    seen: list[Array] = []
    for index, equation in enumerate(traced.program.jaxpr.eqns):
        operands = known.read(equation.invars)
        results = _evaluated(traced.program, equation, operands)
        if index in number:
            k = number[index]
            results = [results[0] + taps[k]]
            seen.append(_seen(equation, traced.layers[k].place, operands))
        known.write(equation.outvars, results)
    return known.read(traced.program.jaxpr.outvars)[0], tuple(seen)


# -- layers as matrix products ----------------------------------------------------------------------------------------


def _output(traced: LayeredProgram, layer: _Layer) -> Any:
    return traced.program.jaxpr.eqns[layer.equation].outvars[0].aval


def _free(equation: Any, place: int) -> list[int]:
    """Axes of an operand of a matrix product that are not summed over."""
    summed = equation.params["dimension_numbers"][0][place]
    return [axis for axis in range(len(equation.invars[place].aval.shape)) if axis not in summed]


def _output_channels(traced: LayeredProgram, layer: _Layer) -> int:
    equation = traced.program.jaxpr.eqns[layer.equation]
    weight = equation.invars[layer.place].aval.shape
    if equation.primitive.name == "dot_general":
        return math.prod(weight[axis] for axis in _free(equation, layer.place))
    return weight[equation.params["dimension_numbers"].rhs_spec[0]]


def _seen(equation: Any, place: int, operands: Sequence[Array]) -> Array:
    """Input of a layer as a matrix ``(T, d_in)`` whose product with the weight is the layer's output."""
    other = operands[1 - place]
    options = equation.params
    if equation.primitive.name == "dot_general":
        free, summed = _free(equation, 1 - place), list(options["dimension_numbers"][0][1 - place])
        rows = math.prod(other.shape[axis] for axis in free)
        return jnp.transpose(other, [*free, *summed]).reshape(rows, -1)
    numbers, weight = options["dimension_numbers"], operands[1].shape
    patches = jax.lax.conv_general_dilated_patches(
        other,
        filter_shape=[weight[axis] for axis in numbers.rhs_spec[2:]],
        window_strides=options["window_strides"],
        padding=options["padding"],
        lhs_dilation=options["lhs_dilation"],
        rhs_dilation=options["rhs_dilation"],
        dimension_numbers=numbers,
    )
    return jnp.moveaxis(patches, numbers.out_spec[1], -1).reshape(-1, patches.shape[numbers.out_spec[1]])


def _as_rows(traced: LayeredProgram, layer: _Layer, gradients: Array) -> Array:
    """Gradients ``(N, C, *output)`` as ``(N, C, T, d_out)``, positions in the order of :func:`_seen`."""
    equation = traced.program.jaxpr.eqns[layer.equation]
    channels = _output_channels(traced, layer)
    if equation.primitive.name == "dot_general":
        free = len(_free(equation, 1 - layer.place))
        if layer.place == 0:  # the weight's axes come first in the output
            ahead = len(equation.outvars[0].aval.shape) - free
            order = [0, 1, *range(2 + ahead, 2 + ahead + free), *range(2, 2 + ahead)]
            gradients = jnp.transpose(gradients, order)
    else:
        gradients = jnp.moveaxis(gradients, 2 + equation.params["dimension_numbers"].out_spec[1], -1)
    return gradients.reshape(*gradients.shape[:2], -1, channels)
