"""Running a study: plan the parts, compute those that are missing, judge, draw, and put the folder in place.

A run under way lives in ``OUT/<slug>/<hash>.partial`` and is renamed to ``OUT/<slug>/<hash>`` when it is complete.
Each part gets its name only when it is whole on disk, so a process may die at any moment: the next one with the same
hash goes on with the parts that are missing, and the data it ends with are the same to the last bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from separatrix.lab import budget, execution, machine, outcome, store
from separatrix.lab.errors import UsageError
from separatrix.lab.identity import source_digest
from separatrix.lab.lock import locked
from separatrix.lab.plan import Plan, plan
from separatrix.lab.settings import SettingError, from_dict
from separatrix.lab.study import Study


@dataclass(frozen=True)
class Run:
    """A finished run on disk."""

    folder: Path
    manifest: dict[str, Any]
    document: dict[str, Any]
    reused: bool = False


def run(
    study: Study,
    settings: Any,
    *,
    out: Path = Path("runs"),
    controls: bool = True,
    only: Sequence[str] = (),
    fresh: bool = False,
    notify: execution.Notify = lambda sentence: None,  # noqa: ARG005
) -> Run:
    """Run a study, or reuse the finished run with the same identity, or go on with an interrupted one.

    Parameters
    ----------
    out
        Folder of all runs.
    controls
        Whether to run the control of each claim.
    only
        Names of the claims and quantities to measure, all if empty; only what they need is simulated.
    fresh
        Compute again even if the run exists; the old folder stays until the new one is complete.
    notify
        Gets a sentence on each thing the user should know before and while the run goes on.

    Raises
    ------
    UsageError
        If the settings are not allowed, the run cannot fit in memory, or ``out`` cannot be written.
    StoreError
        If writing fails on the way, for example because the disk is full; finished parts are kept.
    """
    planned = plan(study, settings, out=out, controls=controls, only=only)
    for warning in planned.warnings:
        notify(f"Warning: {warning}")
    if not fresh and planned.folder.exists():
        return _reuse(planned)
    available = machine.available_memory()
    sizes = {experiment.name: budget.part_size(experiment, available) for experiment in planned.experiments}
    waited = []

    def on_wait() -> None:
        waited.append(True)
        notify(f"Another process is computing this run ({planned.hash}): waiting for it to finish.")

    try:
        planned.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = locked(planned.lock, on_wait)
        lock.__enter__()
    except OSError as error:
        raise SettingError(
            f"out = {str(out)!r} is not allowed: it must be a folder that can be written ({error.strerror})."
        ) from None
    try:
        if not planned.folder.exists() and planned.replaced.exists():
            store.rename(planned.replaced, planned.folder)  # died in the moment of replacing: the old run is whole
        if planned.folder.exists() and (waited or not fresh):
            return _reuse(planned)
        if fresh:
            store.remove(planned.partial)
        journal = execution.open_partial(planned, sizes)
        execution.announce(planned, journal, notify)
        execution.execute(planned, journal)
        outcome.finish(planned, planned.partial, journal)
        put_in_place(planned)
    finally:
        lock.__exit__(None, None, None)
    return open_run(planned.folder)


def _reuse(planned: Plan) -> Run:
    _tidy(planned.folder)
    found = open_run(planned.folder)
    if not (planned.folder / store.REPORT).exists():  # the cells of a sweep have none until somebody asks
        found = report_again(found, planned.study)
    return replace(found, reused=True)


def open_run(folder: Path) -> Run:
    """Read a finished run.

    Raises
    ------
    UsageError
        If the folder does not hold a finished run of a schema that this version reads.
    """
    if not (folder / store.MANIFEST).exists():
        raise UsageError(f"The folder {str(folder)!r} does not hold a finished run.")
    manifest = store.read_json(folder / store.MANIFEST)
    if manifest.get("schema") != store.SCHEMA:
        raise UsageError(
            f"{folder / store.MANIFEST} has schema {manifest.get('schema')!r}, and this version reads {store.SCHEMA}."
        )
    document = store.read_json(folder / store.DOCUMENT)
    if missing := {"study", "settings", "claims", "hash", "versions"} - document.keys():
        raise UsageError(f"{folder / store.DOCUMENT} is damaged: it lacks {', '.join(sorted(missing))}.")
    # the folder may have been moved since
    document |= {"run": str(folder), "report": str(folder / store.REPORT)}
    return Run(folder, manifest, document)


def locate(text: str, out: Path) -> Path:
    """Folder of a run given as a path, or as its hash or the beginning of it, looked up under ``out``.

    Raises
    ------
    UsageError
        If there is no such run, more than one, or one that is not finished.
    """
    if Path(text).is_dir():
        return Path(text)
    matches = sorted(out.glob(f"*/{text}*/{store.MANIFEST}")) if text.isalnum() else []
    folders = [match.parent for match in matches if match.parent.name.isalnum()]
    if len(folders) == 1:
        return folders[0]
    if folders:
        raise UsageError(f"{text!r} is the beginning of {len(folders)} runs under {out}: give more digits of the hash.")
    if text.isalnum() and any(out.glob(f"*/{text}*.partial")):
        raise UsageError(f"The run {text!r} is not finished: give its command again and it goes on where it stopped.")
    raise UsageError(f"There is no run {text!r}: give its folder, or the beginning of its hash under {str(out)!r}.")


def report_again(run: Run, study: Study) -> Run:
    """Judge the claims, draw the figures and write the report again from the stored data of a run."""
    settings = from_dict(study.settings, run.document["settings"])
    controls = bool(run.manifest["controls"])
    only = tuple(run.manifest.get("only", ()))
    source = source_digest(study)
    warnings = list(run.manifest["warnings"])
    changed = "The source has changed since the data were computed; claims and figures are those of the present source."
    if source != run.manifest["source"] and changed not in warnings:
        warnings.append(changed)
    planned = Plan(
        study, settings, controls, only, study.select(settings, only, controls), tuple(warnings),
        run.manifest["hash"], run.folder, source,
    )  # fmt: skip
    outcome.write_outcome(planned, run.folder, {**run.manifest, "warnings": warnings})
    return open_run(run.folder)


def put_in_place(planned: Plan) -> None:
    """Give a complete folder its name, in the place of an older one of that name."""
    if planned.folder.exists():
        store.remove(planned.replaced)
        store.rename(planned.folder, planned.replaced)
    store.rename(planned.partial, planned.folder)
    store.remove(planned.replaced)
    _tidy(planned.folder)


def _tidy(folder: Path) -> None:
    """Remove what only a run under way needs; after the rename, so that a kill in between loses nothing."""
    shutil.rmtree(folder / "parts", ignore_errors=True)
    (folder / "journal.json").unlink(missing_ok=True)
