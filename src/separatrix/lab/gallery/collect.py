"""What lies in a folder of runs: studies, finished runs and sweeps; what cannot be read is named and left out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separatrix.lab import document, store
from separatrix.lab.errors import UsageError
from separatrix.lab.gallery.sweeps import Sweep, read_sweep
from separatrix.lab.run import open_run

#: File that marks a folder as a gallery: it holds no runs, and may be replaced by a new gallery.
MARKER = "gallery.json"
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_HASH = re.compile(r"[0-9A-Za-z]+")
_SWEEP = re.compile(r"sweep-[0-9A-Za-z]+")
_UNFINISHED = (".partial", ".replaced")
_PAGES = frozenset({"index", "compare", "run"})  # pages of a study that are not runs
_VERDICTS = frozenset({"holds", "fails", "undecided"})
_PNG = b"\x89PNG\r\n\x1a\n"

Notify = Callable[[str], None]


@dataclass(frozen=True)
class RunEntry:
    """A finished run; `hash` is the name of its folder."""

    folder: Path
    hash: str
    title: str
    created: str
    command: str
    settings: Mapping[str, Any]
    claims: tuple[dict[str, Any], ...]
    experiments: tuple[dict[str, Any], ...]
    facts: Mapping[str, Any]
    figures: tuple[dict[str, str], ...]

    @property
    def report(self) -> Path | None:
        """File of the full report; None for a cell of a sweep whose report was never asked for."""
        path = self.folder / store.REPORT
        return path if path.is_file() and os.access(path, os.R_OK) else None

    @property
    def count(self) -> dict[str, int]:
        """Number of claims that hold, fail and are undecided."""
        return document.count_verdicts(self.claims)


@dataclass(frozen=True)
class StudyEntry:
    """All runs and sweeps of one study, newest first."""

    slug: str
    runs: tuple[RunEntry, ...]
    sweeps: tuple[Sweep, ...]


def collect(folder: Path, notify: Notify) -> list[StudyEntry]:
    """Read all studies below a folder of runs; ``notify`` gets one sentence for each folder that is left out."""
    studies = []
    for path in _folders(folder):
        if (path / MARKER).is_file():
            continue
        try:
            holdings = [one for one in _folders(path) if not one.name.endswith(_UNFINISHED)]
        except UsageError as error:
            notify(f"The folder {str(path)!r} is left out: {_as_reason(error)}")
            continue
        if (path / store.MANIFEST).is_file():
            notify(f"The folder {str(path)!r} is left out: a run lies in the folder of its study; name the one above.")
            continue
        if not any((one / store.MANIFEST).is_file() or _SWEEP.fullmatch(one.name) for one in holdings):
            if holdings or not any(path.glob("*.partial")):  # a first run may be under way
                notify(f"The folder {str(path)!r} is left out: it holds no finished run.")
            continue
        if not _SLUG.fullmatch(path.name):
            notify(f"The folder {str(path)!r} is left out: its name is not that of a study.")
            continue
        entry = _study(path, holdings, notify)
        if entry.runs or entry.sweeps:
            studies.append(entry)
    return studies


def _folders(path: Path) -> Iterator[Path]:
    try:
        yield from (one for one in sorted(path.iterdir()) if one.is_dir() and not one.name.startswith("."))
    except OSError as error:
        raise UsageError(f"Cannot read the folder {str(path)!r} ({error.strerror}).") from None


def _study(path: Path, holdings: Sequence[Path], notify: Notify) -> StudyEntry:
    runs, sweeps = [], []
    for one in holdings:
        if (one / MARKER).is_file():
            continue
        try:
            if _SWEEP.fullmatch(one.name):
                sweeps.append(read_sweep(one))
            else:
                runs.append(read_run(one))
        except UsageError as error:
            notify(f"The folder {str(one)!r} is left out: {_as_reason(error)}")
    runs.sort(key=lambda run: (run.created, run.hash), reverse=True)
    sweeps.sort(key=lambda sweep: (sweep.created, sweep.name), reverse=True)
    return StudyEntry(path.name, tuple(runs), tuple(sweeps))


def _as_reason(error: UsageError) -> str:
    text = " ".join(str(error).split())
    return text[:1].lower() + text[1:]


def read_run(folder: Path) -> RunEntry:
    """Read what the gallery shows of a finished run; its data stay on disk.

    Raises
    ------
    UsageError
        If the folder does not hold a finished run that this version can read.
    """
    if not _HASH.fullmatch(folder.name) or folder.name in _PAGES:
        raise UsageError("Its name is not the hash of a run.")
    run = open_run(folder)
    manifest, content = run.manifest, run.document
    try:
        return RunEntry(
            folder=folder,
            hash=folder.name,
            title=str(content.get("title") or content["study"]),
            created=str(manifest.get("created", "")),
            command=str(manifest.get("command", "")),
            settings={str(name): value for name, value in content["settings"].items()},
            claims=tuple(_claim(claim) for claim in content["claims"]),
            experiments=tuple(
                {name: one.get(name) for name in ("name", "control", "members", "diverged")}
                for one in manifest.get("experiments", [])
            ),
            facts={
                "seconds": _number(manifest.get("seconds")),
                "device": str(manifest.get("device", "")),
                "versions": {str(name): str(text) for name, text in manifest.get("versions", {}).items()},
                "controls": bool(manifest.get("controls", True)),
                "warnings": [str(sentence) for sentence in manifest.get("warnings", [])],
            },
            figures=tuple(_figures(folder, manifest.get("figures", []))),
        )
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise UsageError(f"{folder} is damaged: its files do not have the form of a run ({error!r}).") from None


def _claim(content: Mapping[str, Any]) -> dict[str, Any]:
    """What tables show of a claim; its single conditions are left to the report."""
    verdict, control = content["verdict"], content.get("control_verdict")
    if verdict not in _VERDICTS or (control is not None and control not in _VERDICTS):
        raise ValueError(f"unknown verdict {verdict!r}, control {control!r}")
    return {
        "id": str(content["id"]),
        "statement": str(content["statement"]),
        "verdict": verdict,
        "control_verdict": control,
        "control_statement": str(content.get("control_statement") or ""),
        "estimate": _number(content.get("estimate")),
        "interval": _pair(content.get("interval")),
        "threshold": _pair(content.get("threshold")),
        "unit": str(content.get("unit") or ""),
        "condition": str(content.get("condition") or ""),
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _pair(ends: Any) -> list[float | None] | None:
    if ends is None:
        return None
    low, high = ends
    return [_number(low), _number(high)]


def _figures(folder: Path, entries: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Figures that are really pictures in the folder of the run: a manifest may come from anywhere."""
    home = folder.resolve()
    for entry in entries:
        path = (home / str(entry["file"])).resolve()
        if home not in path.parents or not path.is_file():
            continue
        with open(path, "rb") as stream:
            if stream.read(len(_PNG)) != _PNG:
                continue
        yield {"file": str(path.relative_to(home)), "title": str(entry.get("title", "")), "name": str(entry["name"])}
