"""Records of simulated networks as datasets with named dimensions."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

_DIMENSIONS = {
    "strength": ("mode",),
    "reduced_strength": ("mode",),
    "flow": ("mode",),
    "variance_rate": ("mode",),
    "dataset_variance_rate": ("mode",),
    "noise_trace": ("layer",),
    "dataset_noise_trace": ("layer",),
    "layer_norms": ("layer",),
    "strength_matrix": ("mode", "right_mode"),
}


def network_dataset(
    records: Mapping[str, np.ndarray],
    diverged: Int[np.ndarray, " n"],
    start: int,
    times: Float[np.ndarray, " t"],
    singular_values: Float[np.ndarray, " r"],
) -> xr.Dataset:
    """Records ``(t, ..., n)`` as a dataset with dimensions member, time, ...; times in gradient-flow units."""
    data: dict[str, tuple] = {
        name: (("member", "time", *_DIMENSIONS.get(name, ())), np.moveaxis(values, -1, 0))
        for name, values in records.items()
    }
    data["diverged_at_step"] = (("member",), diverged)
    coordinates = {
        "member": np.arange(start, start + diverged.size),
        "time": ("time", times, {"units": "learning_rate x steps"}),
        "singular_value": ("mode", singular_values),
    }
    return xr.Dataset(data, coordinates)
