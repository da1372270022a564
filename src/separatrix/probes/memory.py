"""Bytes that a model's linearisation would take, against those that are free, before anything is allocated."""

import os
from dataclasses import dataclass
from pathlib import Path

from separatrix.probes.operators import ProbeError

#: Share of the free memory that a linearisation may fill; the rest is for the probe's vectors and for temporaries.
SHARE = 0.5


def free_host_memory() -> int:
    """Bytes this process can still take: free memory of the machine, or less where a container sets a limit."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        table = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        limits.append(int(table["MemAvailable"].split()[0]) * 1024)
        most = int(Path("/sys/fs/cgroup/memory.max").read_text())
        limits.append(most - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, KeyError, ValueError):  # not Linux, or no limit
        pass
    return max(min(limits), 0)


@dataclass(frozen=True)
class Plan:
    """How the examples are worked through.

    Attributes
    ----------
    tile
        Most examples at a time, or None where batches are taken whole.
    hold
        Whether the linearisations of all tiles are kept for the products to come; otherwise each product makes them
        anew, one tile at a time.
    needed
        Bytes that the linearisations of all examples take.
    """

    tile: int | None
    hold: bool
    needed: int


def plan(per_example: float, batch_sizes: list[int], available: int) -> Plan:
    """Whole batches held if they fit, else whole batches one at a time, else tiles of them.

    Parameters
    ----------
    per_example
        Bytes of the linearisation of one example.
    batch_sizes
        Examples of each batch.
    available
        Bytes that the linearisations may take.

    Raises
    ------
    ProbeError
        If a single example does not fit.
    """
    needed = int(per_example * sum(batch_sizes))
    if needed <= available:
        return Plan(None, True, needed)
    if per_example * max(batch_sizes) <= available:
        return Plan(None, False, needed)
    tile = int(available / per_example)
    if tile < 1:
        raise ProbeError(
            f"the derivatives of a single example need {per_example:.3g} bytes and {available:.3g} are available: use "
            "a smaller model or allow more memory"
        )
    return Plan(tile, False, needed)
