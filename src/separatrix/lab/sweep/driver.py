"""Sweeping a study: hand the cells that are missing to an executor, collect their numbers, keep the whole."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from separatrix.lab import budget, execution, interrupts, machine, store
from separatrix.lab.errors import UsageError
from separatrix.lab.lock import locked
from separatrix.lab.progress import CellProgress
from separatrix.lab.settings import SettingError, to_dict
from separatrix.lab.sweep import executors
from separatrix.lab.sweep.cells import Row
from separatrix.lab.sweep.grid import Grid, command, described
from separatrix.lab.sweep.results import FAILURES, MANIFEST, RESULTS, Sweep, Table, open_sweep, read_failures

#: Cells that are computed together, at most, and how long that should take: what a kill can destroy.
BATCH_CELLS, BATCH_SECONDS = 256, 60.0
_SAVE_FAILURES_EVERY = 2.0  # seconds


def sweep(
    grid: Grid,
    *,
    on: str = "processes",
    workers: int | None = None,
    address: str = "",
    retry_failed: bool = False,
    notify: execution.Notify = lambda sentence: None,  # noqa: ARG005
) -> Sweep:
    """Compute the cells of a grid that are missing and collect all; an interrupted sweep goes on.

    Parameters
    ----------
    grid
        What to compute; each cell is an ordinary run and is reused as such.
    on
        ``inline``, ``processes`` or ``ray``: where cells are computed. The results have the same bits.
    workers
        Processes or Ray tasks at a time; by default one for each core.
    address
        Of a Ray cluster; by default one is started on this machine.
    retry_failed
        Compute cells again that failed before.
    notify
        Gets a sentence on each thing the user should know.

    Raises
    ------
    UsageError
        If nothing can be computed: wrong settings in every cell, an executor that is not there, a folder that cannot be
        written.
    StoreError
        If writing fails on the way; what is finished is kept.
    """
    if on not in executors.NAMES:
        raise UsageError(f"on = {on!r} is not allowed: it must be one of {', '.join(executors.NAMES)}.")
    if address and on != "ray":
        raise UsageError(f"address = {address!r} is not allowed with on = {on!r}: only a Ray cluster has an address.")
    if (grid.folder / MANIFEST).exists() and not retry_failed:
        return replace(open_sweep(grid.folder), reused=True)
    if on == "ray":
        executors.require_ray(address)
    grid.check()
    waited: list[bool] = []

    def on_wait() -> None:
        waited.append(True)
        notify("Another process is computing this sweep: waiting for it to finish.")

    try:
        grid.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = locked(grid.folder.with_name(f"{grid.folder.name}.lock"), on_wait)
        lock.__enter__()
    except OSError as error:
        raise SettingError(
            f"out = {str(grid.out)!r} is not allowed: it must be a folder that can be written ({error.strerror})."
        ) from None
    try:
        if waited and (grid.folder / MANIFEST).exists() and not retry_failed:
            return replace(open_sweep(grid.folder), reused=True)
        return _compute(grid, on, workers, address, retry_failed, notify)
    finally:
        lock.__exit__(None, None, None)


def _compute(
    grid: Grid, on: str, workers: int | None, address: str, retry_failed: bool, notify: execution.Notify
) -> Sweep:
    began = time.monotonic()
    failures = {} if retry_failed else read_failures(grid)
    store.make_folder(grid.partial)
    store.remove_temporaries(grid.partial)
    table = Table(grid)
    for cell, reason in failures.items():
        table.add(Row(int(cell), reason=reason))
    missing = [cell for cell in range(grid.size) if str(cell) not in failures]
    seconds = _seconds(grid, missing)
    at_once = 1 if on == "inline" else workers or machine.usable_cores()
    batches = _batches(missing, seconds, at_once)
    notify(
        f"{grid.size} cells, {len(missing)} to look at, in {len(batches)} batches; at most "
        f"{budget.in_time(seconds * len(missing) / at_once)}, less where cells share launches or are there already."
    )
    execute: Callable[..., Iterator[Row]] = {
        "inline": executors.inline,
        "processes": partial(executors.processes, workers=workers),
        "ray": partial(executors.ray_cluster, address=address, workers=workers),
    }[on]
    saved = time.monotonic()
    with CellProgress(grid.size) as progress:
        progress.show(**table.counts())
        for row in execute(grid, batches):
            interrupts.raise_if_pressed()
            table.add(row)
            if row.reason and time.monotonic() - saved > _SAVE_FAILURES_EVERY:
                _save_failures(grid, table)
                saved = time.monotonic()
            progress.show(**table.counts())
    _save_failures(grid, table)
    for sentence in table.left_out.values():
        notify(sentence)
    return _keep(grid, table, on, time.monotonic() - began)


def _seconds(grid: Grid, cells: Sequence[int]) -> float:
    """Expected duration of a cell alone: that of the first, middle and last that can be planned."""
    expected = []
    for cell in {cells[0], cells[len(cells) // 2], cells[-1]} if cells else ():
        try:
            expected.append(sum(one.seconds for one in grid.plan(cell).experiments))
        except UsageError:
            continue
        except Exception:
            continue
    return max(expected, default=0.0)


def _batches(cells: Sequence[int], seconds: float, workers: int) -> list[executors.Batch]:
    """Consecutive cells: enough of them to share launches, few enough to keep all workers busy to the end."""
    most = BATCH_CELLS if seconds <= 0 else max(1, min(BATCH_CELLS, int(BATCH_SECONDS / seconds)))
    if workers > 1:
        most = max(1, min(most, -(-len(cells) // (2 * workers))))
    return [tuple(cells[start : start + most]) for start in range(0, len(cells), most)]


def _save_failures(grid: Grid, table: Table) -> None:
    store.write_json(grid.partial / FAILURES, {str(cell): reason for cell, reason in sorted(table.reasons.items())})


def _keep(grid: Grid, table: Table, on: str, seconds: float) -> Sweep:
    """Write what was found and put the folder in place."""
    store.remove(grid.partial / RESULTS)
    store.write_dataset(grid.partial / RESULTS, table.dataset())
    manifest: dict[str, Any] = {
        "schema": store.SCHEMA,
        "study": grid.study.slug,
        "title": grid.study.title,
        "hash": grid.hash,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command(grid),
        "settings": to_dict(grid.settings),
        "controls": grid.controls,
        "only": list(grid.only),
        "axes": described(grid),
        **table.described(),
        "counts": table.counts(),
        "source": grid.source,
        "versions": machine.versions(),
        "device": machine.device(),
        "on": on,
        "seconds": seconds,
    }
    store.write_json(grid.partial / MANIFEST, manifest)
    if grid.folder.exists():
        replaced = grid.folder.with_name(f"{grid.folder.name}.replaced")
        store.remove(replaced)
        store.rename(grid.folder, replaced)
        store.rename(grid.partial, grid.folder)
        store.remove(replaced)
    else:
        store.rename(grid.partial, grid.folder)
    return open_sweep(grid.folder)
