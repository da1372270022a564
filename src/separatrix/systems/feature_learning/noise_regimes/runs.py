"""Runs that stop when all their samples are fitted, as experiments: conditions times runs, and how to read them back.

The members of an experiment are its conditions (pairs of alpha and temperature), each with the same number of runs. Run
r has the same training set and the same initial weights under all conditions, and its own batches under each.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from separatrix.engines.counter_normals import member_keys
from separatrix.engines.stopping_ensemble import CENSORED, DIVERGED, SETTLED, Stopped, StoppedIteration, StoppedLaunch
from separatrix.lab import Experiment
from separatrix.systems.feature_learning.hinge_networks import ConvolutionalNetwork, DenseNetwork
from separatrix.systems.feature_learning.hinge_training import HingeTraining
from separatrix.systems.feature_learning.noise_regimes.data import Arrays, once
from separatrix.systems.feature_learning.noise_regimes.settings import Settings
from separatrix.systems.feature_learning.perceptron_sgd import MARGIN_QUANTILES, StoppedPerceptron


@dataclass(frozen=True, eq=False)
class Conditions:
    """Pairs of alpha and temperature, ``(c,)`` each, with ``runs`` runs each."""

    alpha: Float[np.ndarray, " c"]
    temperature: Float[np.ndarray, " c"]
    runs: int

    @classmethod
    def grid(cls, alphas, temperatures, runs: int) -> "Conditions":
        """All pairs; the temperature changes fastest."""
        a, t = np.meshgrid(np.asarray(alphas, np.float64), np.asarray(temperatures, np.float64), indexing="ij")
        return cls(a.ravel(), t.ravel(), runs)

    @property
    def members(self) -> int:
        """Number of all runs."""
        return self.alpha.size * self.runs


def _experiment(
    settings: Settings, name: str, conditions: Conditions, iteration: StoppedIteration, batch: int, chunk: int,
    arguments: Callable[[], Arrays], own: Callable[[np.ndarray, np.ndarray], Arrays], most_steps: int,
    *, bytes_per_member: int, seconds: float, control: bool,
) -> Experiment:  # fmt: skip
    """``own(condition, run)`` are the arguments of members that the iteration needs beside the data set."""

    def member_arguments(start: int, stop: int) -> Arrays:
        condition, run = np.divmod(np.arange(start, stop), conditions.runs)
        return {
            "data_set": run.astype(np.int32),
            "temperature": conditions.temperature[condition].astype(np.float32),
            **own(condition, run),
        }

    def finish(stopped: Stopped, start: int) -> xr.Dataset:
        members = np.arange(start, start + stopped.outcome.size)
        condition, run = np.divmod(members, conditions.runs)
        records = dict(stopped.records)
        fitted = (stopped.outcome == SETTLED) & records.pop("fitted", True)
        extra = {"quantile": MARGIN_QUANTILES} if "margin_quantile" in records else {}
        return xr.Dataset(
            {
                "steps": ("member", stopped.steps),
                "time": ("member", stopped.steps * batch * conditions.temperature[condition]),
                "fitted": ("member", fitted),
                "diverged": ("member", stopped.outcome == DIVERGED),
                "stuck": ("member", (stopped.outcome == SETTLED) & ~fitted),
                "censored": ("member", stopped.outcome == CENSORED),
                "alpha": ("member", conditions.alpha[condition]),
                "temperature": ("member", conditions.temperature[condition]),
                "run": ("member", run),
                **{k: (("member", "quantile")[: v.ndim], v) for k, v in records.items()},
            },
            {"member": members, **extra},
        )

    return Experiment(
        name,
        StoppedLaunch(
            iteration, settings.seed, name, once(arguments), member_arguments,
            lambda start, stop: np.full(stop - start, most_steps), chunk, finish,
        ),
        members=conditions.members, bytes_per_member=bytes_per_member, seconds=seconds, control=control,
    )  # fmt: skip


def perceptron_experiment(
    settings: Settings, name: str, conditions: Conditions, sets: Callable[[], Arrays], samples: int, dimension: int,
    *, batch: int, lookahead: int, expected_steps: float, control: bool = False,
) -> Experiment:  # fmt: skip
    """Perceptrons of margin ``1 / alpha``; ``expected_steps`` is the mean over all runs, for the estimate of time."""

    def own(condition: np.ndarray, run: np.ndarray) -> Arrays:
        del run
        return {"margin": (1 / conditions.alpha[condition]).astype(np.float32)}

    chunk = max(32, samples // (lookahead * batch) + 1)
    # Gathering a row of d numbers for every sample looked at is all the work, on two cores.
    per_step = 0.9e-6 if lookahead == 1 else 1.7e-9 * batch * dimension
    return _experiment(
        settings, name, conditions, StoppedPerceptron(samples, batch, lookahead, settings.replacement), batch, chunk,
        sets, own, settings.most_steps,
        bytes_per_member=4 * samples * dimension * 2, seconds=1.5 + conditions.members * expected_steps * per_step,
        control=control,
    )  # fmt: skip


def network_experiment(
    settings: Settings, name: str, conditions: Conditions, sets: Callable[[], Arrays],
    network: DenseNetwork | ConvolutionalNetwork, samples: int,
    inputs: int, *, expected_steps: float, batch: int | None = None, control: bool = False,
) -> Experiment:  # fmt: skip
    """Networks that start from random weights; ``expected_steps`` is the mean over all runs."""
    batch = settings.network_batch if batch is None else batch

    def own(condition: np.ndarray, run: np.ndarray) -> Arrays:
        # Starts are named apart from batches, so that a run keeps its start under all conditions.
        keys = np.stack([np.asarray(key) for key in member_keys(settings.seed, f"start_{name}", 0, conditions.runs)], 1)
        return {"start_key": keys[run], "alpha": conditions.alpha[condition].astype(np.float32)}

    iteration = HingeTraining(network, samples, batch, settings.replacement)
    width, depth = (network.width, network.hidden_layers)
    weights = inputs * width + max(depth - 1, 0) * width**2 + width
    if not isinstance(network, DenseNetwork):
        weights = 9 * weights * 16  # every weight of a kernel is used at many pixels
    # Measured on two cores: gathering and small products, then the products of wide layers.
    per_step = batch * (1e-7 + 7e-11 * weights)
    tested = 1.3  # looking whether all samples are fitted
    return _experiment(
        settings, name, conditions, iteration, batch, max(2, samples // (8 * batch)), sets, own,
        settings.network_most_steps,
        bytes_per_member=4 * (4 * weights + 3 * samples + inputs * (samples + settings.test_samples)),
        seconds=2.5 + depth + conditions.members * expected_steps * per_step * tested, control=control,
    )  # fmt: skip


def by_condition(data: xr.Dataset, variable: str, runs: int) -> np.ndarray:
    """Values of a variable as ``(conditions, runs)``."""
    return data[variable].values.reshape(-1, runs)


def unfitted(data: xr.Dataset, chosen: Bool[np.ndarray, " c"] | slice = slice(None), runs: int = 1) -> float:
    """Share of the runs under the chosen conditions that did not end with all samples fitted."""
    return float(1 - by_condition(data, "fitted", runs)[chosen].mean())
