"""From the Jacobian in the form of its layers to the kernel, by the cheapest contraction; arrays of any kind.

For a dense layer, which acts at one position, ``J J^T`` is a Hadamard product of two small Gram matrices and costs
``d_in + d_out`` multiplications for each pair where the Jacobian would cost ``d_in d_out``. A layer that acts at few
positions gives a sum of such products over the pairs of them. Where there are many (convolutions, tokens) the sum over
them comes first, and gives that layer's Jacobian in one matrix product. What takes fewer multiplications is taken.

Source: the Hadamard form is standard; Novak, Sohl-Dickstein, Schoenholz 2022 (arXiv 2206.08720) compare contractions.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from separatrix.probes.operators import ProbeError

#: Which kernel: all outputs ``K_ic,jc'``; ``(1/C) sum_c K_ic,jc``; ``(1/C) sum_c,c' K_ic,jc'`` (Mohamadi, Bae,
#: Sutherland 2023). They rotate by different angles: distances of one cannot be compared with those of another.
Contraction: TypeAlias = Literal["full", "class-trace", "sum-of-logits"]
CONTRACTIONS: tuple[str, ...] = get_args(Contraction)

LayerBlock = tuple[Any, Any]

_MOST_POSITIONS = 8  # whose pairs are summed one by one
_PASS = 16  # multiplications in the time of one pass over an entry of the kernel


class TooLargeError(ProbeError):
    """An exact kernel that does not fit the memory; products with probe vectors do."""


def contract(
    layers: Sequence[tuple[LayerBlock, LayerBlock]], rest: Sequence[tuple[Any, Any]], class_trace: bool = False
) -> Any:
    """Kernel between a block of N examples and one of M.

    Parameters
    ----------
    layers
        For each layer ``(inputs, gradients)`` of the first block and of the second: ``(N, T, d_in)`` and
        ``(N, C, T, d_out)``.
    rest
        For each other parameter array its Jacobians ``(N, C, p)`` and ``(M, C, p)``.
    class_trace
        Sum over equal outputs of the two examples.

    Returns
    -------
    ``(N, C, M, C)``, or ``(N, M)`` with ``class_trace``.
    """
    total: Any = 0
    for (inputs, gradients), (others, other_gradients) in layers:
        _, outputs, positions, channels = gradients.shape
        if pairs_are_cheaper(positions, inputs.shape[2], channels, outputs, class_trace):
            total = total + _position_pairs(inputs, gradients, others, other_gradients, class_trace)
        else:
            rows = _layer_jacobian(inputs, gradients)
            columns = rows if others is inputs else _layer_jacobian(others, other_gradients)
            total = total + _gram(rows, columns, class_trace)
    if rest:
        xp = array_namespace(rest[0][0])
        rows = xp.concat([first for first, _ in rest], axis=2)
        same = all(first is second for first, second in rest)
        total = total + _gram(rows, rows if same else xp.concat([second for _, second in rest], axis=2), class_trace)
    return total


def pairs_are_cheaper(positions: int, inputs: int, channels: int, outputs: int, class_trace: bool) -> bool:
    """Whether a layer's part takes fewer multiplications as a sum over pairs of positions than by its Jacobian.

    Parameters
    ----------
    positions, inputs, channels
        T, d_in, d_out.
    outputs
        Number of outputs or combinations of them that are differentiated.
    class_trace
        Whether the result has one entry for a pair of examples.
    """
    entries, products = (1, outputs) if class_trace else (outputs**2, outputs**2)
    pairs = positions**2 * (inputs + products * channels + _PASS * entries)
    return positions <= _MOST_POSITIONS and pairs < products * inputs * channels


def _position_pairs(inputs: Any, gradients: Any, others: Any, other_gradients: Any, class_trace: bool) -> Any:
    """Sum over positions t of one example and s of the other of ``<h(t), h'(s)> <g_c(t), g'_c'(s)>``."""
    total: Any = 0
    for t in range(inputs.shape[1]):
        for s in range(others.shape[1]):
            seen = inputs[:, t, :] @ others[:, s, :].T
            slopes = _gram(gradients[:, :, t, :], other_gradients[:, :, s, :], class_trace)
            total = total + slopes * (seen if class_trace else seen[:, None, :, None])
    return total


