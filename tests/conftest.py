"""Numerics under test: float64, no silent promotion of dtypes, two CPU devices so that every ensemble is split."""

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 2)
