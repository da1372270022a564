"""Whether the kernel stays in a narrow cone after the transition (claim K3)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.probes.tangent_kernel.phases import transition
from separatrix.systems.training_phases.two_phases.phases import kept_runs
from separatrix.systems.training_phases.two_phases.settings import Settings

#: Largest distance from a kernel of the second phase later on, over its sum with the distance of that kernel from the
#: start: the former is half of the latter. Unlike their quotient the share is bounded, so that its mean exists.
NARROW = 1 / 3
#: Growth of that distance over the last half of its course, over the same.
FLAT = 0.1


def reach(time: np.ndarray, distance: np.ndarray) -> tuple[float, float]:
    """How far the kernel gets from its place soon after the transition, and how much of it in the last half.

    Parameters
    ----------
    time, distance
        Checkpoints and distances of one run.

    Returns
    -------
    width, growth
        For references ``tau`` from the checkpoint after the transition to the middle of the run, the largest share
        ``M / (M + S(0, tau))`` with ``M = max_{t > tau} S(t, tau)``; and for the first of them the slope of
        ``S(t, tau)`` in the last half of its course times the length of that half, over ``S(0, tau)``.
    """
    first = transition(time, distance).index + 1
    middle = max(int(np.searchsorted(time, time[-1] / 2, side="right")), first + 1)
    furthest = [(distance[tau + 1 :, tau].max(), distance[0, tau]) for tau in range(first, middle)]
    width = max(far / (far + start) for far, start in furthest)
    half = (first + len(time)) // 2
    slope = np.polyfit(time[half:], distance[half:, first], 1)[0]
    return float(width), float(slope * (time[-1] - time[half]) / distance[0, first])


def _measure(label: str, data: xr.Dataset, distances: Sequence[np.ndarray]) -> list[Measurement]:
    excluded = diverged_fraction(data)
    time = data["step"].values.astype(np.float64)
    found = np.array([reach(time, distance) for distance in distances]).reshape(-1, 2)
    parts = []
    names = (
        "largest later distance from a kernel, over its sum with that of the start",
        "growth of it in the last half",
    )
    for values, what, most in zip(found.T, names, (NARROW, FLAT), strict=True):
        name, accepted = f"{label}{what}", (-np.inf, most)
        if values.size < 2:
            parts.append(Measurement.missing(name, accepted, "fewer than two runs did not diverge", excluded))
            continue
        estimate, interval = mean_interval(values, confidence=bonferroni(2))
        parts.append(Measurement(name, estimate, interval, accepted, excluded, values.size))
    return parts


def narrow_cone(settings: Settings, results: Results) -> list[Measurement]:  # noqa: ARG001
    """Width and growth in every run."""
    data = results["runs"]
    return _measure("", data, list(kept_runs(data)["distance"].values))


def narrow_cone_controls(settings: Settings, results: Results) -> list[Measurement]:
    """Checkpoints in random order, and a learning rate at which training stays chaotic."""
    data = results["runs"]
    shuffled = []
    for number, distance in enumerate(kept_runs(data)["distance"].values):
        order = np.random.default_rng([settings.seed, 3, number]).permutation(len(distance))
        shuffled.append(distance[np.ix_(order, order)])
    chaotic = results["chaotic"]
    return [
        *_measure("shuffled: ", data, shuffled),
        *_measure(
            f"learning rate x {settings.chaotic_factor:g}: ", chaotic, list(kept_runs(chaotic)["distance"].values)
        ),
    ]