def _layer_jacobian(inputs: Any, gradients: Any) -> Any:
    """Jacobian ``(N, C, d_out d_in)`` of a layer's weight."""
    xp = array_namespace(inputs, gradients)
    samples, outputs, positions, channels = gradients.shape
    slopes = xp.reshape(xp.permute_dims(gradients, (0, 1, 3, 2)), (samples, outputs * channels, positions))
    return xp.reshape(slopes @ inputs, (samples, outputs, channels * inputs.shape[2]))


def _gram(rows: Any, columns: Any, class_trace: bool) -> Any:
    xp = array_namespace(rows, columns)
    (samples, outputs, size), others = rows.shape, columns.shape[0]
    one, other = (1, outputs * size) if class_trace else (outputs, size)
    flat = xp.reshape(rows, (samples * one, other))
    product = _symmetric(flat) if rows is columns else flat @ xp.reshape(columns, (others * one, other)).T
    return product if class_trace else xp.reshape(product, (samples, outputs, others, outputs))


def _symmetric(rows: Any) -> Any:
    """``A A^T``. NumPy recognises it and computes half (``syrk``), which PyTorch on a CPU does not."""
    if is_torch_array(rows) and rows.device.type == "cpu":
        array = rows.numpy(force=True)
        return array_namespace(rows).asarray(array @ array.T)
    return rows @ rows.T


def block_of_examples(
    samples: int,
    outputs: int,
    differentiated: int,
    layers: Sequence[tuple[int, int, int]],
    rest: int,
    itemsize: int,
    memory_bytes: int,
    class_trace: bool,
) -> tuple[int, int]:
    """Largest block of examples whose kernel with another block fits the memory, and the bytes that this takes.

    Parameters
    ----------
    samples, outputs, differentiated
        N, C, and the number of outputs or combinations of them that are differentiated.
    layers, rest
        ``(T, d_in, d_out)`` of each layer, and the number of other parameters.
    itemsize
        Bytes of a number.
    memory_bytes
        Bound.
    class_trace
        Whether the result is ``(N, N)``.

    Raises
    ------
    TooLargeError
        If not even the kernel of one example with another fits: one sentence with the bytes it takes.
    """
    example = 2 * differentiated * rest  # and joined to one array
    for positions, inputs, channels in layers:
        # what the layer sees and its copy on the way, the gradients with theirs, the layer's Jacobian
        example += 2 * positions * inputs + 2 * (differentiated + 1) * positions * channels
        by_pairs = pairs_are_cheaper(positions, inputs, channels, differentiated, class_trace)
        example += 0 if by_pairs else differentiated * inputs * channels
    rows = samples * (1 if class_trace else differentiated)

    def bytes_of(block: int) -> int:
        part = 3 * (block * (1 if class_trace else differentiated)) ** 2
        return itemsize * (rows**2 + part + (1 if block == samples else 2) * block * example)

    if bytes_of(samples) <= memory_bytes:
        return samples, bytes_of(samples)
    if bytes_of(1) > memory_bytes:
        raise TooLargeError(
            f"the exact kernel of {samples} examples and {outputs} outputs takes {bytes_of(1) / 2**20:.1f} MiB, more "
            f"than the {memory_bytes / 2**20:.1f} MiB allowed: take fewer examples, another contraction, or products "
            "with probe vectors, which need no kernel"
        )
    block = int(np.searchsorted([bytes_of(b) for b in range(1, samples)], memory_bytes, side="right"))
    return block, bytes_of(block)
