"""Networks trained by batch-1 SGD at every strong step, and the ensembles of the controls and failure cases."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import xarray as xr

from separatrix.engines.ensemble import State
from separatrix.engines.launch import Launch
from separatrix.lab import Experiment
from separatrix.systems.feature_learning.oscillation.settings import Settings
from separatrix.systems.feature_learning.oscillation_map import learning_rate
from separatrix.systems.feature_learning.two_feature_network import (
    SUMS,
    PatchSGD,
    background_coefficients,
    class_accuracy,
    network_state,
    noise_responses,
    observe,
)
from separatrix.systems.feature_learning.two_feature_task import NetworkStart, PatchData, TwoFeatureTask, gaussian_start

#: Records along a run, and every how many of them the test accuracy is measured.
RECORDS, BETWEEN_TESTS = 100, 10
#: Test points of each run.
TEST_POINTS = 1000
#: Factor on the learning rate in the decayed runs, and when it drops, as a share of the run, in these and in controls.
DECAY, EARLY = 0.1, 0.05
#: Norm of the weak feature over that of the settings at which it grows too slowly.
FAINT = 0.25
#: Noise power over what it takes to memorise plain points as fast as they teach the weak feature: too little; and the
#: largest share of points with the strong feature there, so that each label has some without it.
QUIET, QUIET_SHARE = 0.1, 0.7
#: Strong steps up to and beyond the end of the window, at which runs diverge.
EDGE = (1.4, 1.5, 1.6, 1.7, 1.8)
#: Steps of these runs over those of the others.
EDGE_DURATION = 0.5
#: Variables that are recorded along a run, all along (member, time).
COURSES = ("loss", "train_accuracy", "strong_residual", "plain_residual", "largest_weak_unit")


def quiet_task(settings: Settings) -> TwoFeatureTask:
    """The task with so little noise, and so many points without the strong feature, that these teach the weak one."""
    task = settings.task
    share = min(task.strong_share, QUIET_SHARE)
    return replace(
        task, strong_share=share, noise_power=QUIET * task.samples * (1 - share) * task.weak_norm**2
    )  # fmt: skip


@lru_cache(maxsize=4096)
def draw_member(settings: Settings, task: TwoFeatureTask, member: int) -> tuple[PatchData, NetworkStart]:
    """Data and start of a member: the same for all strong steps, so that these can be compared in pairs."""
    rng = np.random.default_rng([settings.seed, 1, member])
    data = task.draw(rng)
    start = gaussian_start(
        rng, settings.width, settings.start_scale, task.weak_norm, task.strong_norm, task.dimension - 2
    )
    return data, start


def weak_only_accuracy(
    settings: Settings, task: TwoFeatureTask, member: int, weak: np.ndarray, background: np.ndarray
) -> np.ndarray:
    """Accuracy on fresh points with the weak feature and noise, ``(t,)``, from records of a member's units."""
    data, start = draw_member(settings, task, member)
    rng = np.random.default_rng([settings.seed, 2, member])
    labels = np.where(np.arange(TEST_POINTS) % 2, 1.0, -1.0)
    accuracy = np.full(len(weak), np.nan)
    finite = np.isfinite(background).all(axis=(1, 2))
    coefficients = background_coefficients(start, data, background[finite])
    responses = noise_responses(rng, start, data, coefficients, task.noise_scale, TEST_POINTS)
    accuracy[finite] = class_accuracy(weak[finite].astype(np.float64), responses, labels)
    return accuracy


def course_dataset(records: dict[str, np.ndarray], diverged: np.ndarray, first: int, steps: np.ndarray) -> xr.Dataset:
    """Records of an ensemble as a dataset along (member, time); the weights are not among them."""
    along = lambda a: np.moveaxis(a, -1, 0)  # noqa: E731
    variables: dict[str, tuple] = {name: (("member", "time"), along(records[name])) for name in COURSES}
    # means over the two labels
    variables |= {name: (("member", "time"), along(records[name].mean(axis=1))) for name in ("weak", "strong")}
    variables |= {name: (("member", "time"), along(records["sums"][:, k])) for k, name in enumerate(SUMS)}
    variables["diverged_at_step"] = ("member", diverged)
    coordinates = {
        "member": np.arange(first, first + diverged.size),
        "time": ("time", steps, {"unit": "SGD steps"}),
    }
    return xr.Dataset(variables, coordinates)


