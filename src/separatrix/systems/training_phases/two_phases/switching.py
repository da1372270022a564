"""Training that goes on linearised from some step on, and what it reaches (claims K4 and K5)."""

from functools import partial
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array
from scipy import stats

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.engines.parallel_runs import finite
from separatrix.lab import Experiment, Measurement, Results, diverged_fraction
from separatrix.systems.training_phases.kernel_course import kernel_distances
from separatrix.systems.training_phases.linearized_training import LinearizedStep, linearized, switched
from separatrix.systems.training_phases.task import LastPosition, kernel_examples, kernel_function
from separatrix.systems.training_phases.training import Network, cross_entropy, train
from separatrix.systems.training_phases.two_phases.runs import (
    arguments,
    batches,
    member_of,
    nonlinear,
    parameters_of,
    samples,
    scores,
    step_seconds,
)
from separatrix.systems.training_phases.two_phases.settings import (
    CONTROL_SHARE,
    Settings,
    kernel_vectors,
    lazy_network,
    network,
    problem,
)

#: What a kernel that moves is worth at least, in test accuracy.
GAIN = 0.01


class FrozenKernelNetwork:
    """The expansion of a network as a function of ``(parameters, anchor)`` of which only the former are trained."""

    def __init__(self, trained: Network | LastPosition) -> None:
        self.network = trained

    def __call__(self, parameters: tuple[Any, Any], inputs: Array) -> Array:
        """Outputs for a batch."""
        moving, anchor = parameters
        return linearized(self.network, jax.lax.stop_gradient(anchor), moving, inputs)


@partial(jax.jit, static_argnums=0)
def _linearized_scores(trained: Network, anchor: Any, parameters: Any, inputs: Array, labels: Array) -> tuple:
    outputs = linearized(trained, anchor, parameters, inputs)
    return (outputs.argmax(axis=-1).astype(labels.dtype) == labels).mean(), cross_entropy(outputs, labels)


def _simulate(
    settings: Settings, trained: Network, numbers: tuple[float, float], switches: list[int], steps: int,
    follow_kernel: bool, start: int, stop: int,
) -> xr.Dataset:  # fmt: skip
    given, members = arguments(settings, *numbers), range(start, stop)
    course = nonlinear(settings, trained, given, members, [*switches, steps])
    test = samples(settings, test=True)
    accuracy, loss = (np.full((len(members), len(switches)), np.nan) for _ in range(2))
    diverged, motion = course.diverged_at_step.copy(), np.full(len(members), np.nan)
    for column, switch in enumerate(switches):
        begin = switched(course.at(switch)[0])
        end = train(
            LinearizedStep(trained), begin, batches(settings), list(members), [steps], given, start=switch
        ).states[-1]  # fmt: skip
        diverged = np.where((diverged < 0) & ~finite(end), steps, diverged)
        for number in range(len(members)):
            parameters, _, anchor = member_of(end, number)
            accuracy[number, column], loss[number, column] = _linearized_scores(trained, anchor, parameters, *test)
            if switch == 0 and follow_kernel and diverged[number] < 0:
                motion[number] = _kernel_motion(settings, trained, anchor, parameters, start + number)
    final = [scores(trained, member_of(course.at(steps)[0], number), *test) for number in range(len(members))]
    return xr.Dataset(
        {
            "accuracy": (("member", "switch"), accuracy),
            "loss": (("member", "switch"), loss),
            "nonlinear_accuracy": ("member", np.array([float(a) for a, _ in final])),
            "nonlinear_loss": ("member", np.array([float(b) for _, b in final])),
            "linearized_motion": ("member", motion),
            "diverged_at_step": ("member", diverged),
        },
        {"member": np.arange(start, stop), "switch": np.array(switches)},
    )


