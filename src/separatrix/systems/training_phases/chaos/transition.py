"""When chaos ends: amplification of early and late perturbations, and the step from which copies stay together."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.engines.intervals import mean_interval, median_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.systems.training_phases.chaos.settings import Settings

#: A perturbation that grows less than this is forgotten.
FORGOTTEN = 10.0
#: Decades by which early perturbations must grow more than late ones.
DECADES = 2.0


def kept(data: xr.Dataset) -> xr.Dataset:
    """The members that did not diverge."""
    return data.isel(member=np.flatnonzero(data["diverged_at_step"].values < 0))


def final_amplification(settings: Settings, data: xr.Dataset) -> Float[np.ndarray, "n s"]:
    """``log10 A(t0, T)``: the median over random directions, for each run and spawn step."""
    random = data["amplification"].values[:, : settings.directions, :, -1]
    with np.errstate(divide="ignore"):
        return np.log10(np.median(random, axis=1))


def transition_steps(settings: Settings, data: xr.Dataset) -> Float[np.ndarray, " n"]:
    """``t_c``: the first spawn step from which on all perturbations are forgotten at T; T where there is none."""
    stable = final_amplification(settings, data) < np.log10(FORGOTTEN)
    from_here_on = np.flip(np.logical_and.accumulate(np.flip(stable, axis=1), axis=1), axis=1)
    spawns = np.append(data["spawn"].values, settings.steps)
    return spawns[np.where(from_here_on.any(axis=1), from_here_on.argmax(axis=1), len(spawns) - 1)].astype(float)


def determinism(settings: Settings, results: Results, experiment: str = "identical") -> list[Measurement]:  # noqa: ARG001
    """Largest distance of copies from their runs; without a perturbation it must be zero to the last bit."""
    data = results[experiment]
    largest = np.nanmax(kept(data)["distance"].values, axis=(1, 2, 3), initial=0)
    label, accepted = "largest distance of a copy from its run", (0.0, 0.0)
    if largest.size == 0:
        return [Measurement.missing(label, accepted, "all runs diverged", 1.0)]
    return [
        Measurement(label, largest.max(), (largest.min(), largest.max()), accepted, diverged_fraction(data),
                    members=largest.size)
    ]  # fmt: skip


def not_deterministic(results: Results) -> str:
    """Why nothing may be concluded; empty if unperturbed copies kept every bit."""
    if np.nanmax(kept(results["identical"])["distance"].values, initial=0) > 0:
        return "unperturbed copies left their runs: training is not deterministic here, so nothing can be concluded"
    return ""


def chaos_effect(settings: Settings, results: Results, experiment: str = "copies") -> list[Measurement]:
    """Decades between the amplifications of the first and of the last perturbation."""
    label, accepted = "log10 of A(0, T) / A(last, T)", (DECADES, np.inf)
    data = results[experiment]
    reason = not_deterministic(results)
    decades = final_amplification(settings, kept(data))
    if reason or len(decades) < 2:
        return [Measurement.missing(label, accepted, reason or "runs diverged", diverged_fraction(data))]
    estimate, interval = mean_interval(decades[:, 0] - decades[:, -1])
    return [Measurement(label, estimate, interval, accepted, diverged_fraction(data), members=len(decades))]


def transition(settings: Settings, results: Results, experiment: str = "copies") -> list[Measurement]:
    """Step from which perturbations are forgotten: after the start, and before half of the training."""
    label = f"first step from which A(t0, T) < {FORGOTTEN:g}"
    spawns = results[experiment]["spawn"].values
    accepted = (float(spawns[1]), settings.steps / 2)
    data = results[experiment]
    reason = not_deterministic(results)
    found = transition_steps(settings, kept(data))
    if reason or found.size < 2:
        return [Measurement.missing(label, accepted, reason or "runs diverged", diverged_fraction(data))]
    estimate, interval = median_interval(found)
    none = int(np.sum(found == settings.steps))
    return [
        Measurement(label, estimate, interval, accepted, diverged_fraction(data), members=found.size, unit="steps",
                    note=f"{none} of {found.size} runs have none" if none else "")
    ]  # fmt: skip
