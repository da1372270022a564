"""What a study is about: from its declaration if it is installed here, otherwise from a report of one of its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from separatrix.lab import discovery
from separatrix.lab.errors import UsageError
from separatrix.lab.gallery.collect import RunEntry, StudyEntry
from separatrix.lab.settings import specs, to_dict


@dataclass(frozen=True)
class About:
    """Texts of a study; ``defaults`` is None and ``settings`` is empty if its declaration is not here."""

    title: str
    question: str = ""
    reference: str = ""
    topics: tuple[str, ...] = ()
    defaults: Mapping[str, Any] | None = None
    settings: Mapping[str, dict[str, str]] = field(default_factory=dict)

    def changed(self, run: RunEntry) -> dict[str, Any] | None:
        """Settings of a run that are not at their defaults, without the seed; None if the defaults are not known."""
        if self.defaults is None:
            return None
        return {
            name: value
            for name, value in run.settings.items()
            if name != "seed" and value != self.defaults.get(name, object())
        }


def about(entry: StudyEntry, notify: Callable[[str], None]) -> About:
    """Texts of a study that has runs or sweeps."""
    try:
        study = discovery.import_study(discovery.locate(entry.slug))
    except UsageError:
        notify(f"The study {entry.slug} is not installed here: its pages show what its own reports say of it.")
        return _from_runs(entry)
    table = specs(study.settings)
    return About(
        study.title,
        study.question,
        study.reference,
        tuple(study.topics),
        to_dict(study.settings()),
        {name: {"unit": spec.unit, "help": spec.help} for name, spec in table.items()},
    )


def _from_runs(entry: StudyEntry) -> About:
    title = entry.runs[0].title if entry.runs else entry.sweeps[0].content["title"]
    for run in entry.runs:
        if run.report is not None:
            parser = _Report()
            parser.feed(run.report.read_text("utf-8", errors="replace"))
            return About(run.title, "\n\n".join(map(_line, parser.question)), _line(parser.reference))
    return About(title)


def _line(text: str) -> str:
    return " ".join(text.split())


class _Report(HTMLParser):
    """Reference and question, read off the page that `lab.report` writes."""

    def __init__(self) -> None:
        super().__init__()
        self.reference = ""
        self.question: list[str] = []
        self._heading: str | None = None
        self._asked = False
        self._into: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "h2":
            self._heading = ""
        elif tag == "p" and ("class", "reference") in attrs:
            self._into = "reference"
        elif tag == "p" and self._asked:
            self._into = "question"
            self.question.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "h2":
            self._asked = (self._heading or "").strip() == "What was asked"
            self._heading = None
        elif tag == "p":
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._heading is not None:
            self._heading += data
        elif self._into == "reference":
            self.reference += data
        elif self._into == "question":
            self.question[-1] += data
