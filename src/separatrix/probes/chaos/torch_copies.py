"""Perturbed copies of a PyTorch training: model and optimiser copied together, trained on the same batches.

The tangent map is left to :mod:`separatrix.probes.chaos.tangent`, which needs a step that JAX can trace. On a GPU set
``torch.use_deterministic_algorithms(True)`` and turn the autotuner off; otherwise the unperturbed copy will not keep
its bits and the probe refuses to answer.
"""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from separatrix.probes.chaos.copies import dissimilarity
from separatrix.probes.chaos.measure import Chaos, NotDeterministicError, record_steps
from separatrix.probes.chaos.perturbation import norms, perturbed, random_direction
from separatrix.probes.operators import ProbeError

if TYPE_CHECKING:
    import torch

#: ``train_step(model, optimizer, batch)``: one step, batch and random numbers being determined by ``batch`` alone.
TrainStep = Callable[[Any, Any, Any], object]


def measure_torch_chaos(
    train_step: TrainStep, model: "torch.nn.Module", optimizer: "torch.optim.Optimizer", batches: Sequence[Any], *,
    sigma: float = 1e-5, directions: int = 3, records: int = 10, seed: int = 0,
) -> Chaos:  # fmt: skip
    """The same as :func:`separatrix.probes.chaos.measure.measure_chaos` for a PyTorch model, without the prediction.

    Parameters
    ----------
    train_step
        Makes one step of a model with its optimiser on a batch.
    model, optimizer
        The run now; they are copied and not changed. Only trainable parameters are perturbed, no buffers.
    batches
        The batches to come, in order.
    sigma, directions, records, seed
        As there.

    Raises
    ------
    NotDeterministicError
        If an unperturbed copy does not keep the very bits of the run.
    ProbeError
        If ``sigma`` is too small for the type of the parameters, or there are no batches or fewer than two directions.
    """
    import torch

    if directions < 2 or not batches or records < 1:
        raise ProbeError(
            f"there must be two or more directions, a batch and a record, got {directions}, {len(batches)}, {records}"
        )
    # together, so that each copied optimiser holds the parameters of its own model
    lanes = [copy.deepcopy((model, optimizer)) for _ in range(directions + 2)]
    start = _parameters(model)
    initial = []
    for k, (lane, _) in enumerate(lanes[2:]):
        moved = perturbed(start, random_direction(np.random.default_rng([seed, k]), start), sigma)
        initial.append(_distance(moved, start))
        with torch.no_grad():
            for parameter, value in zip(_trainable(lane), moved, strict=True):
                parameter.copy_(torch.from_numpy(value).to(parameter))
    grid = record_steps(len(batches), records)
    distances, angles, sizes = [], [], []
    for step, batch in enumerate(batches, 1):
        for lane in lanes:
            train_step(*lane, batch)
        if step in grid:
            reference, unperturbed, *copies = (_parameters(lane) for lane, _ in lanes)
            if any(np.any(a != b) for a, b in zip(reference, unperturbed, strict=True)):
                raise NotDeterministicError(step)
            distances.append([_distance(one, reference) for one in copies])
            angles.append([dissimilarity(_single(reference), _single(one))[0] for one in copies])
            sizes.append(norms(_single(reference))[0])
    distance = np.array(distances).T
    grown = distance / np.array(initial)[:, None]
    rate = np.log(grown[:, -1]) / grid[-1]
    return Chaos(
        grid, grown, np.full_like(grown, np.nan), distance / np.array(sizes), np.array(angles).T,
        (float(rate.mean()), float(rate.std(ddof=1) / np.sqrt(directions))),
    )  # fmt: skip


def _trainable(model: "torch.nn.Module") -> "list[torch.nn.Parameter]":
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _parameters(model: "torch.nn.Module") -> list[np.ndarray]:
    return [parameter.detach().cpu().numpy().copy() for parameter in _trainable(model)]


def _single(leaves: list[np.ndarray]) -> list[np.ndarray]:
    return [leaf[None] for leaf in leaves]


def _distance(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    return float(norms([a[None].astype(np.float64) - b for a, b in zip(first, second, strict=True)])[0])
