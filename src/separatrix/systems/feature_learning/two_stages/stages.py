"""Whether the two stages exist: Stage I (L2), Stage II (L4), and neither without flipped labels (L8)."""

import numpy as np
import xarray as xr
from jaxtyping import Bool

from separatrix.engines.intervals import bonferroni, clopper_pearson, mean_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.systems.feature_learning.two_stages.networks import (
    Cell,
    clean_errors,
    fitted,
    grid_cells,
    kept_members,
    losses,
    mean_among,
    nearest,
)
from separatrix.systems.feature_learning.two_stages.settings import CONVERGED, EARLY, Settings

#: In Stage I at most this share of the flipped samples is fitted, and at most this of fresh samples is wrong.
FITTED, WRONG = 0.1, 0.02
#: Strengths kappa (1 - 2 tau) at which Stage I is expected in nearly all networks, and in most.
ALWAYS, MOSTLY = 4.0, 2.2
#: Least share of networks with Stage I at those strengths.
NEARLY_ALL, MOST = 0.8, 0.7


def has_stage_one(data: xr.Dataset) -> Bool[np.ndarray, " n"]:
    """Whether at some time all clean samples are fitted, almost no flipped one, and hardly a fresh sample is wrong."""
    clean, flipped = fitted(data)
    early = data["theta"].values <= EARLY
    return np.any((clean == 1) & (flipped <= FITTED) & (clean_errors(data) <= WRONG) & early, axis=1)


def _strong(settings: Settings) -> list[Cell]:
    return [cell for cell in grid_cells(settings) if cell.strength >= MOSTLY]


def stage_one(settings: Settings, results: Results, weak: bool = False) -> list[Measurement]:
    """Share of the networks with a Stage I, of strong signals; or of the weaker ones, as a control."""
    strong = _strong(settings)
    cells = [cell for cell in grid_cells(settings) if cell.strength < MOSTLY] if weak else strong
    measurements = []
    for cell in cells:
        data = results[cell.name]
        label = f"kappa {cell.kappa:g}, tau {cell.noise:g}: share of networks with Stage I"
        least = NEARLY_ALL if cell.strength >= ALWAYS else MOST
        kept = kept_members(data)
        found, count = int(has_stage_one(kept).sum()), kept.sizes["member"]
        interval = clopper_pearson(found, max(count, 1), confidence=bonferroni(len(cells)))
        measurements.append(
            Measurement(label, found / max(count, 1), interval, (least, 1.0), excluded=diverged_fraction(data),
                        members=count, note=f"kappa (1 - 2 tau) = {cell.strength:.3g}")
        )  # fmt: skip
    return measurements


def stage_two(settings: Settings, results: Results, early: bool = False) -> list[Measurement]:
    """State at the end of training of all networks with two stages; or at the end of Stage I, as a control."""
    cells = [cell for cell in grid_cells(settings) if cell.strength > 1]
    confidence = bonferroni(4 * len(cells))
    measurements = []
    for cell in cells:
        data = kept_members(results[cell.name])
        excluded = diverged_fraction(results[cell.name])
        at = nearest(data["theta"].values, cell.selection) if early else -1
        words = f"kappa {cell.kappa:g}, tau {cell.noise:g}"
        flipped, memory = data["flipped"].values, data["memory"].values.astype(np.float64)
        signal = data["signal"].values[:, at].mean(axis=1)
        overtaken = (memory[:, at] > signal[:, None])[:, None]
        found = [
            ("training loss", losses(data)[:, at].mean(axis=1), (-np.inf, CONVERGED)),
            ("share of flipped samples that are fitted", fitted(data)[1][:, at], (0.99, np.inf)),
            ("memory of flipped samples over signal", mean_among(memory, flipped)[:, at] / signal, (1.0, np.inf)),
            ("share of flipped samples with more memory than signal", mean_among(overtaken, flipped)[:, 0],
             (0.9, np.inf)),
        ]  # fmt: skip
        for label, values, accepted in found:
            estimate, interval = mean_interval(values, confidence=confidence)
            measurements.append(
                Measurement(f"{words}: {label}", estimate, interval, accepted, excluded, members=values.size)
            )
    return measurements


def nothing_without_flips(settings: Settings, results: Results, name: str = "no_noise") -> list[Measurement]:
    """Without flipped labels: clean samples fitted, and the error of fresh ones at the end minus its smallest."""
    del settings
    data = kept_members(results[name])
    excluded = diverged_fraction(results[name])
    error = clean_errors(data)
    unfitted = 1 - fitted(data)[0][:, -1]
    rise = np.max(error - np.minimum.accumulate(error, axis=1), axis=1)
    measurements = []
    for label, values in (("share of clean samples not fitted at the end", unfitted),
                          ("largest rise of the error of fresh samples", rise)):  # fmt: skip
        estimate, interval = mean_interval(values, confidence=bonferroni(2))
        measurements.append(
            Measurement(label, estimate, interval, (-np.inf, 0.01), excluded, members=values.size)
        )  # fmt: skip
    return measurements
