"""When does the rich phase end? The cut in time after which kernels are close to each other, but far from those before.

Source: derived, for the two phases of Zhou, Yang, Ren, Sugiyama, Yan 2025 (arXiv 2503.16316).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Transition:
    """The cut between two phases.

    Attributes
    ----------
    index, time
        First checkpoint of the second phase and its time.
    across, within
        Mean distance between a kernel before the cut and one from it on, and between two of the latter.
    ratio
        ``across / within``, infinite if the kernel does not move after the cut. A kernel that rotates steadily has 3
        (distance growing as time) to 7 (as its square) for a cut in the middle; a phase that ends has more, and a
        series read backwards less than 1.
    """

    index: int
    time: float
    across: float
    within: float
    ratio: float


def transition(time: Float[np.ndarray, " n"], distance: Float[np.ndarray, "n n"]) -> Transition:
    """The cut that maximises mean distance across minus mean distance within the second phase.

    Only cuts in the first half of the time are considered: after a cut at the end of a steady rotation there are two
    kernels close to each other, which is no phase.

    Parameters
    ----------
    time
        ``(n,)``, increasing, at least four.
    distance
        Kernel distances.

    Raises
    ------
    ValueError
        If there are fewer than four times, they do not increase or do not match the distances, or no checkpoint but
        the first lies in the first half.
    """
    time, distance = np.asarray(time, np.float64), np.asarray(distance, np.float64)
    if time.ndim != 1 or time.size < 4 or distance.shape != (time.size, time.size) or np.any(np.diff(time) <= 0):
        raise ValueError(
            f"a transition needs distances between kernels at four or more increasing times, got {time.size} times and "
            f"distances of shape {distance.shape}"
        )
    last = int(np.searchsorted(time, (time[0] + time[-1]) / 2, side="right"))
    cuts = range(1, min(last, time.size - 1))
    if not cuts:
        raise ValueError("no checkpoint lies in the first half of the time")
    means = [_means(distance, cut) for cut in cuts]
    best = int(np.argmax([across - within for across, within in means]))
    (across, within), cut = means[best], cuts[best]
    return Transition(cut, float(time[cut]), across, within, across / within if within > 0 else np.inf)


def _means(distance: Float[np.ndarray, "n n"], cut: int) -> tuple[float, float]:
    after = distance[cut:, cut:]
    pairs = len(after) * (len(after) - 1)
    return float(distance[:cut, cut:].mean()), float(after.sum() / pairs)
