"""What a probe asks of a model: derivatives of its loss and of its outputs as products with flat vectors.

A model is a set of parameters, a fixed set of data and a loss. :class:`.JaxModel` and :class:`.TorchModel` turn both
frameworks' models into the operators below, so that a probe is written once. Vectors are arrays of the model's own
framework on its device, so that a basis of a hundred of them never leaves it; the numbers of a probe itself (the
coefficients of a recurrence, a mean) are Python floats and NumPy arrays.

Every product takes one vector or a block of them, with the block along the leading axis.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

#: An array of the model's framework.
Array = Any


class ProbeError(ValueError):
    """A model or data that a probe cannot work with; its text is one sentence."""


@runtime_checkable
class ModelOperators(Protocol):
    """A differentiable model at given parameters, with the data its loss is taken over.

    ``P`` is the number of trained parameters, ``N`` that of examples, and ``outputs`` the shape of the outputs of all
    examples, ``(N, ...)``. The loss is a mean (or a sum) over the examples.
    """

    @property
    def size(self) -> int:
        """Number of parameters P."""
        ...

    @property
    def examples(self) -> int:
        """Number of examples N."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Of vectors and products: float32 or float64; models of lower precision are computed in float32."""
        ...

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Place of each named parameter in a flat vector, in order; together they cover it."""
        ...

    @property
    def reduction(self) -> str:
        """Whether the loss is the ``"mean"`` or the ``"sum"`` over the examples."""
        ...

    @property
    def parameters(self) -> Array:
        """The parameters as one vector, ``(P,)``."""
        ...

    def vector(self, values: np.ndarray) -> Array:
        """NumPy values as an array of the framework: same shape, the model's dtype and device."""
        ...

    def flatten(self, values: Any) -> Array:
        """What has the structure of the parameters (a gradient, an optimizer's second moments) as a vector, ``(P,)``.

        Raises
        ------
        ProbeError
            If the structure is another.
        """
        ...

    def free_memory(self) -> int:
        """Bytes that vectors and linearisations may take: half of what is free on the device."""
        ...

    def subset(self, examples: Sequence[int] | np.ndarray) -> "ModelOperators":
        """The same model on some of its examples, a mini-batch; numbers count through the batches in order.

        Raises
        ------
        ProbeError
            If the examples lie in batches that cannot be joined, or the loss is not a mean or sum over examples.
        """
        ...

    def at(self, parameters: Any) -> "ModelOperators":
        """The same model and data at other parameters, those of a later step; nothing is checked or compiled again.

        Parameters
        ----------
        parameters
            In JAX, a pytree like that of the model; in PyTorch, a module with the same parameters and buffers.

        Raises
        ------
        ProbeError
            If the parameters are others.
        """
        ...

    def loss(self) -> float:
        """Loss over all examples."""
        ...

    def gradient(self) -> Array:
        """Gradient of the loss, ``(P,)``."""
        ...

    def hvp(self, v: Array) -> Array:
        """Products of the loss's Hessian with ``v``, ``(P,)`` or ``(k, P)``."""
        ...

    def gauss_newton(self, v: Array) -> Array:
        """Products of the Gauss-Newton matrix ``J^T (d^2 loss / d outputs^2) J`` with ``v``, ``(P,)`` or ``(k, P)``.

        Raises
        ------
        ProbeError
            If the model gives its loss and no outputs; also for the three operators below.
        """
        ...

    def outputs(self) -> Array:
        """Outputs of all examples, ``(N, ...)``."""
        ...

    def jvp(self, v: Array) -> Array:
        """Change of the outputs along ``v``, ``J v``: ``outputs`` for ``(P,)``, ``(k, *outputs)`` for ``(k, P)``."""
        ...

    def vjp(self, u: Array) -> Array:
        """``J^T u``: ``(P,)`` for ``u`` of shape ``outputs``, ``(k, P)`` for ``(k, *outputs)``."""
        ...

    def per_example_gradients(self, chunk: int | None = None) -> Iterator[Array]:
        """Gradient of every example's own loss, ``(m, P)`` for m examples at a time, in order.

        Under ``reduction="mean"`` their mean is the gradient, under ``"sum"`` their sum.

        Parameters
        ----------
        chunk
            Most examples at a time; by default as many as keep the block within the caches and the memory.

        Raises
        ------
        ProbeError
            If the loss of a batch is not the mean (or sum) of the losses of its examples, as with batch statistics.
        """
        ...

    def per_example_moments(
        self, centre: Array, chunk: int | None = None
    ) -> tuple[Float[np.ndarray, "N B"], Float[np.ndarray, "N B"]]:
        """Of every example's deviation ``g_i - c`` in each of the B blocks: ``|g_i - c|^2`` and ``(g_i - c) . c``.

        The gradients are never kept: what a tile of them leaves behind are these numbers.

        Parameters
        ----------
        centre
            c, ``(P,)``.
        chunk
            As of :meth:`per_example_gradients`.

        Raises
        ------
        ProbeError
            As :meth:`per_example_gradients`.
        """
        ...


