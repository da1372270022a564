"""Numerics under test: float64, no silent promotion of dtypes, two CPU devices so that every ensemble is split."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line sets it; read when NumPy is first imported

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 2)
