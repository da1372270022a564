"""Two phases of the kernel's motion, and whether it goes on in the second (claims K1 and K2)."""

import numpy as np
import xarray as xr

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.lab import Measurement, Results, Verdict, diverged_fraction
from separatrix.probes.tangent_kernel.phases import Transition, transition
from separatrix.systems.training_phases.two_phases.settings import Settings, kernel_vectors, problem

#: Kernels of the two phases are this many times further apart than kernels of the second.
RATIO = 3.0
#: Distance below which a kernel has not changed "a lot": a rotation by 18 degrees.
LARGE = 0.05
#: Motion is seen above this many times the distance that rounding makes.
FLOORS = 10.0
#: Distance that stands for none, so that logarithms are finite.
_NOTHING = 1e-30


def kept_runs(data: xr.Dataset) -> xr.Dataset:
    """The runs that did not diverge and whose kernels can be compared."""
    fine = (data["diverged_at_step"].values < 0) & np.isfinite(data["distance"].values).all(axis=(1, 2))
    return data.isel(member=np.flatnonzero(fine))


def transitions(data: xr.Dataset, backwards: bool = False) -> list[Transition]:
    """Transition of each run; ``backwards`` reads the checkpoints in the opposite order."""
    time = data["step"].values.astype(np.float64)
    turn = slice(None, None, -1) if backwards else slice(None)
    return [transition(time, distance[turn, turn]) for distance in data["distance"].values]


def _mean(
    label: str, values: np.ndarray, accepted: tuple[float, float], excluded: float, parts: int, unit: str = ""
) -> Measurement:
    if values.size < 2:
        return Measurement.missing(label, accepted, "fewer than two runs did not diverge", excluded)
    estimate, interval = mean_interval(values, confidence=bonferroni(parts))
    return Measurement(label, estimate, interval, accepted, excluded, values.size, unit)


def two_phases(settings: Settings, results: Results, experiment: str = "runs") -> list[Measurement]:  # noqa: ARG001
    """Distance across the transition over that within the second phase, and the former alone."""
    data = results[experiment]
    found, excluded = transitions(kept_runs(data)), diverged_fraction(data)
    ratios = np.array([np.log10(one.ratio) for one in found])
    across = np.array([one.across for one in found])
    return [
        _mean("distance across the transition over that after it", ratios, (np.log10(RATIO), np.inf), excluded, 2,
              "decades"),
        _mean("distance across the transition", across, (LARGE, np.inf), excluded, 2),
    ]  # fmt: skip


def two_phases_controls(settings: Settings, results: Results) -> list[Measurement]:
    """The lazy network, and the runs read backwards."""
    data = results["runs"]
    ratios = np.array([np.log10(max(one.ratio, _NOTHING)) for one in transitions(kept_runs(data), backwards=True)])
    backwards = _mean("read backwards, distance across over that after", ratios, (np.log10(RATIO), np.inf),
                      diverged_fraction(data), 1, "decades")  # fmt: skip
    return [*two_phases(settings, results, "lazy"), backwards]


def still_moving(settings: Settings, results: Results) -> list[Measurement]:
    """Smallest motion between neighbouring checkpoints after the transition, over what rounding makes."""
    data = results["runs"]
    kept = kept_runs(data)
    cuts = [one.index for one in transitions(kept)]
    moved = [np.diagonal(one, 1)[cut:] for cut, one in zip(cuts, kept["distance"].values, strict=True)]
    least = [one.min() for one in moved]
    vectors = kernel_vectors(settings)
    floors = np.log10(np.maximum(least, _NOTHING) / np.maximum(kept["rounding"].values, _NOTHING))
    measurements = [
        _mean("smallest motion after the transition over rounding", floors, (np.log10(FLOORS), np.inf),
              diverged_fraction(data), 2 if vectors else 1, "decades")
    ]  # fmt: skip
    if vectors:
        errors = [np.diagonal(one, 1)[cut:] for cut, one in zip(cuts, kept["standard_error"].values, strict=True)]
        ratios = [np.min(one / np.maximum(error, _NOTHING)) for one, error in zip(moved, errors, strict=True)]
        measurements.append(_resolved(np.log10(np.maximum(ratios, _NOTHING)), vectors, diverged_fraction(data)))
    count = problem(settings).split.labels.size
    perfect = kept["training_accuracy"].values[:, -1] > 1 - 0.5 / count  # a mean that rounding may have touched
    if perfect.any():
        measurements.append(
            Measurement.missing(
                "motion that does not end with learning", (np.log10(FLOORS), np.inf),
                f"{perfect.sum()} of {perfect.size} runs predict all training labels: what moves the kernel dies "
                "out with their loss, harder data decide",
            )
        )  # fmt: skip
    return measurements


def _resolved(decades: np.ndarray, vectors: int, excluded: float) -> Measurement:
    """Smallest motion over the error that random vectors make: where it is too small, nothing is shown or denied."""
    label = "smallest motion after the transition over its standard error"
    found = _mean(label, decades, (np.log10(FLOORS), np.inf), excluded, 2, "decades")
    if found.verdict is not Verdict.FAILS:
        return found
    needed = vectors * (FLOORS / 10**found.estimate) ** 2
    return Measurement.missing(
        label, found.accepted,
        f"motion is {10**found.estimate:.2g} standard errors of its estimate, {FLOORS:g} are asked for: about "
        f"{needed:.2g} sign vectors decide", excluded,
    )  # fmt: skip


def frozen_kernel(settings: Settings, results: Results) -> list[Measurement]:  # noqa: ARG001
    """The same for training linearised from the start, whose kernel cannot move."""
    motion = results["switching"]["linearized_motion"].values
    rounding = kept_runs(results["runs"])["rounding"].values
    motion = motion[np.isfinite(motion)]
    floors = np.log10(np.maximum(motion, _NOTHING) / np.maximum(np.median(rounding), _NOTHING))
    return [
        _mean("motion of the linearised network over rounding", floors, (np.log10(FLOORS), np.inf), 0.0, 1, "decades")
    ]  # fmt: skip
