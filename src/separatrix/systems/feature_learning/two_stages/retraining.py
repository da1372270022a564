"""Selection, then training from scratch without the samples that were dropped (L11)."""

from functools import partial

import numpy as np
import xarray as xr

from separatrix.engines.intervals import bonferroni, bootstrap
from separatrix.lab import Experiment, Measurement, Results, diverged_fraction
from separatrix.optimizers.sample_selection import small_loss
from separatrix.systems.feature_learning.two_stages.networks import (
    Cell,
    cost,
    draw,
    lost_at,
    main_cell,
    strong_cell,
    train,
)
from separatrix.systems.feature_learning.two_stages.settings import Settings, record_steps

#: Least share of the final error that selection should avoid.
LEAST_GAIN = 0.5
WAYS = ("selected", "oracle")


def _kept(settings: Settings, cell: Cell, way: str, tasks, start: int) -> np.ndarray:
    """Which samples to train on."""
    clean = np.asarray(tasks.labels == tasks.true_labels)
    if way == "oracle":
        return clean
    steps = np.array([max(round(cell.selection / cell.time_step), 1)])
    margins = np.asarray(train(cell, tasks, steps).margins)[:, 0]
    kept = np.asarray(small_loss(np.logaddexp(0.0, -margins)))
    if way == "random":
        # as many samples as the selection keeps
        return np.stack(
            [
                np.random.default_rng([settings.seed, 2, start + row]).permutation(flags)
                for row, flags in enumerate(kept)
            ]
        )
    return kept


def simulate_retrained(settings: Settings, cell: Cell, way: str, start: int, stop: int) -> xr.Dataset:
    """Errors of the members, trained from their own start on the samples kept in this way."""
    tasks = draw(settings, cell, start, stop)
    kept = _kept(settings, cell, way, tasks, start)
    steps = record_steps(settings.duration, cell.time_step)
    # a network of which no sample is kept cannot be trained; it stays at its start, which has the error one half
    weights, empty = kept.astype(np.float64), np.logical_not(kept.any(axis=1))
    weights[empty, 0] = 1.0
    records = train(cell, tasks._replace(weights=weights), steps)
    variables = {
        "test_error": (("member", "theta", "output"), np.where(empty[:, None, None], 0.5, records.test_error)),
        "kept": (("member", "sample"), kept),
        "flipped": (("member", "sample"), np.asarray(tasks.labels != tasks.true_labels)),
        "diverged_at_step": ("member", lost_at(records, steps)),
    }
    coordinates = {
        "member": np.arange(start, stop),
        "theta": ("theta", steps * cell.time_step, {"unit": "n m / (learning_rate sigma^2 d) steps"}),
        "output": [1, -1],
    }
    return xr.Dataset(variables, coordinates)


def _cells(settings: Settings) -> list[Cell]:
    return [
        cell for cell in (main_cell(settings), strong_cell(settings)) if cell.noise > 0 and not np.isnan(cell.selection)
    ]


def retraining_experiments(settings: Settings) -> list[Experiment]:
    """Selected and oracle-clean samples; randomly dropped ones for the control. Only where there is a Stage I."""
    return [
        Experiment(
            f"{way}_{cell.name}",
            partial(simulate_retrained, settings, cell, way),
            control=way == "random",
            **cost(cell, settings.duration, settings.members),
        )
        for cell in _cells(settings)
        for way in (*WAYS, "random")
    ]


def final_errors(data: xr.Dataset) -> np.ndarray:
    """Error of fresh samples at the end, ``(n,)``."""
    return data["test_error"].values[:, -1].mean(axis=1)


def selection_pays(settings: Settings, results: Results, way: str = "selected") -> list[Measurement]:
    """Share of the error of plain training, at its end, that training on the samples kept avoids."""
    cells = _cells(settings)
    accepted = (LEAST_GAIN, np.inf)
    if not cells:
        return [Measurement.missing("share of the error avoided", accepted, "there is no Stage I, or no flipped label")]
    measurements = []
    for cell in cells:
        plain, other = results[cell.name], results[f"{way}_{cell.name}"]
        whole = (plain["diverged_at_step"].values < 0) & (other["diverged_at_step"].values < 0)
        label, excluded = f"tau {cell.noise:g}: share of the error avoided", diverged_fraction(plain, other)
        pairs = np.stack([final_errors(plain), final_errors(other)], axis=1)[whole]
        if len(pairs) == 0 or pairs[:, 0].mean() == 0:
            measurements.append(Measurement.missing(label, accepted, "plain training makes no error", excluded))
            continue
        estimate, interval = bootstrap(_avoided, pairs, confidence=bonferroni(len(cells)), seed=settings.seed)
        oracle = final_errors(results[f"oracle_{cell.name}"]).mean()
        note = f"error {pairs[:, 0].mean():.3g}, {way} {pairs[:, 1].mean():.3g}, without flipped samples {oracle:.3g}"
        measurements.append(
            Measurement(label, estimate, interval, accepted, excluded, members=len(pairs), note=note)
        )  # fmt: skip
    return measurements


def _avoided(pairs: np.ndarray, axis: int) -> np.ndarray:
    means = pairs.mean(axis=axis)
    return 1 - means[..., 1] / means[..., 0]
