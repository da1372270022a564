"""Building the site: everything is written beside the old one, which is then replaced in one moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from separatrix import __version__
from separatrix.lab import store
from separatrix.lab.errors import StoreError, UsageError
from separatrix.lab.gallery import pages
from separatrix.lab.gallery.about import about
from separatrix.lab.gallery.collect import MARKER, collect
from separatrix.lab.gallery.curves import summary_curves
from separatrix.lab.lock import locked
from separatrix.lab.progress import Progress

TEMPLATES = Path(__file__).parent.parent / "templates" / "gallery"
ASSETS = ("gallery.css", "gallery.js")


@dataclass(frozen=True)
class Site:
    """A gallery on disk, and what is in it."""

    folder: Path
    studies: int
    runs: int
    sweeps: int

    @property
    def index(self) -> Path:
        """The page to open."""
        return self.folder / "index.html"

    @property
    def summary(self) -> str:
        """One line, for example ``"1 study, 2 runs, 1 sweep"``."""
        counts = (
            (self.studies, "study", "studies"),
            (self.runs, "run", "runs"),
            (self.sweeps, "sweep", "sweeps"),
        )
        return ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts)


def target_of(runs: Path, out: Path | None) -> Path:
    """Folder of the site: ``runs / "gallery"`` unless ``out`` is given; nothing is written.

    Raises
    ------
    UsageError
        If ``runs`` is not a folder, or if the site would replace a folder that is neither empty nor a gallery.
    """
    if not runs.is_dir():
        raise UsageError(f"There is no folder {str(runs)!r}: name the folder of the runs.")
    target = runs / "gallery" if out is None else out
    if target.exists() and not (target.is_dir() and ((target / MARKER).is_file() or not any(target.iterdir()))):
        raise UsageError(f"out = {str(target)!r} is not allowed: it must be a gallery, an empty folder or a new one.")
    return target


def build(runs: Path, out: Path | None = None, notify: Callable[[str], None] = lambda sentence: None) -> Site:  # noqa: ARG005
    """Build the gallery of all runs and sweeps below ``runs``.

    Parameters
    ----------
    runs, out
        Folder of all runs and folder of the site, as in `target_of`; a gallery that is there is replaced.
    notify
        Gets one sentence for each folder that cannot be shown.

    Raises
    ------
    UsageError
        As in `target_of`.
    StoreError
        If the site cannot be written; the old one stays.
    """
    target = target_of(runs, out)
    left_out: list[str] = []

    def leave_out(sentence: str) -> None:
        left_out.append(sentence.replace(f"{runs}{os.sep}", ""))  # where the runs lie is no concern of a reader
        notify(sentence)

    studies = [pages.arrange(entry, about(entry, notify)) for entry in collect(runs, leave_out)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock"), lambda: notify("Another process builds it: waiting.")):
            fresh = target.with_name(f".{target.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)  # of a build that was killed
            try:
                fresh.mkdir()
                with Progress(
                    float(sum(run.report is not None for study in studies for run in study.entry.runs))
                ) as progress:
                    for name, content in _files(studies, left_out, notify, progress):
                        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                        (fresh / name).write_bytes(content)
                _put_in_place(fresh, target)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"Cannot write the gallery {str(target)!r} ({reason}): what was there is unchanged."
        ) from error
    count = sum(len(study.entry.runs) for study in studies)
    return Site(target, len(studies), count, sum(len(study.entry.sweeps) for study in studies))


def _put_in_place(fresh: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _files(
    studies: list[pages.StudyPages], left_out: list[str], notify: Callable[[str], None], progress: Progress
) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of the site, one at a time."""
    for name in ASSETS:
        yield name, (TEMPLATES / name).read_bytes()
    yield "index.html", pages.index_page(studies, left_out).encode()
    for study in studies:
        yield from _study_files(study, notify, progress)
    content = {
        "schema": 1,
        "separatrix": __version__,
        "studies": {
            study.slug: {
                "runs": [run.hash for run in study.entry.runs],
                "sweeps": [sweep.name for sweep in study.entry.sweeps],
            }
            for study in studies
        },
    }
    yield MARKER, store.json_text(content).encode()


def _study_files(
    study: pages.StudyPages, notify: Callable[[str], None], progress: Progress
) -> Iterator[tuple[str, bytes]]:
    yield f"{study.slug}/index.html", pages.study_page(study).encode()
    yield f"{study.slug}/compare.html", pages.compare_page(study).encode()
    yield f"{study.slug}/run.html", pages.run_page(study).encode()
    if study.pictured is not None:
        picture = study.pictured.folder / study.pictured.figures[0]["file"]
        yield f"{study.slug}/figure.png", picture.read_bytes()
    for sweep in study.entry.sweeps:
        yield f"{study.slug}/{sweep.name}.html", pages.sweep_page(study, sweep).encode()
    for run in study.entry.runs:
        if run.report is None:  # to summarise the data of all cells of a large sweep would take minutes
            curves = []
        else:
            report = run.report.read_text("utf-8", errors="replace")
            yield f"{study.slug}/{run.hash}.html", pages.report_page(study, run, report).encode()
            with progress.part(f"curves of {study.slug} {run.hash[:8]}", 1.0):  # about a second for 100 MB of data
                curves = summary_curves(run, notify)
        yield f"{study.slug}/data/{run.hash}.js", pages.run_data(study, run, curves).encode()
