"""Tools for one's own training loop, in JAX, PyTorch or NumPy; none of them needs a study."""
