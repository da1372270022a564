"""From the data of a run to its verdicts, figures, report and manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separatrix.lab import machine, store
from separatrix.lab.claims import judge
from separatrix.lab.document import build
from separatrix.lab.options import command
from separatrix.lab.plan import Plan
from separatrix.lab.settings import to_dict

if TYPE_CHECKING:
    import xarray


def finish(
    planned: Plan,
    folder: Path,
    journal: Mapping[str, Any],
    *,
    results: Mapping[str, xarray.Dataset] | None = None,
    report: bool = True,
) -> None:
    """Complete a folder that holds all data: manifest, verdicts and, with ``report``, figures and report.

    ``results`` are the data, for those who have them in memory.
    """
    results = _results(planned, folder) if results is None else results
    manifest = {
        "schema": store.SCHEMA,
        "study": planned.study.slug,
        "hash": planned.hash,
        "settings": to_dict(planned.settings),
        "seed": getattr(planned.settings, "seed", None),
        "controls": planned.controls,
        "only": list(planned.only),
        "command": command(planned.study.slug, planned.settings, controls=planned.controls, only=planned.only),
        "source": planned.source,
        "created": journal["created"],
        "versions": machine.versions(),
        "device": machine.device(),
        "seconds": sum(journal["seconds"].values()),
        "expected_seconds": sum(experiment.seconds for experiment in planned.experiments),
        "peak_memory": max(journal["peak_memory"], machine.peak_memory()),
        "expected_memory": max(
            (journal["part_size"][one.name] * one.bytes_per_member for one in planned.experiments), default=0
        ),
        "experiments": [
            {
                "name": experiment.name,
                "control": experiment.control,
                "members": experiment.members,
                "diverged": _diverged(results[experiment.name]),
                "part_size": journal["part_size"][experiment.name],
                "seconds": journal["seconds"].get(experiment.name, 0.0),
                "expected_seconds": experiment.seconds,
                "bytes_per_member": experiment.bytes_per_member,
                "dtypes": _dtypes(results[experiment.name]),
            }
            for experiment in planned.experiments
        ],
        "warnings": list(planned.warnings),
    }
    write_outcome(planned, folder, manifest, results, report=report)


def write_outcome(
    planned: Plan,
    folder: Path,
    manifest: dict[str, Any],
    results: Mapping[str, xarray.Dataset] | None = None,
    *,
    report: bool = True,
) -> None:
    """Judge, draw and report. The manifest is written last: a folder that has one is complete."""
    results = _results(planned, folder) if results is None else results
    study, settings, selection = planned.study, planned.settings, planned.selection
    judged = [judge(claim, settings, results, planned.controls) for claim in selection.claims]
    quantities = [quantity.as_dict(settings, results) for quantity in selection.quantities]
    document = build(study, settings, judged, planned.folder, planned.hash, manifest["versions"], quantities)
    store.write_json(folder / store.DOCUMENT, document)
    manifest["figures"] = []
    if report:
        from separatrix.lab.figures import draw
        from separatrix.lab.report import render

        manifest["figures"] = draw(study, settings, results, folder)
        page = render(study, settings, document, manifest, folder)
        store.replace_file(folder / store.REPORT, page.encode("utf-8"))
    store.write_json(folder / store.MANIFEST, manifest)


def _results(planned: Plan, folder: Path) -> store.StoredResults:
    return store.StoredResults(
        {one.name: store.read_dataset(folder / planned.data(one)) for one in planned.experiments}
    )


def _diverged(dataset: xarray.Dataset) -> int | None:
    """Members that diverged at some step; None when the experiment does not record it."""
    if "diverged_at_step" not in dataset:
        return None
    flags = dataset["diverged_at_step"] >= 0
    others: Sequence[Any] = [dimension for dimension in flags.dims if dimension != "member"]
    return int(flags.any(others).sum())


def _dtypes(dataset: xarray.Dataset) -> list[str]:
    return sorted({str(variable.dtype) for variable in dataset.data_vars.values() if variable.dtype.kind in "fc"})
