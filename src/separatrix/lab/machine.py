"""What a run was computed on and what it used."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import resource
import sys
from pathlib import Path

PACKAGES = ("separatrix", "numpy", "scipy", "jax", "jaxlib", "xarray", "zarr", "matplotlib")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute, store or draw."""
    table = {"python": platform.python_version()}
    for package in (*PACKAGES, *(["torch"] if "torch" in sys.modules else [])):
        try:
            table[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return table


def device() -> str:
    """Processor and, if JAX is in use, its devices, in words."""
    text = f"{_processor()}, {usable_cores()} usable cores"
    if "jax" in sys.modules:
        import jax

        devices = jax.devices()
        kind = devices[0].device_kind if devices[0].platform != "cpu" else "CPU"
        text += f"; JAX on {len(devices)} {kind} device{'s' if len(devices) > 1 else ''}"
    return text


@functools.cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory() -> int:
    """Bytes this process can still take: free memory of the machine, or less where a container sets a limit."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        table = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        limits.append(int(table["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError):  # not Linux
        pass
    for most, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limits.append(int(Path(most).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such limit
            continue
    return max(min(limits), 0)
