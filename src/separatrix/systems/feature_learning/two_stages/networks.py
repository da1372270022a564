"""The networks of the study: what differs between its experiments, how they are trained, what is kept of them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from separatrix.lab import Experiment
from separatrix.systems.feature_learning.patch_network import draw_patch_data, initial_weights
from separatrix.systems.feature_learning.signal_noise_decomposition import (
    GramTask,
    Records,
    descend_in_coefficients,
    gram_task,
    stack_tasks,
)
from separatrix.systems.feature_learning.two_stage_theory import selection_time, signal_strength, stage_two_time
from separatrix.systems.feature_learning.two_stages.settings import Settings, record_steps

#: Fresh samples of each network: for validation, and for the test error.
VALIDATION, TEST = 400, 1000


@dataclass(frozen=True)
class Cell:
    """What one kind of network is made of.

    Attributes
    ----------
    name
        Of the experiment.
    kappa, positive, negative
        ``n SNR^2`` and the shares of flipped labels in the classes +1 and -1.
    samples, dimension, width, noise_scale, start_scale
        n, d, m, sigma and the standard deviation of the initial weights.
    time_step
        What one step adds to theta.
    """

    name: str
    kappa: float
    positive: float
    negative: float
    samples: int
    dimension: int
    width: int
    noise_scale: float
    start_scale: float
    time_step: float

    @property
    def learning_rate(self) -> float:
        """Step size eta."""
        return self.time_step * self.samples * self.width / (self.noise_scale**2 * self.dimension)

    @property
    def noise(self) -> float:
        """Share of flipped labels over both classes."""
        return (self.positive + self.negative) / 2

    @property
    def strength(self) -> float:
        """``kappa (1 - 2 tau)`` of the class with more flipped labels: it has two stages above 1."""
        return signal_strength(self.kappa, max(self.positive, self.negative))

    @property
    def stage_two(self) -> float:
        """Time theta at which Stage II begins in the first of the two classes; NaN if one has no Stage I."""
        return float(np.min([stage_two_time(self.kappa, rate) for rate in (self.positive, self.negative)]))

    @property
    def selection(self) -> float:
        """Time theta at which flipped samples of the first class are rejected most clearly; NaN without Stage I."""
        return float(np.min([selection_time(self.kappa, rate) for rate in (self.positive, self.negative)]))


def main_cell(settings: Settings) -> Cell:
    """The network that the settings describe."""
    return Cell("main", settings.kappa, *settings.rates, settings.samples, settings.dimension, settings.width, 1.0,
                settings.start_scale, settings.time_step)  # fmt: skip


def _changed(settings: Settings, name: str, kappa: float, noise: float, dimension: int) -> Cell:
    return Cell(name, kappa, noise, noise, settings.samples, dimension, settings.width, 1.0, settings.start_scale,
                settings.time_step)  # fmt: skip


def strong_cell(settings: Settings) -> Cell:
    """The same with so many flipped labels that overfitting is strong."""
    return _changed(settings, "strong", settings.kappa, settings.strong_noise, settings.dimension)


def clean_cell(settings: Settings) -> Cell:
    """The same without flipped labels."""
    return _changed(settings, "no_noise", settings.kappa, 0.0, settings.dimension)


def grid_cells(settings: Settings) -> list[Cell]:
    """Networks in more dimensions, for every kappa and share of flipped labels of the grid."""
    return [
        _changed(settings, f"grid_kappa{i}_noise{j}", kappa, noise, settings.large_dimension)
        for i, kappa in enumerate(settings.kappas)
        for j, noise in enumerate(settings.noises)
    ]


def _numbers(settings: Settings, cell: Cell, member: int) -> np.random.Generator:
    # not of kappa and tau: networks of equal size that differ in these can be compared in pairs
    return np.random.default_rng([settings.seed, 1, cell.samples, cell.dimension, cell.width, member])


def draw(settings: Settings, cell: Cell, start: int, stop: int) -> GramTask:
    """Tasks of the members ``start .. stop - 1``."""
    rates = cell.positive, cell.negative
    tasks = []
    for member in range(start, stop):
        rng = _numbers(settings, cell, member)
        data = draw_patch_data(rng, cell.samples, cell.dimension, cell.kappa, *rates, cell.noise_scale)
        weights = initial_weights(rng, cell.width, cell.dimension, cell.start_scale)
        tasks.append(gram_task(data, weights, VALIDATION + TEST, cell.noise_scale, rates, rng))
    return stack_tasks(tasks)


def train(cell: Cell, tasks: GramTask, steps: Int[np.ndarray, " t"]) -> Records:
    """Train on these tasks and record after these steps."""
    return descend_in_coefficients(tasks, np.full(len(tasks.labels), cell.learning_rate), steps, VALIDATION)


def lost_at(records: Records, steps: Int[np.ndarray, " t"]) -> Int[np.ndarray, " B"]:
    """First recorded step with a margin that is not finite, -1 where there is none."""
    lost = np.asarray(~np.isfinite(np.asarray(records.margins)).all(axis=2))
    return np.where(lost.any(axis=1), steps[lost.argmax(axis=1)], -1)


def simulate(settings: Settings, cell: Cell, duration: float, start: int, stop: int) -> xr.Dataset:
    """Courses of the members ``start .. stop - 1``, for a time ``duration``."""
    steps = record_steps(duration, cell.time_step)
    tasks = draw(settings, cell, start, stop)
    records = train(cell, tasks, steps)
    variables = {
        "margin": (("member", "theta", "sample"), np.asarray(records.margins, np.float32)),
        "memory": (("member", "theta", "sample"), np.asarray(records.memory, np.float32)),
        "signal": (("member", "theta", "output"), records.signal),
        "test_error": (("member", "theta", "output"), records.test_error),
        "validation_error": (("member", "theta"), records.validation_error),
        "noisy_validation_error": (("member", "theta"), records.noisy_validation_error),
        "flipped": (("member", "sample"), np.asarray(tasks.labels != tasks.true_labels)),
        "diverged_at_step": ("member", lost_at(records, steps)),
    }
    coordinates = {
        "member": np.arange(start, stop),
        "theta": ("theta", steps * cell.time_step, {"unit": "n m / (learning_rate sigma^2 d) steps"}),
        "output": [1, -1],
    }
    return xr.Dataset(variables, coordinates)


def cost(cell: Cell, duration: float, members: int) -> dict[str, Any]:
    """Members, memory and time of an experiment."""
    n, vectors, fresh = cell.samples, cell.samples + 1 + 2 * cell.width, VALIDATION + TEST
    records, steps = record_steps(duration, cell.time_step).size, duration / cell.time_step
    work = steps * (1e-6 + 2.5e-11 * 2 * cell.width * n * n) + 4e-11 * records * cell.width * n * fresh
    work += 4e-10 * vectors * vectors * fresh + 1.5e-8 * n * cell.dimension
    return {
        "members": members,
        "bytes_per_member": 8 * (2 * n * cell.dimension + 4 * vectors * (vectors + fresh) + 6 * records * n),
        "seconds": 0.7 + members * work,
    }


def experiment(settings: Settings, cell: Cell, members: int, duration: float) -> Experiment:
    """Courses of a kind of network."""
    return Experiment(cell.name, partial(simulate, settings, cell, duration), **cost(cell, duration, members))


def network_experiments(settings: Settings) -> list[Experiment]:
    """The main network, the same with more and without flipped labels, and the grid."""
    cells = [main_cell(settings), strong_cell(settings), clean_cell(settings), *grid_cells(settings)]
    return [experiment(settings, cell, settings.members, settings.duration) for cell in cells]


# -- what is read off the courses -------------------------------------------------------------------------------------


def kept_members(data: xr.Dataset) -> xr.Dataset:
    """Those that did not diverge."""
    return data.isel(member=np.flatnonzero(data["diverged_at_step"].values < 0))


def losses(data: xr.Dataset) -> Float[np.ndarray, "n t s"]:
    """Logistic loss of every training sample."""
    return np.logaddexp(0.0, -data["margin"].values.astype(np.float64))


def share_among(flags: Bool[np.ndarray, "n t s"], chosen: Bool[np.ndarray, "n s"]) -> Float[np.ndarray, "n t"]:
    """Share of the chosen samples that are flagged; NaN where none is chosen."""
    count = chosen.sum(axis=1).astype(np.float64)[:, None]
    return np.divide((flags & chosen[:, None]).sum(axis=2), count, out=np.full(flags.shape[:2], np.nan),
                     where=np.broadcast_to(count > 0, flags.shape[:2]))  # fmt: skip


def mean_among(values: Float[np.ndarray, "n t s"], chosen: Bool[np.ndarray, "n s"]) -> Float[np.ndarray, "n t"]:
    """Mean over the chosen samples of each member; there must be some."""
    return (values * chosen[:, None]).sum(axis=2) / chosen.sum(axis=1)[:, None]


def fitted(data: xr.Dataset) -> tuple[Float[np.ndarray, "n t"], Float[np.ndarray, "n t"]]:
    """Shares of clean and of flipped samples that are given their observed label."""
    right, flipped = data["margin"].values > 0, data["flipped"].values
    return share_among(right, ~flipped), share_among(right, flipped)


def clean_errors(data: xr.Dataset) -> Float[np.ndarray, "n t"]:
    """Share of fresh samples that are not given their true label."""
    return data["test_error"].values.mean(axis=2)


def nearest(theta: Float[np.ndarray, " t"], time: float) -> int:
    """Index of the record nearest to a time."""
    return int(np.argmin(np.abs(theta - time)))
