"""A sweep on the terminal, and as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from separatrix.lab import store
from separatrix.lab.document import number
from separatrix.lab.sweep.results import CODES, FAILED, Sweep

if TYPE_CHECKING:
    import xarray

_MOST_REASONS = 5


def print_sweep(sweep: Sweep, stream: TextIO) -> None:
    """Print axes, counts, verdicts of each claim over the cells, ranges of the quantities and reasons of failures."""
    from rich.console import Console

    console = Console(file=stream, highlight=False, width=None if stream.isatty() else 120)
    say = lambda text: console.print(text, soft_wrap=True, markup=False)  # noqa: E731
    manifest, data = sweep.manifest, sweep.dataset
    counts = manifest["counts"]
    say(manifest["title"])
    for axis in manifest["axes"]:
        unit = f" [{axis['unit']}]" if axis["unit"] else ""
        values = axis["values"] if len(axis["values"]) <= 12 else [*axis["values"][:5], "...", axis["values"][-1]]
        say(f"  {axis['name']}{unit}: {', '.join(map(str, values))}" + (" (log)" if axis["log"] else ""))
    say(f"{counts['total']} cells: {counts['done']} done, {counts['failed']} failed, {counts['left']} left.")
    if manifest["claims"]:
        console.print(_claims_table(manifest, data))
    for quantity in manifest["quantities"]:
        values = data[quantity["name"]].values
        unit = f" {quantity['unit']}" if quantity["unit"] else ""
        low, high = (float(f(values[values == values])) if (values == values).any() else None for f in (min, max))
        say(f"{quantity['name']}: {number(low)} to {number(high)}{unit} ({quantity['label']})")
    _print_failures(data, counts["failed"], say)


def _claims_table(manifest: dict[str, Any], data: xarray.Dataset) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.ASCII2)
    table.add_column("claim", no_wrap=True)
    table.add_column("statement", ratio=1)
    for column in ("holds", "undecided", "fails", "control fails"):
        table.add_column(column, justify="right")
    for claim in manifest["claims"]:
        verdict, control = (data[name].sel(claim=claim["id"]).values for name in ("verdict", "control_verdict"))
        counts = [str(int((verdict == CODES[name]).sum())) for name in ("holds", "undecided", "fails")]
        table.add_row(claim["id"], Text(claim["statement"]), *counts, str(int((control == CODES["fails"]).sum())))
    return table


def _print_failures(data: xarray.Dataset, failed: int, say: Any) -> None:
    if not failed:
        return
    reasons = data["reason"].values[data["status"].values == FAILED]
    listed, times = _distinct(reasons)
    for reason, count in list(zip(listed, times, strict=True))[:_MOST_REASONS]:
        say(f"failed ({count}): {reason}")
    if len(listed) > _MOST_REASONS:
        say(f"and {len(listed) - _MOST_REASONS} other reasons; --to-csv lists all.")
    say("Give the command again with --retry-failed to compute these cells again.")


def _distinct(reasons: Any) -> tuple[list[str], list[int]]:
    import numpy as np

    listed, times = np.unique(reasons, return_counts=True)
    order = np.argsort(-times)
    return listed[order].tolist(), times[order].tolist()


def print_crossings(found: xarray.Dataset, what: str, along: str, stream: TextIO) -> None:
    """Print where a quantity crosses a level, one line for each combination of the other dimensions."""
    flat = found.stack(entry=found["estimate"].dims) if found["estimate"].dims else found.expand_dims("entry")
    for entry in range(flat.sizes["entry"]):
        one = flat.isel(entry=entry)
        names = [str(name) for name in found["estimate"].dims]
        where = ", ".join(f"{name} = {one[name].item()}" for name in names)
        estimate, low, high = (number(float(one[end])) if float(one[end]) == float(one[end]) else "–" for end in ("estimate", "low", "high"))  # fmt: skip  # noqa: E501
        stream.write(f"{what} at {along} = {estimate} [{low}, {high}]{f' ({where})' if where else ''}\n")


def write_netcdf(sweep: Sweep, path: Path) -> None:
    """Write the dataset as a NetCDF file (version 3, which every reader knows)."""
    with store.writing(path):
        sweep.dataset.to_netcdf(path, engine="scipy")


def write_csv(sweep: Sweep, path: Path) -> None:
    """Write one line for each cell: axes, status, run, all numbers; further dimensions become columns."""
    data = sweep.dataset
    axes = [axis["name"] for axis in sweep.manifest["axes"]]
    columns = {name: data[name].to_series() for name in ("status", "run", "reason")}
    for name in data.data_vars:
        more = [dimension for dimension in data[name].dims if dimension not in axes]
        if not more:
            columns[str(name)] = data[name].to_series()
            continue
        stacked = data[name].stack(entry=more)
        for entry in range(stacked.sizes["entry"]):
            one = stacked.isel(entry=entry)
            suffix = ".".join(str(one[dimension].item()) for dimension in more)
            columns[f"{name}.{suffix}"] = one.drop_vars(["entry", *more], errors="ignore").to_series()
    import pandas as pd

    with store.writing(path):
        pd.DataFrame(columns).to_csv(path)
