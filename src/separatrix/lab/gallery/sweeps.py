"""A sweep on disk, as arrays that a page can slice along any two dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from separatrix.lab import store
from separatrix.lab.errors import UsageError

if TYPE_CHECKING:
    import xarray

SCHEMA = 1
_CODES = {"verdict": (-2, 1), "status": (0, 2)}


@dataclass(frozen=True)
class Sweep:
    """A sweep that was read.

    Parameters
    ----------
    name
        Name of its folder, ``sweep-<hash>``.
    content
        Everything its page shows, ready for JSON: ``dims`` (name, label, unit, help, values, log of each dimension),
        ``quantities`` (arrays flattened in C order over their ``dims``), ``runs`` and ``reasons`` (over the axes).
    """

    folder: Path
    name: str
    content: dict[str, Any]

    @property
    def created(self) -> str:
        """Time at which the sweep began."""
        return self.content["created"]

    @property
    def runs(self) -> list[str]:
        """Hash of the run of each cell, empty where there is none."""
        return self.content["runs"]


def read_sweep(folder: Path) -> Sweep:
    """Read ``sweep.json`` and ``results.zarr``.

    Raises
    ------
    UsageError
        If a file is missing or damaged, or has a schema that this version does not read.
    """
    head = store.read_json(folder / "sweep.json")
    if head.get("schema") != SCHEMA:
        raise UsageError(f"{folder / 'sweep.json'} has schema {head.get('schema')!r}, and this version reads {SCHEMA}.")
    results = store.read_dataset(folder / "results.zarr")
    try:
        return Sweep(folder, folder.name, _content(head, results))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder} is damaged: its files do not have the form of a sweep ({error!r}).") from None


def _content(head: Mapping[str, Any], results: xarray.Dataset) -> dict[str, Any]:
    axes = [_axis(axis) for axis in head["axes"]]
    names = [axis["name"] for axis in axes]
    if "claim" in names:
        raise ValueError("an axis has the name of the dimension over claims")
    claims = [{"id": str(one["id"]), "statement": str(one["statement"])} for one in head["claims"]]
    dims = {axis["name"]: axis for axis in axes}
    quantities = []
    if claims:  # a sweep may measure quantities alone
        dims["claim"], over = _dimension("claim", [claim["id"] for claim in claims]), ["claim", *names]
        quantities += [
            _coded("verdict", "Verdict", "verdict", results["verdict"], over),
            _coded("control_verdict", "Verdict of the control", "verdict", results["control_verdict"], over),
            _measured("estimate", "Estimate of a claim", "", results, over, ("low", "high")),
        ]
    for one in head.get("quantities", []):
        name = str(one["name"])
        extra = [str(dim) for dim in results[name].dims if dim not in names]
        for dim in extra:
            dims.setdefault(dim, _extra(dim, results))
        bounds = (f"{name}_low", f"{name}_high")
        label, unit = str(one.get("label") or name), str(one.get("unit") or "")
        quantities.append(_measured(f"quantity:{name}", label, unit, results, [*names, *extra], bounds))
    quantities.append(_coded("status", "What was computed", "status", results["status"], names))
    for quantity in quantities:
        cells = math.prod(len(dims[dim]["values"]) for dim in quantity["dims"])
        if len(quantity["values"]) != cells:
            raise ValueError(f"{quantity['label']} has {len(quantity['values'])} values for {cells} cells")
    reasons = _texts(results["reason"], names)
    return {
        "study": str(head["study"]),
        "title": str(head.get("title") or head["study"]),
        "hash": str(head.get("hash", "")),
        "created": str(head.get("created", "")),
        "command": str(head.get("command", "")),
        "settings": {str(name): value for name, value in head.get("settings", {}).items()},
        "counts": {name: int(head["counts"][name]) for name in ("done", "failed", "left", "total")},
        "device": str(head.get("device") or ""),
        "seconds": None if head.get("seconds") is None else float(head["seconds"]),
        "versions": {str(name): str(text) for name, text in head.get("versions", {}).items()},
        "axes": names,
        "dims": dims,
        "claims": claims,
        "quantities": quantities,
        "runs": _texts(results["run"], names),
        "reasons": {str(cell): text for cell, text in enumerate(reasons) if text},
    }


def _axis(content: Mapping[str, Any]) -> dict[str, Any]:
    values = list(content["values"])
    if not values:
        raise ValueError(f"the axis {content['name']} has no values")
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return {
        **_dimension(str(content["name"]), values if numeric else [_text(value) for value in values]),
        "unit": str(content.get("unit") or ""),
        "help": str(content.get("help") or ""),
        # a logarithmic axis has no place for zero
        "log": bool(content.get("log")) and numeric and all(value > 0 for value in values),
    }


def _dimension(name: str, values: Sequence[Any]) -> dict[str, Any]:
    numeric = not isinstance(values[0], str) if values else False
    return {"name": name, "values": list(values), "numeric": numeric, "unit": "", "help": "", "log": False}


def _extra(name: str, results: xarray.Dataset) -> dict[str, Any]:
    """Dimension of a quantity that is no axis; without a coordinate its entries are counted from one."""
    size = results.sizes[name]
    values = results.coords[name].values.tolist() if name in results.coords else range(1, size + 1)
    return _dimension(name, [_text(value) for value in values])


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(element) for element in value)
    return "none" if value is None else str(value)


def _texts(array: xarray.DataArray, dims: Sequence[str]) -> list[str]:
    return [str(text or "") for text in array.transpose(*dims).values.ravel().tolist()]


def _coded(name: str, label: str, kind: str, array: xarray.DataArray, dims: Sequence[str]) -> dict[str, Any]:
    codes = array.transpose(*dims).values.ravel()
    low, high = _CODES[kind]
    if codes.dtype.kind not in "iu" or (codes.size and (codes.min() < low or codes.max() > high)):
        raise ValueError(f"{array.name} holds a code outside {low} .. {high}")
    return {"id": name, "label": label, "kind": kind, "unit": "", "dims": list(dims), "values": codes.tolist()}


def _measured(
    name: str, label: str, unit: str, results: xarray.Dataset, dims: Sequence[str], bounds: tuple[str, str]
) -> dict[str, Any]:
    variable = name.removeprefix("quantity:")
    quantity = {"id": name, "label": label, "kind": "number", "unit": unit, "dims": list(dims)}
    quantity["values"] = rounded(results[variable].transpose(*dims).values)
    for key, bound in zip(("low", "high"), bounds, strict=True):
        quantity[key] = rounded(results[bound].transpose(*dims).values) if bound in results else None
    return quantity


def rounded(array: np.ndarray, digits: int = 5) -> list[float | None]:
    """Flat list with ``digits`` significant digits, None for what is not finite: a page is no archive."""
    return [
        float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in array.ravel().astype(float).tolist()
    ]
