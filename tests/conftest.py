"""Numerics under test: float64, no silent promotion of dtypes, two CPU devices so that every ensemble is split.

Property tests try the same examples in every run; ``HYPOTHESIS_PROFILE=default`` looks for new ones.
"""

import os
import signal

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line sets it; read when NumPy is first imported

import hypothesis
import jax

# A shell starts jobs in the background with Ctrl-C ignored, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 2)


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
