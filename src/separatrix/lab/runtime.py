"""The one place that sets JAX's global configuration: called by the command line, before a study is imported."""

from __future__ import annotations

import contextlib
import os

from separatrix.lab.machine import usable_cores


def configure() -> None:
    """Turn on float64 and give JAX one CPU device for each usable core, so that members can be spread over them.

    NumPy's matrix products get one thread: parts of a run are computed side by side, and threads that wait for each
    other by spinning would take the cores from both.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is first imported
    import jax

    jax.config.update("jax_enable_x64", True)
    chosen = "JAX_NUM_CPU_DEVICES" in os.environ or "device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen:
        # a program that embeds the command line may have started JAX already; the number of devices changes no result
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", usable_cores())
