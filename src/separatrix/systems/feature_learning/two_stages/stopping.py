"""What overfitting costs (L5), and how much of it the rules of early stopping save (L10)."""

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from separatrix.engines.intervals import bonferroni, bootstrap, mean_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.optimizers.early_stopping import TwoStageDetector
from separatrix.systems.feature_learning.two_stages.networks import (
    Cell,
    clean_errors,
    kept_members,
    losses,
    main_cell,
    nearest,
    strong_cell,
)
from separatrix.systems.feature_learning.two_stages.settings import Settings

#: Least rise of the error of fresh samples that counts as overfitting.
LEAST_RISE = 0.005
#: Largest share of the overfitting that a rule may leave.
LEFT = 0.25
RULES = ("clean validation", "noisy validation", "theory", "rejected share")


def overfitting(data: xr.Dataset) -> Float[np.ndarray, " n"]:
    """Error of fresh samples at the end minus its smallest in time, which is found on the mean over networks.

    A minimum of each network for itself would count the fluctuations of its error as overfitting.
    """
    error = clean_errors(data)
    return error[:, -1] - error[:, error.mean(axis=0).argmin()]


def overfitting_costs(settings: Settings, results: Results, name: str = "") -> list[Measurement]:
    """Rise of the error with respect to true labels, and the paper's bound on that with respect to flipped ones."""
    cells = [main_cell(settings), strong_cell(settings)]
    measurements = []
    for cell in cells:
        data = results[name or cell.name]
        kept, excluded = kept_members(data), diverged_fraction(data)
        rates = (0.0, 0.0) if name else (cell.positive, cell.negative)
        end = kept["test_error"].values[:, -1]
        noisy = np.mean([rate + (1 - 2 * rate) * end[:, k] for k, rate in enumerate(rates)], axis=0)
        bound = 0.5 * min(cell.positive, cell.negative)
        found = (
            ("error of fresh samples, end minus smallest", overfitting(kept), LEAST_RISE, ""),
            ("error against flipped test labels minus tau / 2", noisy - bound, 0.0,
             f"against true labels the bound does not hold: error {end.mean():.3g}, tau / 2 = {bound:.3g}"
             if end.mean() < bound else ""),
        )  # fmt: skip
        for label, values, least, note in found:
            estimate, interval = mean_interval(values, confidence=bonferroni(2 * len(cells)))
            measurements.append(
                Measurement(f"tau {cell.noise:g}: {label}", estimate, interval, (least, np.inf), excluded,
                            members=values.size, note=note)
            )  # fmt: skip
    return measurements


def stopping_records(cell: Cell, data: xr.Dataset, rule: str) -> Int[np.ndarray, " n"] | None:
    """Record at which a rule stops each network; None where the theory has no Stage I to stop after."""
    theta = data["theta"].values
    if rule == "theory":
        return None if np.isnan(cell.stage_two) else np.full(data.sizes["member"], nearest(theta, cell.stage_two))
    if rule == "rejected share":
        if cell.noise == 0:
            return None
        stopped = []
        for course in losses(data):
            detector = TwoStageDetector(cell.noise)
            began = [detector.update(k, values) for k, values in enumerate(course)]
            stopped.append(int(np.argmax(began)) if any(began) else len(began) - 1)
        return np.array(stopped)
    name = {"clean validation": "validation_error", "noisy validation": "noisy_validation_error"}[rule]
    return data[name].values.argmin(axis=1)


def regret(data: xr.Dataset, stopped: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Error of fresh samples where each network is stopped, minus that at the best time of all."""
    error = clean_errors(data)
    return error[np.arange(len(error)), stopped] - error[:, error.mean(axis=0).argmin()]


def stopping_saves(settings: Settings, results: Results, trained_on: bool = False) -> list[Measurement]:
    """Mean regret of each rule over mean overfitting; as a control no rule stops before the end."""
    cells = [main_cell(settings), strong_cell(settings)]
    accepted = (-np.inf, LEFT)
    measurements = []
    for cell in cells:
        data = kept_members(results[cell.name])
        excluded = diverged_fraction(results[cell.name])
        for rule in RULES:
            label = f"tau {cell.noise:g}, {rule}: regret over overfitting"
            stopped = stopping_records(cell, data, rule)
            if stopped is None:
                measurements.append(Measurement.missing(label, accepted, "there is no Stage I to stop after", excluded))
                continue
            if trained_on:
                stopped = np.full(len(stopped), data.sizes["theta"] - 1)
            pairs = np.stack([regret(data, stopped), overfitting(data)], axis=1)
            if pairs[:, 1].mean() <= 0:
                measurements.append(Measurement.missing(label, accepted, "there is no overfitting", excluded))
                continue
            estimate, interval = bootstrap(_ratio, pairs, confidence=bonferroni(len(cells) * len(RULES)),
                                           seed=settings.seed)  # fmt: skip
            measurements.append(
                Measurement(label, estimate, interval, accepted, excluded, members=len(pairs),
                            note=f"regret {pairs[:, 0].mean():.2g}")
            )  # fmt: skip
    return measurements


def _ratio(pairs: np.ndarray, axis: int) -> np.ndarray:
    means = pairs.mean(axis=axis)
    return means[..., 0] / means[..., 1]
