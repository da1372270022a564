"""From what was collected to the text of each page; all texts of studies and runs are data, never markup."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from separatrix.lab import budget, document, store
from separatrix.lab.gallery.about import About
from separatrix.lab.gallery.collect import RunEntry, StudyEntry
from separatrix.lab.gallery.sweeps import Sweep

if TYPE_CHECKING:
    import jinja2

#: A list to choose a run from does not hold the cells of sweeps beyond this number.
LISTED = 300


@dataclass(frozen=True)
class StudyPages:
    """A study with everything that its pages show.

    Parameters
    ----------
    shown
        Run whose verdicts stand for the study: of those with a report the nearest to the default settings, and of
        these the newest. None without runs.
    pictured
        Run whose first figure stands for the study: the same one, if it has figures.
    """

    entry: StudyEntry
    about: About
    shown: RunEntry | None
    pictured: RunEntry | None

    @property
    def slug(self) -> str:
        """Name of the study and of its folder in the site."""
        return self.entry.slug

    @functools.cached_property
    def cells(self) -> frozenset[str]:
        """Runs that are cells of a sweep."""
        return frozenset(run for sweep in self.entry.sweeps for run in sweep.runs if run)

    @functools.cached_property
    def listed(self) -> list[RunEntry]:
        """Runs that stand for themselves: not cells of a sweep, or cells with a report of their own."""
        return [run for run in self.entry.runs if run.hash not in self.cells or run.report is not None]

    @functools.cached_property
    def selectable(self) -> list[RunEntry]:
        """Runs that the comparison offers; a cell of a large sweep can still be named in the address."""
        return list(self.entry.runs) if len(self.entry.runs) <= LISTED else self.listed

    def description(self, run: RunEntry) -> str:
        """What sets a run apart: from the runs it is listed with or, where nothing does, from the default settings."""
        varied = self._varied_listed if run.hash in self._listed_hashes else self._varied
        changed = self.about.changed(run)
        if varied or changed is None:
            return settings_text({name: run.settings[name] for name in varied if name in run.settings})
        return settings_text(changed) or "default settings"

    @functools.cached_property
    def _listed_hashes(self) -> frozenset[str]:
        return frozenset(run.hash for run in self.listed)

    @functools.cached_property
    def _varied(self) -> list[str]:
        return varied_settings(self.entry.runs)

    @functools.cached_property
    def _varied_listed(self) -> list[str]:
        return varied_settings(self.listed)

    @functools.cached_property
    def _sweeps_of_runs(self) -> dict[str, list[str]]:
        table: dict[str, list[str]] = {}
        for sweep in self.entry.sweeps:
            for run in dict.fromkeys(sweep.runs):
                table.setdefault(run, []).append(sweep.name)
        return table

    def sweeps_of(self, run: RunEntry) -> list[str]:
        """Names of the sweeps of which a run is a cell."""
        return self._sweeps_of_runs.get(run.hash, [])

    @property
    def topics(self) -> tuple[str, ...]:
        """Key words of the study."""
        return self.about.topics


def varied_settings(runs: Sequence[RunEntry]) -> list[str]:
    """Settings that are not the same in all runs."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for name, value in run.settings.items():
            values.setdefault(name, set()).add(json.dumps(value, sort_keys=True))
    return [name for name, found in values.items() if len(found) > 1]


def arrange(entry: StudyEntry, about: About) -> StudyPages:
    """Choose the run that stands for a study."""

    def distance(run: RunEntry) -> int:
        changed = about.changed(run)
        return 0 if changed is None else len(changed)

    with_report = [run for run in entry.runs if run.report is not None] or list(entry.runs)
    shown = min(with_report, key=distance, default=None)  # the first of equals is the newest
    pictured = next((run for run in [shown, *with_report] if run is not None and run.figures), None)
    return StudyPages(entry, about, shown, pictured)


def index_page(studies: Sequence[StudyPages], left_out: Sequence[str]) -> str:
    """The front page: one card for each study, and filters."""
    topics = sorted({topic for study in studies for topic in study.topics})
    return _render("index.html", studies=studies, topics=topics, left_out=left_out, root="")


def study_page(study: StudyPages) -> str:
    """Question, verdicts of the run that is shown, all runs and all sweeps of a study."""
    return _render("study.html", study=study, root="../")


def report_page(study: StudyPages, run: RunEntry, report: str) -> str:
    """The full report of a run with the bar of the site on top."""
    bar = _render("bar.html", study=study, run=run, root="../")
    # in a function, because a replacement text would be searched for backslashes
    page, found = re.subn(r"<body[^>]*>", lambda tag: f"{tag[0]}\n{bar}", report, count=1)
    return re.sub(r"<main(?=\s|>)(?![^>]*\bid=)", '<main id="main"', page, count=1) if found else f"{bar}\n{report}"


def run_page(study: StudyPages) -> str:
    """The one page of all runs without a report; it finds the run in its address."""
    return _render("run.html", study=study, data={"settings": study.about.settings}, root="../")


def compare_page(study: StudyPages) -> str:
    """The page that compares two runs of a study."""
    return _render("compare.html", study=study, data={"settings": study.about.settings}, root="../")


def sweep_page(study: StudyPages, sweep: Sweep) -> str:
    """The interactive phase diagram of a sweep."""
    runs = {run.hash: run for run in study.entry.runs}
    pages = [run_link(runs[cell]) if cell in runs else "" for cell in sweep.runs]
    content = {**sweep.content, "pages": pages}
    return _render("sweep.html", study=study, sweep=sweep, data=content, root="../")


def run_data(study: StudyPages, run: RunEntry, curves: Sequence[Mapping[str, Any]]) -> str:
    """Script that hands a run to the page which asked for it."""
    content = {
        "study": study.slug,
        "hash": run.hash,
        "created": run.created,
        "command": run.command,
        "description": study.description(run),
        "page": run_link(run),
        "report": run.report is not None,
        "sweeps": study.sweeps_of(run),
        "settings": run.settings,
        "claims": run.claims,
        "experiments": run.experiments,
        **run.facts,
        "curves": curves,
    }
    return f"separatrix.receive({embedded(content)});\n"


def run_link(run: RunEntry) -> str:
    """Address of a run's page, relative to the pages of its study."""
    return f"{run.hash}.html" if run.report is not None else f"run.html#run={run.hash}"


def embedded(content: Any) -> str:
    """JSON that can stand in a script element: no text in it can end the element or begin a comment."""
    text = json.dumps(store.finite(content), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def value_text(value: Any) -> str:
    """Value of a setting for people."""
    if isinstance(value, list | tuple):
        return " ".join(value_text(element) for element in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def settings_text(values: Mapping[str, Any]) -> str:
    """Settings in one line."""
    return ", ".join(f"{name} = {value_text(value)}" for name, value in values.items())


def day(created: str) -> str:
    """The day and the minute of a time stamp in ISO format."""
    return created[:16].replace("T", " ")


def _render(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("separatrix.lab", "templates/gallery"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": document.number,
        "interval": document.interval,
        "region": document.region,
        "in_time": budget.in_time,
        "value": value_text,
        "in_line": settings_text,
        "day": day,
        "link": run_link,
        "embedded": lambda content: Markup(embedded(content)),  # safe in a script element
    }
    return environment
