"""Perturbed copies of a PyTorch training: model and optimiser copied together, trained on the same batches.

On a GPU set ``torch.use_deterministic_algorithms(True)`` and turn the autotuner off; otherwise the unperturbed copy
will not keep its bits and the probe refuses to answer.
"""

import copy
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from separatrix.probes.chaos.copies import dissimilarity
from separatrix.probes.chaos.measure import BlownUpError, Chaos, NotDeterministicError, record_steps
from separatrix.probes.chaos.perturbation import norms, perturbed, random_direction
from separatrix.probes.chaos.torch_tangent import BatchLoss, TorchTangent, refuse_narrow, trained
from separatrix.probes.operators import ProbeError

if TYPE_CHECKING:
    import torch

#: ``train_step(model, optimizer, batch)``: one step, batch and random numbers being determined by ``batch`` alone.
TrainStep = Callable[[Any, Any, Any], object]


def measure_torch_chaos(
    train_step: TrainStep, model: "torch.nn.Module", optimizer: "torch.optim.Optimizer", batches: Iterable[Any], *,
    loss: BatchLoss | None = None, sigma: float = 1e-5, directions: int = 3, records: int = 10, seed: int = 0,
) -> Chaos:  # fmt: skip
    """The same as :func:`separatrix.probes.chaos.measure.measure_chaos` for a PyTorch model.

    Parameters
    ----------
    train_step
        Makes one step of a model with its optimiser on a batch.
    model, optimizer
        The run now; they are copied and not changed. Only trainable parameters are perturbed, no buffers.
    batches
        The batches to come, in order.
    loss
        ``loss(model, batch)``, of which the step takes the gradient: with it, the prediction of the tangent map is made
        too (:class:`.torch_tangent.TorchTangent`), for ``torch.optim.SGD``.
    sigma, directions, records, seed
        As there.

    Raises
    ------
    NotDeterministicError
        If an unperturbed copy does not keep the very bits of the run.
    BlownUpError
        If the run itself stops being finite.
    ProbeError
        If ``sigma`` is too small for the type of the parameters, there are no batches or fewer than two directions, or
        as of :class:`.torch_tangent.TorchTangent`.
    """
    import torch

    refuse_narrow(model)
    batches = list(batches)
    if directions < 2 or not batches or records < 1:
        raise ProbeError(
            f"there must be two or more directions, a batch and a record, got {directions}, {len(batches)}, {records}"
        )
    # together, so that each copied optimiser holds the parameters of its own model
    lanes = [copy.deepcopy((model, optimizer)) for _ in range(directions + 2)]
    start = _parameters(model)
    ways = [random_direction(np.random.default_rng([seed, k]), start) for k in range(directions)]
    tangent = None if loss is None else TorchTangent(*lanes[0], loss, ways)
    initial = []
    for way, (lane, _) in zip(ways, lanes[2:], strict=True):
        moved = perturbed(start, way, sigma)
        initial.append(_distance(moved, start))
        with torch.no_grad():
            for parameter, value in zip(trained(lane), moved, strict=True):
                parameter.copy_(torch.from_numpy(value).to(parameter))
    grid = record_steps(len(batches), records)
    distances, angles, sizes, growth = [], [], [], []
    for step, batch in enumerate(batches, 1):
        with nullcontext() if tangent is None else tangent.following(batch):
            train_step(*lanes[0], batch)
        for lane in lanes[1:]:
            train_step(*lane, batch)
        if step in grid:
            reference, unperturbed, *copies = (_parameters(lane) for lane, _ in lanes)
            sizes.append(norms(_single(reference))[0])
            if not np.isfinite(sizes[-1]):
                raise BlownUpError(step)
            if any(np.any(a != b) for a, b in zip(reference, unperturbed, strict=True)):
                raise NotDeterministicError(step)
            distances.append([_distance(one, reference) for one in copies])
            angles.append([dissimilarity(_single(reference), _single(one))[0] for one in copies])
            if tangent is not None:
                growth.append(tangent.growth)
    distance = np.array(distances).T
    return Chaos(
        grid, distance / np.array(initial)[:, None], np.array(growth).T if growth else None,
        distance / np.array(sizes), np.array(angles).T,
    )  # fmt: skip


def _parameters(model: "torch.nn.Module") -> list[np.ndarray]:
    return [parameter.detach().cpu().numpy().copy() for parameter in trained(model)]


def _single(leaves: list[np.ndarray]) -> list[np.ndarray]:
    return [leaf[None] for leaf in leaves]


def _distance(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    return float(norms([a[None].astype(np.float64) - b for a, b in zip(first, second, strict=True)])[0])
