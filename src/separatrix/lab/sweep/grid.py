"""The grid of a sweep: its cells, each an ordinary run, and its identity."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import separatrix
from separatrix.lab.errors import UsageError
from separatrix.lab.identity import inputs_digest, source_digest
from separatrix.lab.plan import Plan, plan
from separatrix.lab.settings import SettingError, specs, to_dict
from separatrix.lab.study import Study
from separatrix.lab.sweep.axes import Axis

#: More cells than this are refused: what a sweep keeps in memory grows with them.
MOST_CELLS = 1_000_000


@dataclass(frozen=True)
class Grid:
    """All combinations of the axes' values, on top of base settings.

    Parameters
    ----------
    study, settings
        The study and the settings that the axes do not touch.
    axes
        The last varies fastest.
    out
        Folder of all runs.
    controls, only
        As of a run.
    """

    study: Study
    settings: Any
    axes: tuple[Axis, ...]
    out: Path
    controls: bool = True
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        if not names:
            raise UsageError("A sweep needs an axis: --over NAME=VALUES, or several seeds.")
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"over is not allowed to name {', '.join(sorted(twice))} twice.")
        if self.size > MOST_CELLS:
            raise UsageError(f"The sweep has {self.size} cells, and at most {MOST_CELLS} are allowed.")

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each axis."""
        return tuple(len(axis.values) for axis in self.axes)

    @cached_property
    def size(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)

    def values(self, cell: int) -> dict[str, Any]:
        """Value of each axis in a cell, numbered from 0."""
        chosen: dict[str, Any] = {}
        for axis in reversed(self.axes):
            cell, position = divmod(cell, len(axis.values))
            chosen[axis.name] = axis.values[position]
        return dict(reversed(chosen.items()))

    def cell(self, cell: int) -> Any:
        """Settings of a cell."""
        table, values = specs(type(self.settings)), self.values(cell)
        return replace(self.settings, **{axis.name: axis.setting(table[axis.name], values[axis.name]) for axis in self.axes})  # fmt: skip  # noqa: E501

    def plan(self, cell: int) -> Plan:
        """The run of a cell.

        Raises
        ------
        UsageError
            If the study refuses the settings.
        """
        return plan(
            self.study, self.cell(cell), out=self.out, controls=self.controls, only=self.only, source=self.source
        )

    @cached_property
    def source(self) -> str:
        """Digest of the source that computes the cells."""
        return source_digest(self.study)

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits, made from all that determines the cells and their order."""
        swept = {axis.name for axis in self.axes}
        base = {name: value for name, value in to_dict(self.settings).items() if name not in swept}
        texts = any(isinstance(value, str) for axis in self.axes for value in axis.values)
        content = {
            "study": self.study.slug,
            "settings": base,
            "axes": [[axis.name, list(axis.values)] for axis in self.axes],
            "controls": self.controls,
            "only": list(self.only),
            # only a setting that is a text can name a file
            "inputs": [self._inputs(cell) for cell in range(self.size)] if texts else self._inputs(0),
            "source": self.source,
            "version": separatrix.__version__,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()[:16]

    def _inputs(self, cell: int) -> str:
        try:
            return inputs_digest(self.study.inputs(self.cell(cell)))
        except SettingError as error:  # the cell itself will say so
            return str(error)

    @property
    def folder(self) -> Path:
        """Folder of the finished sweep."""
        return self.out / self.study.slug / f"sweep-{self.hash}"

    @property
    def partial(self) -> Path:
        """Folder of the sweep while it is under way."""
        return self.folder.with_name(f"{self.folder.name}.partial")

    def check(self) -> None:
        """Refuse a sweep of which no cell can be run, with the sentence of its first one; nothing is written.

        Raises
        ------
        UsageError
            If the study refuses the settings of every cell.
        """
        first: UsageError | None = None
        for cell in range(self.size):
            try:
                self.plan(cell)
            except UsageError as error:
                first = first or error
            else:
                return
        assert first is not None
        raise first


def seed_axis(study: Study, settings: Any, seeds: int) -> list[Axis]:
    """Axis of ``seeds`` consecutive seeds from that of the settings; none for one seed.

    Raises
    ------
    UsageError
        If the study has no seed.
    """
    if seeds == 1:
        return []
    if "seed" not in specs(study.settings):
        raise UsageError(f"seeds = {seeds} is not allowed: {study.slug} has no setting seed.")
    return [Axis("seed", tuple(settings.seed + k for k in range(seeds)))]


def described(grid: Grid) -> list[dict[str, Any]]:
    """The axes as JSON objects."""
    table = specs(type(grid.settings))
    return [
        {
            "name": axis.name,
            "values": list(axis.values),
            "unit": table[axis.name].unit,
            "help": table[axis.name].help,
            "log": axis.log,
        }
        for axis in grid.axes
    ]


def command(grid: Grid, more: Sequence[str] = ()) -> str:
    """Shell command that reproduces the sweep."""
    import shlex

    from separatrix.lab.options import arguments, write

    swept = {axis.name: specs(type(grid.settings))[axis.name].default for axis in grid.axes}
    over = [
        token for axis in grid.axes for token in ("--over", f"{axis.name}={','.join(write(v) for v in axis.values)}")
    ]
    chosen = [*([] if grid.controls else ["--no-controls"]), *(["--only", *grid.only] if grid.only else [])]
    base = arguments(replace(grid.settings, **swept))
    return shlex.join(["separatrix", "sweep", grid.study.slug, *over, *base, *chosen, *more])