def parameter_blocks(names: Sequence[str], sizes: Sequence[int]) -> dict[str, slice]:
    """Consecutive slices of the given sizes by name."""
    ends = np.cumsum([0, *sizes]).tolist()
    return {name: slice(start, stop) for name, start, stop in zip(names, ends[:-1], ends[1:], strict=True)}


def as_rows(v: Array, size: int) -> tuple[Array, bool]:
    """A vector or a block of vectors as a block, ``(k, P)``, and whether it was a single vector.

    Raises
    ------
    ProbeError
        If the shape is another.
    """
    if v.ndim not in (1, 2) or v.shape[-1] != size:
        raise ProbeError(f"a vector of this model has shape ({size},) and a block (k, {size}), got {tuple(v.shape)}")
    return (v[None], True) if v.ndim == 1 else (v, False)


def as_cotangents(u: Array, outputs: tuple[int, ...]) -> tuple[Array, bool]:
    """Vectors of the shape of the outputs as a block, ``(k, *outputs)``, and whether it was a single one.

    Raises
    ------
    ProbeError
        If the shape is another.
    """
    if outputs not in (tuple(u.shape), tuple(u.shape[1:])):
        raise ProbeError(f"the outputs have shape {outputs}, got {tuple(u.shape)}")
    return (u[None], True) if tuple(u.shape) == outputs else (u, False)


def weighted_sum(parts: Iterable[tuple[Array, float]]) -> Array:
    """Sum of arrays times their weights, of which there is at least one; a weight of one costs nothing."""
    scaled = (part if weight == 1.0 else part * weight for part, weight in parts)
    total = next(scaled)
    for part in scaled:
        total = total + part
    return total


def rows_of_batches(
    examples: Sequence[int] | np.ndarray, sizes: Sequence[int]
) -> list[tuple[int, Int[np.ndarray, " m"]]]:
    """Which rows of which batches are these examples? Examples are numbered through the batches in order.

    Returns
    -------
    Number of each batch that holds some of them, and their rows in it, in the order asked for.

    Raises
    ------
    ProbeError
        If they are not a list of numbers of examples.
    """
    chosen = np.asarray(examples, np.int64)
    ends = np.cumsum([0, *sizes])
    if chosen.ndim != 1 or chosen.size == 0 or chosen.min() < 0 or chosen.max() >= ends[-1]:
        raise ProbeError(f"examples must be numbers from 0 to {ends[-1] - 1}")
    batch = np.searchsorted(ends, chosen, side="right") - 1
    return [(int(number), chosen[batch == number] - ends[number]) for number in np.unique(batch)]


def examples_together(chunk: int | None, gradient_bytes: int, together_bytes: int, free_memory: int) -> int:
    """Examples whose gradients are taken together: ``chunk`` if it is given, else as many as fit.

    Parameters
    ----------
    chunk
        What the caller asked for.
    gradient_bytes, together_bytes
        Bytes of one gradient, and of as many as should be taken together.
    free_memory
        Bytes that may be taken, for the gradients and three temporaries as large.

    Raises
    ------
    ProbeError
        If ``chunk`` is less than 1.
    """
    if chunk is None:
        return max(1, min(together_bytes // gradient_bytes, free_memory // (4 * gradient_bytes)))
    if chunk < 1:
        raise ProbeError(f"chunk must be at least 1, got {chunk}")
    return chunk
