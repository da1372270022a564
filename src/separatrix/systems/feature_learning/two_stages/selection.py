"""Selection by small loss: by log 2 (L3), against confident learning (L12), and by rank (L14)."""

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from scipy.special import expit

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.optimizers.confident_learning import wrong_labels
from separatrix.optimizers.sample_selection import selection_quality, small_loss, smallest_share
from separatrix.systems.feature_learning.two_stages.image_training import image_margins
from separatrix.systems.feature_learning.two_stages.networks import (
    Cell,
    grid_cells,
    kept_members,
    losses,
    main_cell,
    nearest,
    strong_cell,
)
from separatrix.systems.feature_learning.two_stages.settings import Settings

#: A claim on selection that fails needs as many flipped labels: keeping all samples is right for the others.
_ENOUGH = 0.15
#: Every so many records confident learning is tried.
SPARSE = 3


def selection_accuracy(data: xr.Dataset) -> Float[np.ndarray, "n t"]:
    """Share of the samples that are kept and clean, or dropped and flipped."""
    return np.mean(small_loss(losses(data)) != data["flipped"].values[:, None], axis=2)


def accepted_accuracy(strength: float, noise: float) -> tuple[float, float] | None:
    """Where the best selection accuracy of a network of this strength should lie; None where nothing is claimed.

    Samples with an active share p of filters are rejected if ``2 p < kappa (1 - 2 tau)``: all of them above 2 with
    room for the products of different samples, a part of them below.
    """
    if strength >= 4:
        return 0.995, np.inf
    if strength >= 2.2:
        return 0.97, np.inf
    if strength > 1.6 + 1e-9 or noise < _ENOUGH:
        return None
    return -np.inf, 0.92 if strength > 0.8 + 1e-9 else 0.85


def log_two_separates(settings: Settings, results: Results, at_end: bool = False) -> list[Measurement]:
    """Best accuracy of the selection over time, mean over networks; or that at the end of training, as a control."""
    claimed = [
        (cell, accepted) for cell in grid_cells(settings)
        if (accepted := accepted_accuracy(cell.strength, cell.noise)) is not None
    ]  # fmt: skip
    measurements = []
    for cell, accepted in claimed:
        accuracy = selection_accuracy(kept_members(results[cell.name]))
        values = accuracy[:, -1] if at_end else accuracy.max(axis=1)
        estimate, interval = mean_interval(values, confidence=bonferroni(len(claimed)))
        measurements.append(
            Measurement(
                f"kappa {cell.kappa:g}, tau {cell.noise:g}: accuracy of the selection", estimate, interval, accepted,
                diverged_fraction(results[cell.name]), members=values.size,
                note=f"kappa (1 - 2 tau) = {cell.strength:.3g}",
            )
        )  # fmt: skip
    return measurements


def ranking_separates(settings: Settings, results: Results, ranked: bool = True) -> list[Measurement]:
    """Accuracy of keeping the known share of right labels, those of smallest loss; as a control by log 2 instead."""
    cells = [main_cell(settings), strong_cell(settings)]
    accepted = (0.97, np.inf)
    measurements = []
    for cell in cells:
        label = f"tau {cell.noise:g}: accuracy of the selection in Stage I"
        excluded = diverged_fraction(results[cell.name])
        if np.isnan(cell.selection) or cell.noise == 0:
            measurements.append(
                Measurement.missing(label, accepted, "there is no Stage I, or no flipped label", excluded)
            )
            continue
        data = kept_members(results[cell.name])
        chosen = losses(data)[:, nearest(data["theta"].values, cell.selection)]
        kept = [smallest_share(row, 1 - cell.noise) if ranked else small_loss(row) for row in chosen]
        values = np.mean(np.stack(kept) != data["flipped"].values, axis=1)
        estimate, interval = mean_interval(values, confidence=bonferroni(len(cells)))
        measurements.append(Measurement(label, estimate, interval, accepted, excluded, members=values.size))
    return measurements


