"""Training runs and their kernels: the runs that are asked about, a lazy control and a chaotic one."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int

from separatrix.lab import Experiment
from separatrix.systems.training_phases.kernel_course import EIGENVALUES, SUBSETS, kernel_course
from separatrix.systems.training_phases.kernel_route import kernel_cost
from separatrix.systems.training_phases.task import kernel_examples, kernel_function
from separatrix.systems.training_phases.training import (
    BatchOrder,
    Course,
    MomentumStep,
    Network,
    as_inputs,
    cross_entropy,
    fresh_states,
    train,
    training_arguments,
)
from separatrix.systems.training_phases.two_phases.settings import (
    Settings,
    kernel_vectors,
    lazy_network,
    network,
    problem,
)

#: Label of the random numbers of a run: of its start and its batches.
LABEL = "two phases"


def arguments(settings: Settings, learning_rate: float, weight_decay: float) -> dict[str, np.ndarray]:
    """Training set and optimiser."""
    split = problem(settings).split
    return training_arguments(
        split.inputs, split.labels, learning_rate, settings.momentum, weight_decay, settings.dtype
    )  # fmt: skip


def batches(settings: Settings) -> BatchOrder:
    """Batches of every run: the same for a member whatever is trained."""
    return BatchOrder(settings.seed, LABEL, len(problem(settings).split.labels), settings.batch_size)


def nonlinear(
    settings: Settings, trained: Network, numbers: dict[str, np.ndarray], members: range, grid: list[int]
) -> Course:
    """States of ordinary training on a grid."""
    start = fresh_states(trained, settings.seed, LABEL, members, settings.dtype)
    return train(MomentumStep(trained), start, batches(settings), list(members), grid, numbers)


@partial(jax.jit, static_argnums=0)
def scores(
    trained: Network, parameters: Any, inputs: Float[Array, "n d"] | Int[Array, "n t"], labels: Int[Array, "n ..."]
) -> tuple[Array, Array]:
    """Accuracy and mean cross-entropy."""
    outputs = trained(parameters, inputs)
    return (outputs.argmax(axis=-1).astype(labels.dtype) == labels).mean(), cross_entropy(outputs, labels)


def samples(settings: Settings, test: bool) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of the training or of the test set."""
    split = problem(settings).split
    chosen = (split.test_inputs, split.test_labels) if test else (split.inputs, split.labels)
    return as_inputs(chosen[0], settings.dtype), chosen[1].astype(np.int32)


def member_of(states: Any, number: int) -> Any:
    """One run out of a pytree of arrays ``(n, ...)``."""
    return jax.tree.map(lambda a: a[number], states)


def _simulate(
    settings: Settings, trained: Network, numbers: dict[str, np.ndarray], grid: list[int], start: int, stop: int
) -> xr.Dataset:
    course = nonlinear(settings, trained, numbers, range(start, stop), grid)
    sets = {"training": samples(settings, test=False), "test": samples(settings, test=True)}

    def one(number: int) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        checkpoints = [member_of(parameters, number) for parameters, _ in course.states]
        diverged = course.diverged_at_step[number] >= 0
        return _kernels(settings, trained, checkpoints, start + number, diverged) | {
            f"{name}_{what}": (("step",), np.array([scores(trained, p, *data)[k] for p in checkpoints], np.float64))
            for name, data in sets.items()
            for k, what in enumerate(("accuracy", "loss"))
        }

    with ThreadPoolExecutor(max_workers=len(jax.devices())) as pool:
        found = list(pool.map(one, range(stop - start)))
    variables = {
        name: (("member", *dimensions), np.stack([each[name][1] for each in found]))
        for name, (dimensions, _) in found[0].items()
    }
    variables["diverged_at_step"] = (("member",), course.diverged_at_step)
    coordinates = {"member": np.arange(start, stop), "step": np.array(grid), "other_step": np.array(grid)}
    return xr.Dataset(variables, coordinates)


_SHAPES = {
    "distance": ("step", "other_step"),
    "standard_error": ("step", "other_step"),
    "subsets": ("subset", "step", "other_step"),
    "class_trace": ("step", "other_step"),
    "sum_of_logits": ("step", "other_step"),
    "norm": ("step",),
    "effective_rank": ("step",),
    "alignment": ("step",),
    "eigenvalues": ("step", "order"),
    "rounding": (),
    "redrawn": (),
}


def _kernels(
    settings: Settings, trained: Network, checkpoints: list[Any], member: int, diverged: bool
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Statistics of the kernels by name; not a number where the run diverged."""
    if diverged:
        sizes = {"step": len(checkpoints), "other_step": len(checkpoints), "subset": SUBSETS, "order": EIGENVALUES}
        return {name: (shape, np.full([sizes[d] for d in shape], np.nan)) for name, shape in _SHAPES.items()}
    data = problem(settings)
    function, examples = kernel_function(data, trained), kernel_examples(settings, data)
    found = kernel_course(function, checkpoints, *examples, kernel_vectors(settings), (settings.seed, member))
    return {name: (shape, np.asarray(getattr(found, name), np.float64)) for name, shape in _SHAPES.items()}


def parameters_of(trained: Network) -> int:
    """Number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(trained.init(np.random.default_rng(0))))


def step_seconds(settings: Settings, trained: Network) -> float:
    """Expected duration of one step of one run, on one core."""
    positions = 1.0
    if settings.network == "transformer":
        positions = 0.8 * settings.context
    elif settings.network == "cnn" and trained != lazy_network(settings):
        shape = problem(settings).image_shape
        positions = 0.3 * shape[0] * shape[1] if shape else 1.0
    return 2e-4 + 4e-10 * settings.batch_size * parameters_of(trained) * positions


def _experiment(
    name: str, settings: Settings, trained: Network, numbers: tuple[float, float], grid: list[int], control: bool
) -> Experiment:
    kernels = kernel_cost(settings, problem(settings), trained, len(grid), kernel_vectors(settings), settings.dtype)
    duration = grid[-1] * step_seconds(settings, trained) + kernels.seconds
    cores = max(len(jax.devices()), 1)
    return Experiment(
        name,
        lambda start, stop: _simulate(settings, trained, arguments(settings, *numbers), grid, start, stop),
        members=settings.runs,
        bytes_per_member=kernels.bytes + 24 * len(grid) * parameters_of(trained),
        seconds=4 + settings.runs * duration / cores,
        control=control,
    )


def run_experiments(settings: Settings) -> list[Experiment]:
    """The runs, a lazy and a chaotic control."""
    rate, decay = settings.learning_rate, settings.weight_decay
    trained = network(settings)
    return [
        _experiment("runs", settings, trained, (rate, decay), settings.grid, control=False),
        _experiment("lazy", settings, lazy_network(settings), (settings.lazy_learning_rate, 0.0),
                    settings.control_grid, control=True),
        _experiment("chaotic", settings, trained, (settings.chaotic_factor * rate, decay), settings.control_grid,
                    control=True),
    ]  # fmt: skip
