"""What a run has to compute, what identifies it, and where its files go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separatrix.lab.identity import run_hash, source_digest
from separatrix.lab.settings import validate
from separatrix.lab.study import Experiment, Selection, Study


@dataclass(frozen=True)
class Plan:
    """What has to be computed, and where it goes."""

    study: Study
    settings: Any
    controls: bool
    only: tuple[str, ...]
    selection: Selection
    warnings: tuple[str, ...]
    hash: str
    folder: Path
    source: str

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """What has to be simulated."""
        return self.selection.experiments

    @property
    def partial(self) -> Path:
        """Folder of the run while it is under way."""
        return self.folder.with_name(f"{self.hash}.partial")

    @property
    def replaced(self) -> Path:
        """Name that a finished run has for the moment in which a fresh one takes its place."""
        return self.folder.with_name(f"{self.hash}.replaced")

    @property
    def lock(self) -> Path:
        """File that the process computing this run holds locked."""
        return self.folder.with_name(f"{self.hash}.lock")

    def data(self, experiment: Experiment) -> Path:
        """Folder of the joined data of an experiment, relative to that of the run."""
        return Path("data") / f"{experiment.name}.zarr"

    def part(self, experiment: Experiment, bounds: tuple[int, int]) -> Path:
        """Folder of one finished part of a run under way."""
        return self.partial / "parts" / experiment.name / f"{bounds[0]}-{bounds[1]}.zarr"


def plan(
    study: Study,
    settings: Any,
    *,
    out: Path,
    controls: bool = True,
    only: Sequence[str] = (),
    source: str | None = None,
) -> Plan:
    """Check the settings and work out the experiments and the identity of a run; nothing is written.

    ``source`` is the :func:`source_digest` of the study, for those who have it already.

    Raises
    ------
    SettingError
        If a setting is not allowed, or an input file cannot be read.
    UsageError
        If ``only`` names something that the study does not measure.
    """
    validate(settings)
    warnings = tuple(study.check(settings))
    selection = study.select(settings, only, controls)
    names = [experiment.name for experiment in selection.experiments]
    if len(set(names)) != len(names):
        raise ValueError(f"{study.slug}: two experiments have the same name.")
    chosen = tuple(sorted(set(only)))
    source = source_digest(study) if source is None else source
    name = run_hash(study, settings, controls, chosen, source)
    return Plan(study, settings, controls, chosen, selection, warnings, name, out / study.slug / name, source)
