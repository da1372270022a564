"""Parameters and batches of a JAX model: what is differentiated, and which examples there are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from separatrix.probes.operators import ProbeError

Batch = Any


def read_parameters(params: Any) -> tuple[list[str], list[Array], list[bool], Any]:
    """Names, leaves, whether each is differentiated, and the structure."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    names, leaves, trained = [], [], []
    for path, leaf in paths:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "params"
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, float, int)):
            raise ProbeError(f"the leaf {name} of the parameters is of type {type(leaf).__name__}, not an array")
        if np.dtype(getattr(leaf, "dtype", np.int32)) == np.float64 and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
            raise ProbeError(
                f"the leaf {name} of the parameters is float64, and JAX computes in float32: set jax_enable_x64 or "
                "convert the parameters"
            )
        array = jnp.asarray(leaf)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise ProbeError(f"the leaf {name} of the parameters is complex: give real and imaginary parts")
        names.append(name)
        leaves.append(array)
        trained.append(bool(jnp.issubdtype(array.dtype, jnp.floating)))
    if not any(trained):
        raise ProbeError("the parameters hold no floating-point numbers to differentiate")
    return names, leaves, trained, treedef


def read_batches(batches: Any, with_targets: bool, dtype: Any) -> list[Batch]:
    """The batches as arrays, of at least 32 bits, each with a positive number of examples."""
    given = batches if isinstance(batches, list) else [batches]
    if not given:
        raise ProbeError("the data hold no batch")
    read = []
    for batch in given:
        if with_targets and (not isinstance(batch, tuple) or len(batch) != 2):
            raise ProbeError(f"a batch must be a tuple (inputs, targets), got {type(batch).__name__}")
        arrays = jax.tree.map(lambda a: _widened(jnp.asarray(a), dtype), batch)
        sizes = {a.shape[0] for a in jax.tree.leaves(arrays) if a.ndim}
        if len(sizes) != 1 or 0 in sizes:
            raise ProbeError(
                f"all arrays of a batch must have the same positive number of examples, got {sorted(sizes)}"
            )
        read.append(arrays)
    return read


def _widened(array: Array, dtype: Any) -> Array:
    """Numbers of less than 32 bits in the computing dtype, as the parameters are."""
    narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
    return array.astype(dtype) if narrow else array


def examples_of(batch: Batch) -> int:
    """Number of examples of a batch."""
    return next(a.shape[0] for a in jax.tree.leaves(batch) if a.ndim)


def take(batch: Batch, index: np.ndarray) -> Batch:
    """Some examples of a batch."""
    if len(index) and index[-1] - index[0] == len(index) - 1 and np.all(np.diff(index) == 1):
        return jax.tree.map(lambda a: a[int(index[0]) : int(index[-1]) + 1] if a.ndim else a, batch)
    return jax.tree.map(lambda a: a[index] if a.ndim else a, batch)
