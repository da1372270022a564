"""Selection by small loss: does log 2 tell flipped labels from clean ones (L3), and better than peers do (L12)?"""

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from scipy.special import expit

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.optimizers.confident_learning import wrong_labels
from separatrix.optimizers.sample_selection import selection_quality, small_loss
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


def selection_accuracy(data: xr.Dataset) -> Float[np.ndarray, "n t"]:
    """Share of the samples that are kept and clean, or dropped and flipped."""
    return np.mean(small_loss(losses(data)) != data["flipped"].values[:, None], axis=2)


def accepted_accuracy(strength: float, noise: float) -> tuple[float, float] | None:
    """Where the best selection accuracy of a network of this strength should lie; None where nothing is claimed.

    Samples with an active share p of filters are rejected if ``2 p < kappa (1 - 2 tau)``: all of them above 2 with
    room for the products of different samples, a part of them below.
    """
    if strength >= 4:
        return 0.995, 1.0
    if strength >= 2.2:
        return 0.97, 1.0
    if strength > 1.6 + 1e-9 or noise < _ENOUGH:
        return None
    return (0.0, 0.92) if strength > 0.8 + 1e-9 else (0.0, 0.85)


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


def _advantages(margins, late, labels, wrong) -> Float[np.ndarray, " n"]:
    """F1 of log 2 on the margins ``late`` minus that of confident learning on ``margins``, for each network."""
    return np.array(
        [
            f1_of_log_two(own, flags) - f1_of_confident_learning(theirs, signs, flags)
            for own, theirs, signs, flags in zip(late, margins, labels, wrong, strict=True)
        ]
    )


def observed_labels(data: xr.Dataset) -> Float[np.ndarray, "n s"]:
    """Observed labels of the training samples, half of each true class."""
    flipped = data["flipped"].values
    true = np.repeat([1.0, -1.0], flipped.shape[1] // 2)
    return np.where(flipped, -true, true)


def as_good_as_confident_learning(settings: Settings, results: Results, at_end: bool = False) -> list[Measurement]:
    """Difference in F1 at the end of Stage I; as a control log 2 is applied at the end of training instead."""
    accepted = (-0.02, np.inf)
    found: list[tuple[str, Float[np.ndarray, " n"] | None, float, str]] = []
    cells: list[Cell] = [main_cell(settings), strong_cell(settings)]
    for cell in cells:
        label, excluded = f"tau {cell.noise:g}: F1 of log 2 minus confident learning", diverged_fraction(results[cell.name])
        if np.isnan(cell.selection) or cell.noise == 0:
            found.append((label, None, excluded, "there is no Stage I, or no flipped label"))
            continue
        data = kept_members(results[cell.name])
        margins = data["margin"].values.astype(np.float64)
        early = margins[:, nearest(data["theta"].values, cell.selection)]
        values = _advantages(early, margins[:, -1] if at_end else early, observed_labels(data), data["flipped"].values)
        found.append((label, values, excluded, ""))
    if settings.data != "none":
        label, data = f"{settings.data}: F1 of log 2 minus confident learning", results["images"]
        excluded = diverged_fraction(data)
        if not data["wrong"].values.any(axis=1).all():
            found.append((label, None, excluded, "no label is known to be wrong"))
        else:
            early, end = image_margins(settings, data)
            known = data["wrong"].values | data["right"].values
            values = np.array(
                [
                    _advantages(a[None, k], (b if at_end else a)[None, k], signs[None, k], flags[None, k])[0]
                    for a, b, signs, flags, k in zip(
                        early, end, data["label"].values, data["wrong"].values, known, strict=True
                    )
                ]
            )
            found.append((label, values, excluded, ""))
    measurements = []
    for label, values, excluded, note in found:
        if values is None or values.size < 2:
            measurements.append(Measurement.missing(label, accepted, note or "too few networks are left", excluded))
            continue
        estimate, interval = mean_interval(values, confidence=bonferroni(len(found)))
        measurements.append(Measurement(label, estimate, interval, accepted, excluded, members=values.size))
    return measurements
