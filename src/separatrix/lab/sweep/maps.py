"""Looking at a sweep along chosen axes: one quantity as an array with its interval, and where it crosses a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from separatrix.lab.errors import UsageError
from separatrix.lab.sweep.results import Sweep

if TYPE_CHECKING:
    import xarray

#: What can be shown of a claim, as ``verdict:C2``.
CLAIM_PARTS = ("verdict", "control_verdict", "estimate")


def names(sweep: Sweep) -> list[str]:
    """What can be shown: quantities, and parts of claims."""
    claims = [claim["id"] for claim in sweep.manifest["claims"]]
    return [
        *(quantity["name"] for quantity in sweep.manifest["quantities"]),
        *(f"{part}:{claim}" for claim in claims for part in CLAIM_PARTS),
    ]


def dimensions(sweep: Sweep, name: str) -> list[str]:
    """Dimensions over which a quantity or a part of a claim is known.

    Raises
    ------
    UsageError
        If it is not in the sweep.
    """
    if name not in names(sweep):
        raise UsageError(f"{name!r} is not in the sweep: it has {', '.join(names(sweep))}.")
    variable = sweep.dataset[name.partition(":")[0]]
    return [str(dimension) for dimension in variable.dims if dimension != "claim"]


def pick(sweep: Sweep, name: str, select: Mapping[str, str], keep: Sequence[str]) -> xarray.Dataset:
    """A quantity with variables ``estimate``, ``low`` and ``high`` over the dimensions in ``keep``, in this order.

    Parameters
    ----------
    name
        A quantity, or ``verdict:C2``, ``control_verdict:C2``, ``estimate:C2`` (the interval is then that of the claim).
    select
        Value of every other dimension, as text; one with a single value needs none.

    Raises
    ------
    UsageError
        If there is no such quantity, dimension or value, or one has to be chosen.
    """
    import xarray as xr

    data = sweep.dataset
    known = dimensions(sweep, name)
    if ":" in name:
        part, claim = name.split(":")
        ends = {"estimate": part, "low": "low" if part == "estimate" else part,
                "high": "high" if part == "estimate" else part}  # fmt: skip
        picked = xr.Dataset({end: data[key].sel(claim=claim, drop=True) for end, key in ends.items()})
    else:
        ends = {"estimate": name, "low": f"{name}_low", "high": f"{name}_high"}
        picked = xr.Dataset({end: data[key] for end, key in ends.items()})
    for dimension in (*keep, *select):
        if dimension not in known:
            raise UsageError(f"{name} has no dimension {dimension!r}: it has {', '.join(known)}.")
    for dimension in known:
        if dimension in keep:
            continue
        values = picked[dimension].values.tolist()
        if dimension in select:
            chosen = _position(dimension, values, select[dimension])
        elif len(values) == 1:
            chosen = 0
        else:
            raise UsageError(f"{name} depends on {dimension}, too: choose one of {', '.join(map(str, values))}.")
        picked = picked.isel({dimension: chosen}, drop=True)
    return picked.transpose(*keep)


def _position(dimension: str, values: Sequence[Any], text: str) -> int:
    for position, value in enumerate(values):
        if str(value) == text:
            return position
        try:
            if float(value) == float(text):
                return position
        except ValueError:
            continue
    raise UsageError(f"{dimension} = {text!r} is not in the sweep: it has {', '.join(map(str, values))}.")


def crossings(picked: xarray.Dataset, along: str, level: float) -> xarray.Dataset:
    """Where a quantity first crosses ``level`` along an axis, by linear interpolation between its values.

    The interval reaches from where the first end of the quantity's interval crosses to where the last does; NaN where
    nothing crosses.

    Parameters
    ----------
    picked
        From :func:`pick`.
    along
        Dimension of numbers.

    Raises
    ------
    UsageError
        If the axis does not hold numbers.
    """
    import numpy as np
    import xarray as xr

    x = picked[along].values
    if x.dtype.kind not in "if":
        raise UsageError(f"A crossing along {along} is not defined: its values are no numbers.")

    def first(values: np.ndarray) -> float:
        side = values - level
        change = np.flatnonzero(np.isfinite(side[:-1]) & np.isfinite(side[1:]) & (side[:-1] * side[1:] <= 0))
        if change.size == 0:
            return float("nan")
        k = change[0]
        share = 0.0 if side[k] == side[k + 1] else side[k] / (side[k] - side[k + 1])
        return float(x[k] + share * (x[k + 1] - x[k]))

    at = {
        end: xr.apply_ufunc(first, picked[end], input_core_dims=[[along]], vectorize=True)
        for end in ("estimate", "low", "high")
    }
    ends = xr.concat([at["low"], at["high"]], "end")
    return xr.Dataset({"estimate": at["estimate"], "low": ends.min("end"), "high": ends.max("end")})