def f1_of_log_two(margins: Float[np.ndarray, " s"], wrong: Bool[np.ndarray, " s"]) -> float:
    """F1 of the wrong labels found by a loss of log 2 or more."""
    return selection_quality(small_loss(np.logaddexp(0.0, -margins)), ~wrong).f1


def f1_of_confident_learning(
    margins: Float[np.ndarray, " s"], labels: Float[np.ndarray, " s"], wrong: Bool[np.ndarray, " s"]
) -> float:
    """F1 of the wrong labels found by confident learning on the same outputs, by the better one of its two methods."""
    positive = expit(margins * labels)
    probabilities = np.stack([1 - positive, positive], axis=1)
    observed = (labels > 0).astype(np.int64)
    return max(selection_quality(~wrong_labels(probabilities, observed, method), ~wrong).f1
               for method in ("noise rate", "joint"))  # fmt: skip


def _advantages(
    early: Float[np.ndarray, "B s"], course: Float[np.ndarray, "B t s"], labels: Float[np.ndarray, "B s"],
    wrong: Bool[np.ndarray, "B s"], known: Bool[np.ndarray, "B s"],
) -> Float[np.ndarray, " B"]:  # fmt: skip
    """F1 of log 2 on the margins ``early`` minus that of confident learning at the time that is best for it."""
    own, theirs = [], []
    for margins, path, signs, flags, sure in zip(early, course, labels, wrong, known, strict=True):
        own.append(f1_of_log_two(margins[sure], flags[sure]))
        theirs.append([f1_of_confident_learning(row[sure], signs[sure], flags[sure]) for row in path])
    # the best time of the mean over networks: each for itself would be chosen by chance
    curves = np.array(theirs)
    return np.array(own) - curves[:, curves.mean(axis=0).argmax()]


def observed_labels(data: xr.Dataset) -> Float[np.ndarray, "n s"]:
    """Observed labels of the training samples, half of each true class."""
    flipped = data["flipped"].values
    true = np.repeat([1.0, -1.0], flipped.shape[1] // 2)
    return np.where(flipped, -true, true)


def as_good_as_confident_learning(settings: Settings, results: Results, at_end: bool = False) -> list[Measurement]:
    """Difference in F1: log 2 at the end of Stage I (or of training, as a control) minus confident learning."""
    accepted = (-0.02, np.inf)
    found: list[tuple[str, Float[np.ndarray, " n"] | None, float, str]] = []
    cells: list[Cell] = [main_cell(settings), strong_cell(settings)]
    for cell in cells:
        label = f"tau {cell.noise:g}: F1 of log 2 minus confident learning"
        excluded = diverged_fraction(results[cell.name])
        if np.isnan(cell.selection) or cell.noise == 0:
            found.append((label, None, excluded, "there is no Stage I, or no flipped label"))
            continue
        data = kept_members(results[cell.name])
        margins, flipped = data["margin"].values.astype(np.float64), data["flipped"].values
        chosen = margins[:, -1 if at_end else nearest(data["theta"].values, cell.selection)]
        values = _advantages(chosen, margins[:, 1::SPARSE], observed_labels(data), flipped, np.ones_like(flipped))
        found.append((label, values, excluded, ""))
    if settings.data != "none":
        label, data = f"{settings.data}: F1 of log 2 minus confident learning", results["images"]
        excluded, wrong = diverged_fraction(data), data["wrong"].values
        if wrong.any(axis=1).all():
            early, margins = image_margins(settings, data), data["margin"].values.astype(np.float64)
            known = wrong | data["right"].values
            values = _advantages(margins[:, -1] if at_end else early, margins[:, 1::SPARSE], data["label"].values,
                                 wrong, known)  # fmt: skip
            found.append((label, values, excluded, ""))
        else:
            found.append((label, None, excluded, "no label is known to be wrong"))
    measurements = []
    for label, values, excluded, note in found:
        if values is None or values.size < 2:
            measurements.append(Measurement.missing(label, accepted, note or "too few networks are left", excluded))
            continue
        estimate, interval = mean_interval(values, confidence=bonferroni(len(found)))
        measurements.append(Measurement(label, estimate, interval, accepted, excluded, members=values.size))
    return measurements
