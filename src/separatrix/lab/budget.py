"""Time and memory of a run, known before it starts."""

from __future__ import annotations

from separatrix.lab.errors import UsageError
from separatrix.lab.study import Experiment

#: A part should not take longer than this: what a kill can destroy, and the step of the progress bar.
PART_SECONDS = 30.0
#: Parts computed at the same time: while one is compiled or written, the other keeps the cores busy.
WORKERS = 2
#: Duration of a run over the sum of its parts' durations alone.
OVERLAP = 0.7
#: Share of the available memory that the members of one part may fill; the rest is for the other parts under way, for
#: results and for compilation.
MEMORY_SHARE = 0.25


def part_size(experiment: Experiment, available: int) -> int:
    """Members of one part, so that it fits the memory and is not too long.

    Parameters
    ----------
    experiment
        Its ``bytes_per_member`` and ``seconds`` are trusted.
    available
        Bytes of memory that are free.

    Raises
    ------
    UsageError
        If a single member does not fit.
    """
    need = experiment.bytes_per_member
    if need > available:
        raise UsageError(
            f"One member of the experiment {experiment.name} needs {need} bytes ({in_bytes(need)}) of memory and "
            f"{available} bytes ({in_bytes(available)}) are available: choose smaller settings."
        )
    by_memory = int(available * MEMORY_SHARE) // need if need else experiment.members
    by_time = int(experiment.members / max(experiment.seconds / PART_SECONDS, 1.0))
    most = max(min(by_memory, by_time, experiment.most_together or experiment.members), 1)
    # equal parts compile once; a slightly smaller part that divides the members is worth that
    divisor = next(size for size in range(most, 0, -1) if experiment.members % size == 0)
    return divisor if 2 * divisor > most else most


def parts(members: int, size: int) -> list[tuple[int, int]]:
    """Half-open ranges ``(start, stop)`` of ``size`` members (the last may be smaller) that cover ``members``."""
    return [(start, min(start + size, members)) for start in range(0, members, size)]


def in_bytes(count: float) -> str:
    """Memory in words, for example ``"1.5 GB"`` (powers of 1000)."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def in_time(seconds: float) -> str:
    """Duration in words, for example ``"1 min 40 s"``."""
    if seconds < 1:
        return "less than 1 s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
