"""Peak memory of one call, measured in a process of its own: what it takes beyond what is there before.

The call is made twice. The first compiles and fills caches; then what the allocator holds back is returned, the
kernel's high-water mark of the resident memory is reset, and the second call is measured (Linux only).
"""

import ctypes
import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any


def of_call(make: Callable[..., Callable[[], object]], *arguments: Any) -> int | None:
    """Bytes that ``make(*arguments)()`` takes at most, or None where the system does not tell.

    Parameters
    ----------
    make
        Function of a module; it prepares the call in the new process.
    arguments
        What can be pickled.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_measure, (make, arguments))
        pool.close()
        pool.join()  # its time counts as ours
    return found


def _measure(make: Callable[..., Callable[[], object]], arguments: tuple) -> int | None:
    call = make(*arguments)
    call()
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
