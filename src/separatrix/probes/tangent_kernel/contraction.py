"""From the Jacobian in the form of its layers to the kernel, by the cheapest contraction; arrays of any kind.

For a dense layer, which acts at one position, ``J J^T`` is a Hadamard product of two small Gram matrices and costs
``d_in + d_out`` multiplications for each pair where the Jacobian would cost ``d_in d_out``. Where a layer acts at many
positions (convolutions, tokens) the sum over them comes first, and gives that layer's Jacobian in one matrix product.

Source: the Hadamard form is standard; Novak, Sohl-Dickstein, Schoenholz 2022 (arXiv 2206.08720) compare contractions.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from array_api_compat import array_namespace

from separatrix.probes.operators import ProbeError

#: Which kernel: all outputs ``K_ic,jc'``; ``(1/C) sum_c K_ic,jc``; ``(1/C) sum_c,c' K_ic,jc'`` (Mohamadi, Bae,
#: Sutherland 2023). They rotate by different angles: distances of one cannot be compared with those of another.
Contraction: TypeAlias = Literal["full", "class-trace", "sum-of-logits"]
CONTRACTIONS: tuple[str, ...] = get_args(Contraction)

LayerBlock = tuple[Any, Any]


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
    explicit = list(rest)
    for (inputs, gradients), (others, other_gradients) in layers:
        if inputs.shape[1] == 1:
            seen = inputs[:, 0, :] @ others[:, 0, :].T
            slopes = _gram(gradients[:, :, 0, :], other_gradients[:, :, 0, :], class_trace)
            total = total + slopes * (seen if class_trace else seen[:, None, :, None])
        else:
            rows = _layer_jacobian(inputs, gradients)
            explicit.append((rows, rows if others is inputs else _layer_jacobian(others, other_gradients)))
    if explicit:
        xp = array_namespace(explicit[0][0])
        rows = xp.concat([first for first, _ in explicit], axis=2)
        same = all(first is second for first, second in explicit)
        columns = rows if same else xp.concat([second for _, second in explicit], axis=2)
        total = total + _gram(rows, columns, class_trace)
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
    if class_trace:
        return xp.reshape(rows, (samples, outputs * size)) @ xp.reshape(columns, (others, outputs * size)).T
    product = xp.reshape(rows, (samples * outputs, size)) @ xp.reshape(columns, (others * outputs, size)).T
    return xp.reshape(product, (samples, outputs, others, outputs))


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
    example = differentiated * rest
    for positions, inputs, channels in layers:
        # what the layer sees and its copy on the way, the gradients with theirs, the layer's Jacobian
        example += 2 * positions * inputs + 2 * (differentiated + 1) * positions * channels
        example += 2 * differentiated * inputs * channels if positions > 1 else 0
    rows = samples * (1 if class_trace else differentiated)

    def bytes_of(block: int) -> int:
        part = 3 * (block * (1 if class_trace else differentiated)) ** 2
        return itemsize * (rows**2 + part + 2 * block * example)

    if bytes_of(1) > memory_bytes:
        raise TooLargeError(
            f"the exact kernel of {samples} examples and {outputs} outputs takes {bytes_of(1) / 2**20:.1f} MiB, more "
            f"than the {memory_bytes / 2**20:.1f} MiB allowed: take fewer examples, another contraction, or products "
            "with probe vectors, which need no kernel"
        )
    block = int(np.searchsorted([bytes_of(b) for b in range(1, samples + 1)], memory_bytes, side="right"))
    return block, bytes_of(block)
