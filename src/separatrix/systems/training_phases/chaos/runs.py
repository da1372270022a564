"""What is simulated: training runs and their copies, perturbed, identical, on other batches, slow, or with kinks."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from separatrix.lab import Experiment
from separatrix.networks.activations import Activation
from separatrix.networks.mlp import MLP
from separatrix.probes.chaos.copies import Separation, separate
from separatrix.probes.chaos.perturbation import perturbed, random_direction, unit
from separatrix.probes.chaos.tangent import tangent_growth
from separatrix.probes.connectivity import direction_dissimilarity, disagreement, interpolated, loss_barrier
from separatrix.systems.training_phases.chaos.settings import Settings, kernel_vectors, network, problem
from separatrix.systems.training_phases.chaos.sharpness import (
    BATCH_STEPS,
    BATCHES,
    CHUNK,
    FULL_STEPS,
    MOST_SAMPLES,
    curvature_course,
    mean_over_chunks,
)
from separatrix.systems.training_phases.kernel_course import kernel_distances
from separatrix.systems.training_phases.kernel_route import kernel_cost
from separatrix.systems.training_phases.task import Task, kernel_examples, kernel_function
from separatrix.systems.training_phases.training import (
    BatchOrder,
    MomentumStep,
    Network,
    as_inputs,
    cross_entropy,
    fresh_states,
    training_arguments,
)

#: Learning rate of the slow control over that of the others.
SLOWER = 0.1
#: Shares of the way between two networks at which the loss is recorded.
BARRIER_POINTS = 13
#: The barrier is located to this share of the way.
BARRIER_TOLERANCE = 0.01
#: Steps after a perturbation at which networks with kinks are compared to their tangents.
KINK_RECORDS = (2, 4, 6, 8, 10, 15, 20, 30, 40)
#: Networks evaluated together, and inputs.
_TOGETHER, _TILE = 16, 512

Parameters = Any


def run_experiments(settings: Settings) -> list[Experiment]:
    """The runs with perturbed copies, and those that only controls need."""
    data, steps = problem(settings), sum(settings.steps - step for step in settings.spawn_steps)
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(network(settings).init(np.random.default_rng(0))))
    # Measured on two cores: 2.8e-10 s for each parameter, sample and step of a copy, tangents three times as much.
    image = data.image_shape
    positions = {
        "mlp": 1, "cnn": 0.3 * image[0] * image[1] if image else 1, "transformer": settings.context,
    }[settings.network]  # fmt: skip
    unit_cost = 2.8e-10 * size * settings.batch_size * settings.runs * positions
    lanes = settings.directions + 1
    late = (0, settings.spawn_steps[-1])
    slow_steps = 2 * settings.steps - late[1] + settings.steps
    item = 8 if settings.dtype == "float64" else 4
    make = partial(Experiment, members=settings.runs)
    outputs = data.split.test_labels.size * data.classes
    bytes_of = lambda copies: item * (size * 2 * 4 + 2 * outputs) * (1 + copies) + 10**7  # noqa: E731
    kernels = kernel_cost(
        settings, data, network(settings), len(settings.records), kernel_vectors(settings), settings.dtype
    )
    kinds = [
        make("copies", partial(_simulate_copies, settings),
             bytes_per_member=bytes_of(lanes * len(settings.spawn_steps)) + kernels.bytes
             + 4 * item * size * len(settings.records),
             seconds=12 + unit_cost * (lanes * steps + 3 * steps + settings.steps + _curvature_steps(settings))
             + settings.runs * kernels.seconds),
        make("identical", partial(_simulate_others, settings, "identical"), bytes_per_member=bytes_of(2),
             seconds=1 + unit_cost * slow_steps),
        make("slow", partial(_simulate_others, settings, "slow"), bytes_per_member=bytes_of(2),
             seconds=2 + unit_cost * slow_steps, control=True),
        make("reordered", partial(_simulate_others, settings, "reordered"), control=True,
             bytes_per_member=bytes_of(len(settings.spawn_steps)), seconds=2 + unit_cost * (steps + settings.steps)),
    ]  # fmt: skip
    kinked = [
        make("kinked", partial(_simulate_kinks, settings, "relu"), control=True, bytes_per_member=bytes_of(4),
             seconds=4 + unit_cost * 4 * KINK_RECORDS[-1] * len(_kink_spawns(settings))),
        make("smooth", partial(_simulate_kinks, settings, None), bytes_per_member=bytes_of(4),
             seconds=4 + unit_cost * 4 * KINK_RECORDS[-1] * len(_kink_spawns(settings))),
    ]  # fmt: skip
    return [*kinds, *kinked]


def _curvature_steps(settings: Settings) -> float:
    """Steps of training that take as long as all products with Hessians, measured."""
    samples = min(len(problem(settings).labels), MOST_SAMPLES)
    return 0.8 * len(settings.records) * (BATCHES * BATCH_STEPS + FULL_STEPS * samples / settings.batch_size)


class Training:
    """Runs ``start .. stop - 1`` of these settings: their step, states, batches and perturbations."""

    def __init__(
        self, settings: Settings, start: int, stop: int, learning_rate: float | None = None,
        activation: Activation | None = None,
    ) -> None:  # fmt: skip
        data = problem(settings)
        self.settings, self.data, self.members = settings, data, list(range(start, stop))
        self.network = network(settings, activation)
        self.step = MomentumStep(self.network)
        self.state = fresh_states(self.network, settings.seed, "start", self.members, settings.dtype)
        self.arguments = (
            training_arguments(data.split.inputs, data.labels, learning_rate or settings.learning_rate,
                               settings.momentum, settings.weight_decay, settings.dtype),
        )  # fmt: skip

    @property
    def chunk(self) -> int | None:
        """Samples of which losses are taken together; None where each depends on all others."""
        return None if isinstance(self.network, MLP) and self.network.batch_norm else CHUNK

    def batches(self, label: str = "batches") -> Callable[[int, int], np.ndarray]:
        """Batches of the runs; another label gives another order."""
        order = BatchOrder(self.settings.seed, label, len(self.data.labels), self.settings.batch_size)
        return lambda begin, end: order(self.members, begin, end)

    def directions(self, step: int, parameters: Parameters, count: int) -> Parameters:
        """Random directions of norm 1, leaves ``(n, count, ...)``."""
        ways = [
            [
                random_direction(np.random.default_rng([self.settings.seed, 2, member, step, k]), _one(parameters, row))
                for k in range(count)
            ]
            for row, member in enumerate(self.members)
        ]
        return _stack([_stack(each) for each in ways])

    def spawn(self, count: int, gradient: bool = False, sigma: float | None = None):
        """Function that perturbs along ``count`` random directions, and perhaps along the training gradient."""
        size = self.settings.sigma if sigma is None else sigma

        def at(step: int, parameters: Parameters) -> Parameters:
            ways = self.directions(step, parameters, count)
            copies = []
            for row in range(len(self.members)):
                one = _one(parameters, row)
                own = [_one(_one(ways, row), k) for k in range(count)]
                if gradient:
                    own.append(self._gradient_direction(one))
                copies.append(_stack([perturbed(one, way, size) for way in own]))
            return _stack(copies)

        return at

    def _gradient_direction(self, parameters: Parameters) -> Parameters:
        slope = _full_gradient(self.step, self.chunk, parameters, self.arguments[0])
        if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(slope)):
            return jax.tree.map(np.zeros_like, parameters)  # of a run that blew up, which is counted elsewhere
        return unit(slope)


def _one(tree: Any, row: int) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[row], tree)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


@partial(jax.jit, static_argnums=(0, 1))
def _full_gradient(step: MomentumStep, chunk: int | None, parameters: Parameters, arguments: Any) -> Any:
    rows = jnp.arange(len(arguments["labels"]))
    return mean_over_chunks(lambda part: jax.grad(step.loss)(parameters, part, arguments), rows, chunk)


# -- outputs and losses on fixed samples --------------------------------------------------------------------------


def _outputs(net: Network, parameters: Parameters, inputs: Array, training: Array) -> Array:
    """Outputs, with normalisation by the statistics that these very parameters have on the training inputs."""
    if isinstance(net, MLP) and net.batch_norm:
        return net(parameters, inputs, net.statistics(parameters, training))
    return net(parameters, inputs)


@partial(jax.jit, static_argnums=0)
def _many_outputs(net: Network, parameters: Parameters, inputs: Array, training: Array) -> Array:
    outputs = jax.vmap(lambda one: _outputs(net, one, inputs, training))(parameters)
    return outputs.reshape(len(outputs), -1, outputs.shape[-1])  # every position of a text counts as an input


@partial(jax.jit, static_argnums=0)
def _test_loss(net: Network, parameters: Parameters, inputs: Array, labels: Array, training: Array) -> Array:
    return cross_entropy(_outputs(net, parameters, inputs, training), labels)


@lru_cache(maxsize=8)
def _samples(data: Task, dtype: str) -> tuple[Array, Array, Array]:
    """Test inputs, test labels and training inputs, on the device."""
    split = data.split
    return (
        jnp.asarray(as_inputs(split.test_inputs, dtype)), jnp.asarray(split.test_labels, jnp.int32),
        jnp.asarray(as_inputs(split.inputs, dtype)),
    )  # fmt: skip


def outputs_of(training: Training, parameters: Parameters) -> Float[np.ndarray, "m t c"]:
    """Outputs of m networks on the test inputs, computed in stacks of one size, a tile of the inputs at a time."""
    inputs, _, known = _samples(training.data, training.settings.dtype)
    count = len(jax.tree.leaves(parameters)[0])
    parts = []
    for first in range(0, count, _TOGETHER):
        rows = np.minimum(np.arange(first, first + _TOGETHER), count - 1)
        chosen = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], parameters)
        tiles = [
            np.asarray(_many_outputs(training.network, chosen, inputs[begin : begin + _TILE], known))
            for begin in range(0, len(inputs), _TILE)
        ]
        parts.append(np.concatenate(tiles, axis=1)[: count - first])
    return np.concatenate(parts)


def _compared(training: Training, halfway: bool, originals: Parameters, copies: Parameters) -> dict[str, np.ndarray]:
    """Disagreement, and the test loss half-way above the mean of those at the ends: a barrier is at least as high."""
    first, second = (jnp.asarray(outputs_of(training, each)) for each in (originals, copies))
    found = {"disagreement": np.asarray(disagreement(first, second))}
    if halfway:
        labels = _samples(training.data, training.settings.dtype)[1].reshape(-1)
        middle = jnp.asarray(outputs_of(training, interpolated(originals, copies, 0.5)))
        start, half, end = (jax.vmap(cross_entropy, (0, None))(each, labels) for each in (first, middle, second))
        found["halfway_excess"] = np.asarray(half - (start + end) / 2)
    return found


# -- experiments --------------------------------------------------------------------------------------------------


def _dataset(training: Training, found: Separation, arrays: dict[str, Any]) -> xr.Dataset:
    dimensions = ("member", "direction", "spawn", "step")
    # Relative to the intended size, so that copies on other batches have an amplification too.
    at_spawn = found.initial_distance
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        variables = {
            "distance": (dimensions, found.distance),
            "amplification": (dimensions, found.distance / at_spawn[..., None]),
            "relative_distance": (dimensions, found.distance / found.norm[:, None, None, :]),
            "dissimilarity": (dimensions, found.dissimilarity),
            "diverged_at_step": ("member", found.diverged_at_step.reshape(len(found.norm), -1).max(axis=1)),
            **{name: (dimensions, values) for name, values in found.compared.items()},
            **arrays,
        }
    coordinates = {
        "member": training.members, "spawn": found.spawn_steps, "step": found.record_steps,
        "direction": np.arange(found.distance.shape[1]),
    }  # fmt: skip
    return xr.Dataset(variables, coordinates)


def _simulate_copies(settings: Settings, start: int, stop: int) -> xr.Dataset:
    training = Training(settings, start, stop)
    found = separate(
        training.step, training.state, training.batches(), settings.spawn_steps, settings.records,
        training.spawn(settings.directions, gradient=True), training.arguments,
        compare=partial(_compared, training, True),
    )  # fmt: skip
    growth = tangent_growth(
        training.step, training.state, training.batches(), settings.spawn_steps, settings.records,
        lambda step, parameters: training.directions(step, parameters, 1), training.arguments,
    )  # fmt: skip
    arrays = {
        "log_tangent": (("member", "spawn", "step"), growth[:, 0]),
        **_barriers(training, found),
        **_course(training, found),
        **_kernels(training, found),
        **_curvature(training, found),
    }
    return _dataset(training, found, arrays)


def _barriers(training: Training, found: Separation) -> dict[str, Any]:
    """Barrier and losses on the way between each run and its copy along the first direction, at the end."""
    inputs, labels, known = _samples(training.data, training.settings.dtype)
    runs, spawns = len(training.members), found.spawn_steps.size
    heights, curves = np.full((runs, spawns), np.nan), np.full((runs, spawns, BARRIER_POINTS), np.nan)
    loss = lambda p: _test_loss(training.network, p, inputs, labels, known)  # noqa: E731
    for row in range(runs):
        end = _one(found.reference[-1], row)
        for spawn in range(spawns):
            if found.diverged_at_step[row, 0, spawn] < 0:
                copy = jax.tree.map(lambda leaf, r=row, s=spawn: leaf[r, 0, s], found.final)
                barrier = loss_barrier(loss, end, copy, BARRIER_POINTS, BARRIER_TOLERANCE)
                heights[row, spawn], curves[row, spawn] = barrier.height, barrier.losses
    return {
        "barrier": (("member", "spawn"), heights),
        "path_loss": (("member", "spawn", "share"), curves),
        "share": np.linspace(0, 1, BARRIER_POINTS),
    }


def _course(training: Training, found: Separation) -> dict[str, Any]:
    """Test accuracy of the runs, and how their parameters turn."""
    _, labels, _ = _samples(training.data, training.settings.dtype)
    accuracy = [
        np.mean(outputs_of(training, each).argmax(axis=-1) == np.ravel(labels), axis=1) for each in found.reference
    ]
    flat = np.stack(
        [
            np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(each)], axis=1)
            for each in found.reference
        ],
        axis=1,
    )
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        turning = np.stack([direction_dissimilarity(one) for one in flat])
    return {
        "accuracy": (("member", "step"), np.stack(accuracy, axis=1)),
        "turning": (("member", "step", "other_step"), turning),
        "other_step": found.record_steps,
    }


def _kernels(training: Training, found: Separation) -> dict[str, Any]:
    """Kernel distances between all checkpoints; NaN where the kernel of an example is not defined."""
    net = training.network
    count = found.record_steps.size
    distance = np.full((len(training.members), count, count), np.nan)
    if not (isinstance(net, MLP) and net.batch_norm):
        settings, data = training.settings, training.data
        inputs, targets = kernel_examples(settings, data)
        function, vectors = kernel_function(data, net), kernel_vectors(settings)
        for row, member in enumerate(training.members):
            checkpoints = [_one(each, row) for each in found.reference]
            if all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(checkpoints)):
                distance[row] = kernel_distances(
                    function, checkpoints, inputs, targets.shape[1], vectors, (settings.seed, member)
                )
    return {"kernel_distance": (("member", "step", "other_step"), distance)}


def _curvature(training: Training, found: Separation) -> dict[str, Any]:
    """Curvature of the next mini-batches and of all samples along the runs."""
    batches = training.batches()
    return curvature_course(
        training.step.loss, found.reference, [batches(step, step + BATCHES) for step in map(int, found.record_steps)],
        len(training.data.labels), training.arguments[0], training.chunk,
    )  # fmt: skip


def _simulate_others(settings: Settings, kind: str, start: int, stop: int) -> xr.Dataset:
    slow = settings.learning_rate * SLOWER if kind == "slow" else None
    training = Training(settings, start, stop, slow)
    spawns = settings.spawn_steps if kind == "reordered" else (0, settings.spawn_steps[-1])
    found = separate(
        training.step, training.state, training.batches(), spawns, settings.records,
        training.spawn(1, sigma=0.0 if kind == "identical" else None), training.arguments,
        copy_batches=training.batches("others") if kind == "reordered" else None,
        compare=None if kind == "identical" else partial(_compared, training, False),
    )  # fmt: skip
    return _dataset(training, found, {} if kind == "identical" else _barriers(training, found))


def _kink_spawns(settings: Settings) -> tuple[int, ...]:
    return settings.spawn_steps[: max(2, len(settings.spawn_steps) // 2)]


def _simulate_kinks(
    settings: Settings, activation: Activation | None, start: int, stop: int
) -> xr.Dataset:  # fmt: skip
    """Copies and tangents over the first steps after a perturbation, before they saturate."""
    training = Training(settings, start, stop, activation=activation)
    spawns = _kink_spawns(settings)
    records = sorted({spawn + after for spawn in spawns for after in KINK_RECORDS})
    found = separate(training.step, training.state, training.batches(), spawns, records, training.spawn(1),
                     training.arguments)  # fmt: skip
    growth = tangent_growth(
        training.step, training.state, training.batches(), spawns, records,
        lambda step, parameters: training.directions(step, parameters, 1), training.arguments,
    )  # fmt: skip
    return _dataset(training, found, {"log_tangent": (("member", "spawn", "step"), growth[:, 0])})