def _finish(
    settings: Settings, task: TwoFeatureTask, steps: np.ndarray, records: dict[str, np.ndarray], diverged: np.ndarray,
    first: int,
) -> xr.Dataset:  # fmt: skip
    dataset = course_dataset(records, diverged, first, steps)
    tested = slice(0, None, BETWEEN_TESTS)
    accuracy = [
        weak_only_accuracy(
            settings, task, first + k, records["weak_units"][tested, :, k],
            records["background_units"][tested, :, :, k].astype(np.float64),
        )
        for k in range(diverged.size)
    ]  # fmt: skip
    dataset["weak_only_accuracy"] = (("member", "test_time"), np.stack(accuracy))
    return dataset.assign_coords(test_time=("test_time", steps[tested], {"unit": "SGD steps"}))


@dataclass(frozen=True)
class Arm:
    """An ensemble: the task, the strong step, the SGD steps, and when the learning rate drops (never by default)."""

    task: TwoFeatureTask
    strong_step: float
    steps: int
    decay_at: float = np.inf


def arguments(settings: Settings, arm: Arm) -> dict[str, np.ndarray]:
    """What the compiled runs take."""
    values = {
        "learning_rate": learning_rate(arm.strong_step, arm.task.strong_norm, settings.width),
        "weak_norm": arm.task.weak_norm,
        "strong_norm": arm.task.strong_norm,
        "threshold": settings.oscillation,
        "decay_at": arm.decay_at,
        "decay_factor": DECAY,
    }
    return {name: np.asarray(value, settings.dtype) for name, value in values.items()}


def record_steps(steps: int) -> np.ndarray:
    """The recording grid of a run."""
    return np.rint(np.linspace(0, steps, RECORDS + 1)).astype(np.int64)


def network_experiment(settings: Settings, name: str, arm: Arm, members: int, control: bool = False) -> Experiment:
    """The ensemble of an arm; all draw the same visits, so that they differ only in what the arms say."""

    def state(start: int, stop: int) -> State:
        pairs = [draw_member(settings, arm.task, member) for member in range(start, stop)]
        return network_state([data for data, _ in pairs], [weights for _, weights in pairs], settings.dtype)

    grid = record_steps(arm.steps)
    n, units, d = settings.samples, 2 * settings.width, settings.dimension
    return Experiment(
        name,
        Launch(
            PatchSGD(n), observe, state, settings.seed, "visits", partial(arguments, settings, arm), grid,
            partial(_finish, settings, arm.task, grid),
        ),
        members=members,
        bytes_per_member=8 * (3 * RECORDS * (units * n + 20) + 4 * n * n + 2 * (n + units) * d
                              + 3 * RECORDS // BETWEEN_TESTS * units * (TEST_POINTS + d)),
        seconds=0.6 + members * (arm.steps * (2e-8 + 5e-10 * units * n) + 2e-3 + 4e-9 * units * d * n),
        control=control,
    )  # fmt: skip


def network_experiments(settings: Settings) -> Iterator[Experiment]:
    """Every strong step; a learning rate that drops; and tasks and steps outside of the window."""
    make = partial(network_experiment, settings, members=settings.runs)
    task = settings.task
    for index, step in enumerate(settings.strong_steps):
        yield make(f"network_step{index}", Arm(task, step, settings.duration(step)))
    for index, step in enumerate(settings.strong_steps):
        # the smallest step is a failure case of its own, the others are the control of the threshold
        yield make(f"quiet_step{index}", Arm(quiet_task(settings), step, settings.duration(step)), control=index > 0)
    for step in settings.large[:1]:
        duration = settings.duration(step)
        yield make("decayed", Arm(task, step, 2 * duration, duration))
        yield make("decayed_early", Arm(task, step, 2 * duration, round(EARLY * duration)), control=True)
        yield make("faint", Arm(replace(task, weak_norm=FAINT * task.weak_norm), step, duration))
    for index, step in enumerate(EDGE):
        yield make(f"edge_step{index}", Arm(task, step, round(EDGE_DURATION * settings.duration(step))))
