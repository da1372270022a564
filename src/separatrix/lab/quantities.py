"""Quantities: what a study measures beside its claims, as numbers or curves with intervals, for sweeps to map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from separatrix.lab.claims import Results

if TYPE_CHECKING:
    import xarray

#: Variables of what a quantity's function returns.
ENDS = ("estimate", "low", "high")


@dataclass(frozen=True)
class Quantity:
    """A number, or a curve over labelled coordinates, with its interval.

    Parameters
    ----------
    name
        Identifier, for example ``"temperature"``.
    label, unit
        Words for an axis, and the unit.
    measure
        ``(settings, results) -> dataset`` with variables ``estimate``, ``low`` and ``high`` of equal dimensions, all
        with coordinates; ``low`` and ``high`` are left out where there is no interval (a prediction).
    needs
        Names of the experiments that it reads, as shell-style patterns; none by default (a prediction).
    """

    name: str
    label: str
    measure: Callable[[Any, Results], xarray.Dataset]
    unit: str = ""
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in ENDS:
            raise ValueError(f"The name of a quantity must be an identifier and none of {ENDS}, not {self.name!r}.")

    def as_dict(self, settings: Any, results: Results) -> dict[str, Any]:
        """Measured, as one object of the JSON document."""
        measured = self.measure(settings, results)
        estimate = measured["estimate"]
        return {
            "name": self.name,
            "label": self.label,
            "unit": self.unit,
            "dimensions": [str(dimension) for dimension in estimate.dims],
            "coordinates": {str(dimension): measured[dimension].values.tolist() for dimension in estimate.dims},
            **{
                end: measured[end].transpose(*estimate.dims).values.tolist() if end in measured else None
                for end in ENDS
            },
        }


def as_dataset(document: Mapping[str, Any]) -> xarray.Dataset:
    """Dataset with variables ``estimate``, ``low``, ``high`` from an object of :meth:`Quantity.as_dict`."""
    import numpy as np
    import xarray as xr

    dimensions = document["dimensions"]
    values = {end: document[end] if document[end] is not None else document["estimate"] for end in ENDS}
    return xr.Dataset(
        {end: (dimensions, np.asarray(value, np.float64)) for end, value in values.items()}, document["coordinates"]
    )
