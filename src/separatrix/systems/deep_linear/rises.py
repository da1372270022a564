"""When a mode is learned, when its noise peaks, and what the loss was on the plateau before: read off recorded runs."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

LEARNED = 0.95  # a mode counts as learned when its strength first reaches this share of its singular value


class Rises(NamedTuple):
    """Per run and mode; NaN where the mode was never learned.

    Attributes
    ----------
    learned
        Whether the mode reached 95 % of its singular value, ``(n, r)``.
    learned_time
        First time it did (interpolated between records), ``(n, r)``, in gradient-flow time.
    peak_time
        Time of the largest diffusion up to then, ``(n, r)``.
    peak_progress
        ``w / s`` at that time, ``(n, r)``.
    peaked_before
        Whether that time is a record strictly before the one at which the mode was learned, ``(n, r)``.
    """

    learned: Bool[np.ndarray, "n r"]
    learned_time: Float[np.ndarray, "n r"]
    peak_time: Float[np.ndarray, "n r"]
    peak_progress: Float[np.ndarray, "n r"]
    peaked_before: Bool[np.ndarray, "n r"]


def rises(
    time: Float[np.ndarray, " t"],
    strength: Float[np.ndarray, "n t r"],
    variance_rate: Float[np.ndarray, "n t r"],
    singular_values: Float[np.ndarray, " r"],
) -> Rises:
    """Learning and noise-peak times of every mode.

    The peak is searched only up to the learned time: with label noise, later excursions to ``w > s`` can be noisier.

    Parameters
    ----------
    time
        Recording times.
    strength, variance_rate
        ``w_aa`` and ``S_aa`` along each run.
    singular_values
        ``s_a``.
    """
    strength, variance_rate = np.nan_to_num(strength, nan=-np.inf), np.nan_to_num(variance_rate, nan=-np.inf)
    reached = strength >= LEARNED * singular_values
    learned = np.asarray(reached.any(axis=1))
    index = np.where(learned, reached.argmax(axis=1), 0)
    until = np.arange(time.size)[None, :, None] <= index[:, None, :]
    peak = np.where(until, variance_rate, -np.inf).argmax(axis=1)
    pick = lambda values, at: np.take_along_axis(values, at[:, None, :], axis=1)[:, 0]  # noqa: E731
    blank = lambda values: np.where(learned, values, np.nan)  # noqa: E731
    return Rises(
        learned,
        crossing_times(time, strength, LEARNED * singular_values),
        blank(time[peak]),
        blank(pick(strength, peak) / singular_values),
        learned & (peak < index),
    )


def crossing_times(
    time: Float[np.ndarray, " t"], values: Float[np.ndarray, "n t r"], level: Float[np.ndarray, " r"]
) -> Float[np.ndarray, "n r"]:
    """First times at which the values reach ``level``, interpolated between records; NaN where they never do."""
    values = np.nan_to_num(values, nan=-np.inf)
    reached = values >= level
    index = reached.argmax(axis=1)
    before = np.maximum(index - 1, 0)
    pick = lambda at: np.take_along_axis(values, at[:, None, :], axis=1)[:, 0]  # noqa: E731
    below, above = pick(before), pick(index)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip((level - below) / (above - below), 0, 1)
    crossed = time[before] + np.where(index > before, np.nan_to_num(share), 1.0) * (time[index] - time[before])
    return np.where(reached.any(axis=1), crossed, np.nan)


def plateau_losses(
    loss: Float[np.ndarray, "n t"], strength: Float[np.ndarray, "n t r"], singular_values: Float[np.ndarray, " r"]
) -> Float[np.ndarray, "n k"]:
    """Median loss between the learning of mode k and the start of mode k + 1, for k = 1..r-1, ``(n, r - 1)``.

    Mode k + 1 has started when it reaches 5 % of its singular value; NaN where the two overlap in a run.
    """
    modes = singular_values.size
    plateaus = np.full((loss.shape[0], max(modes - 1, 0)), np.nan)
    for k in range(modes - 1):
        done = np.cumsum(strength[:, :, k] >= LEARNED * singular_values[k], axis=1) > 0
        waiting = np.cumsum(strength[:, :, k + 1] >= 0.05 * singular_values[k + 1], axis=1) == 0
        between = np.where(done & waiting, loss, np.nan)
        some = (done & waiting).any(axis=1)
        plateaus[some, k] = np.nanmedian(between[some], axis=1)
    return plateaus
