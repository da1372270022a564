"""The tangent kernel of the same runs: when it settles, and how narrow the cone is in which it then stays."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from separatrix.engines.intervals import mean_interval, median_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.probes.cone import apex_angle, cone
from separatrix.probes.tangent_kernel.phases import transition as kernel_transition
from separatrix.systems.training_phases.chaos.settings import Settings
from separatrix.systems.training_phases.chaos.transition import kept, transition_steps

#: Octaves within which both transitions must lie.
OCTAVES = 1.0
#: Radius of the cone over its angle from the kernel at the start.
NARROW = 0.25


@dataclass(frozen=True, eq=False)
class KernelPhases:
    """Transition of each run's kernel, and the cone in which it stays after the end of chaos.

    Attributes
    ----------
    steps
        ``(n,)``: step of the kernel's own transition.
    radius, apex
        Of the runs in which chaos ends: angular radius of the kernels from there on, and angle of the first kernel from
        their mean; radians.
    """

    steps: Float[np.ndarray, " n"]
    radius: Float[np.ndarray, " n"]
    apex: Float[np.ndarray, " n"]


def kernel_phases(settings: Settings, results: Results, from_start: bool = False) -> KernelPhases | None:
    """Transition and cone of all runs; with ``from_start`` the cone of all kernels. None if there are no kernels."""
    data = kept(results["copies"])
    matrices, time = data["kernel_distance"].values, data["step"].values.astype(np.float64)
    if len(matrices) < 2 or not np.isfinite(matrices).all():
        return None
    found = [kernel_transition(time, one) for one in matrices]
    cuts = np.searchsorted(time, transition_steps(settings, data))
    pairs = [(one, 0 if from_start else cut) for one, cut in zip(matrices, cuts, strict=True) if cut < time.size - 1]
    return KernelPhases(
        np.array([each.time for each in found]),
        np.array([cone(one[cut:, cut:]).radius for one, cut in pairs]),
        np.array([apex_angle(one[0, cut:], one[cut:, cut:]) for one, cut in pairs]),
    )


NO_KERNEL = "no kernels of single examples: batch normalisation, or too few finite runs"


def same_transition(settings: Settings, results: Results, experiment: str = "copies") -> list[Measurement]:
    """Octaves between the end of chaos and the transition of the kernel."""
    label, accepted = "|log2 (end of chaos / transition of the kernel)|", (0.0, OCTAVES)
    excluded = diverged_fraction(results["copies"], results[experiment])
    phases = kernel_phases(settings, results)
    chaotic = transition_steps(settings, kept(results[experiment]))
    if phases is None or chaotic.size != phases.steps.size:
        return [Measurement.missing(label, accepted, NO_KERNEL, excluded)]
    # chaos that ends before the first comparison is placed there
    octaves = np.abs(np.log2(np.maximum(chaotic, settings.record_every) / phases.steps))
    estimate, interval = median_interval(octaves)
    note = f"medians: chaos {np.median(chaotic):g}, kernel {np.median(phases.steps):g} steps"
    return [Measurement(label, estimate, interval, accepted, excluded, members=octaves.size, note=note)]


def narrow_cone(settings: Settings, results: Results, from_start: bool = False) -> list[Measurement]:
    """Angular radius of the kernels after the end of chaos, over the angle of the first kernel from their mean."""
    label, accepted = "radius of the cone over its angle from the first kernel", (0.0, NARROW)
    excluded = diverged_fraction(results["copies"])
    phases = kernel_phases(settings, results, from_start)
    if phases is None or phases.radius.size < 2:
        return [Measurement.missing(label, accepted, NO_KERNEL, excluded)]
    estimate, interval = mean_interval(phases.radius / phases.apex)
    note = f"means: radius {np.degrees(phases.radius.mean()):.3g}, angle {np.degrees(phases.apex.mean()):.3g} degrees"
    return [
        Measurement(label, estimate, (max(interval[0], 0.0), interval[1]), accepted, excluded,
                    members=phases.radius.size, note=note)
    ]  # fmt: skip
