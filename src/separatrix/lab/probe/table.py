"""What was measured at every checkpoint, as rows and as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from separatrix.lab.probe.kind import Column

if TYPE_CHECKING:
    import xarray

_GAP = 2  # spaces between columns


def rows(data: xarray.Dataset) -> list[dict[str, Any]]:
    """One row for each checkpoint; recorded arrays are left out."""
    names = [str(name) for name in data.data_vars if data[name].dims == ("member",) and name != "checkpoint"]
    return [
        {"checkpoint": str(data["checkpoint"].values[i])} | {name: data[name].values[i].item() for name in names}
        for i in range(data.sizes["member"])
    ]


def text(measured: Sequence[dict[str, Any]], columns: Sequence[Column], width: int) -> str:
    """The rows as tables of at most a width: value ± error, and a question mark where it has not converged.

    Columns that no checkpoint has a value of are left out.
    """
    first = [["checkpoint", "loss"], *([row["checkpoint"], _loss(row)] for row in measured)]
    others = [
        [column.name, *(_cell(row, column) for row in measured)]
        for column in columns
        if not all(np.isnan(row[column.name]) for row in measured) or all(np.isnan(row["loss"]) for row in measured)
    ]
    leading, tables = _columns(first), []
    pending = [_padded(other) for other in others]
    while pending or not tables:
        fits = [*leading]
        while pending and (len(fits) == len(leading) or _width([*fits, pending[0]]) <= width):
            fits.append(pending.pop(0))
        tables.append("\n".join((" " * _GAP).join(line).rstrip() for line in zip(*fits, strict=True)))
    return "\n\n".join(tables)


def _loss(row: dict[str, Any]) -> str:
    return "diverged" if np.isnan(row["loss"]) else f"{row['loss']:.4g}"


def _cell(row: dict[str, Any], column: Column) -> str:
    value, error, converged = (row[name] for name in column.variables)
    if np.isnan(value):
        return "–"
    shown = f"{value:.4g}" + (f" ± {error:.1g}" if error > 0 else "")
    return shown + ("" if converged else " ?")


def _columns(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    return [_padded(list(column)) for column in zip(*lines, strict=True)]


def _padded(column: list[str]) -> list[str]:
    width = max(map(len, column))
    return [cell.ljust(width) for cell in column]


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(len(column[0]) for column in columns) + _GAP * (len(columns) - 1)