def _kernel_motion(settings: Settings, trained: Network, anchor: Any, parameters: Any, member: int) -> float:
    """Kernel distance between the start and the end of training linearised from the start: rounding alone."""
    data = problem(settings)
    inputs, targets = kernel_examples(settings, data)
    both = [(anchor, anchor), (parameters, anchor)]
    distance = kernel_distances(
        _frozen(kernel_function(data, trained)), both, inputs[:8], targets.shape[1], kernel_vectors(settings),
        (settings.seed, member),
    )  # fmt: skip
    return float(distance[0, 1])


_FROZEN: dict[Network | LastPosition, FrozenKernelNetwork] = {}


def _frozen(trained: Network | LastPosition) -> FrozenKernelNetwork:
    return _FROZEN.setdefault(trained, FrozenKernelNetwork(trained))


def _experiment(
    name: str, settings: Settings, trained: Network, numbers: tuple[float, float], switches: list[int], steps: int,
    control: bool,
) -> Experiment:  # fmt: skip
    work = steps + 3 * sum(steps - switch for switch in switches)
    return Experiment(
        name,
        lambda start, stop: _simulate(settings, trained, numbers, switches, steps, not control, start, stop),
        members=settings.runs,
        bytes_per_member=8 * parameters_of(trained) * (2 * len(switches) + 10),
        seconds=8 + settings.runs * work * step_seconds(settings, trained) / max(len(jax.devices()), 1),
        control=control,
    )


def switching_experiments(settings: Settings) -> list[Experiment]:
    """Linearised training from every switch, and from the first and the last in the lazy control."""
    rate, decay = settings.learning_rate, settings.weight_decay
    steps = settings.steps // CONTROL_SHARE
    return [
        _experiment("switching", settings, network(settings), (rate, decay), list(settings.switches), settings.steps,
                    control=False),
        _experiment("lazy_switching", settings, lazy_network(settings), (settings.lazy_learning_rate, 0.0),
                    [0, steps // 3], steps, control=True),
    ]  # fmt: skip


def _kept(data: xr.Dataset) -> xr.Dataset:
    return data.isel(member=np.flatnonzero(data["diverged_at_step"].values < 0))


def _difference(label: str, late: np.ndarray, early: np.ndarray, excluded: float, parts: int) -> Measurement:
    accepted = (GAIN, np.inf)
    if late.size < 2:
        return Measurement.missing(label, accepted, "fewer than two runs did not diverge", excluded)
    estimate, interval = mean_interval(late - early, confidence=bonferroni(parts))
    return Measurement(label, estimate, interval, accepted, excluded=excluded, members=late.size)


def later_is_better(settings: Settings, results: Results, experiment: str = "switching") -> list[Measurement]:  # noqa: ARG001
    """Rank correlation of switch and accuracy over switches after the start, and gain of the last over the first."""
    data = results[experiment]
    kept, excluded = _kept(data), diverged_fraction(data)
    accuracy, switches = kept["accuracy"].values, kept["switch"].values
    label = f"accuracy of the switch at {switches[-1]} less that at 0"
    measurements = [_difference(label, accuracy[:, -1], accuracy[:, 0], excluded, 2)]
    if switches.size > 3:
        taus = np.array([stats.kendalltau(switches[1:], row[1:])[0] for row in accuracy])
        taus = np.where(np.isnan(taus), 0.0, taus)  # all accuracies equal: no order
        label, accepted = "Kendall's tau of accuracy and switch, switches after the start", (0.0, np.inf)
        if taus.size < 2:
            measurements.append(Measurement.missing(label, accepted, "fewer than two runs did not diverge", excluded))
        else:
            estimate, interval = mean_interval(taus, confidence=bonferroni(2))
            measurements.append(Measurement(label, estimate, interval, accepted, excluded, taus.size))
    return measurements


def moving_is_better(settings: Settings, results: Results, experiment: str = "switching") -> list[Measurement]:  # noqa: ARG001
    """Accuracy of ordinary training less that of training linearised from the start."""
    data = results[experiment]
    kept = _kept(data)
    return [
        _difference(
            "accuracy of ordinary less that of linearised training",
            kept["nonlinear_accuracy"].values, kept["accuracy"].values[:, 0], diverged_fraction(data), 1,
        )
    ]  # fmt: skip
