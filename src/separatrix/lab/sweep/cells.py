"""Computing cells of a sweep in this process: simulations that can share a launch do, each cell is a run of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from separatrix.lab import budget, execution, interrupts, machine, outcome, run, store
from separatrix.lab.errors import StoreError, UsageError
from separatrix.lab.lock import locked
from separatrix.lab.plan import Plan
from separatrix.lab.study import Experiment, JointSimulation
from separatrix.lab.sweep.grid import Grid

if TYPE_CHECKING:
    import xarray


#: Data of parts smaller than this are kept in memory until their cell is judged; others are read again.
_SMALL = 2**20


@dataclass(frozen=True)
class Row:
    """What a sweep keeps of one cell: the numbers of its run, or why there is none."""

    cell: int
    run: str = ""
    reason: str = ""
    claims: tuple[dict[str, Any], ...] = ()
    quantities: tuple[dict[str, Any], ...] = ()


@dataclass
class _Cell:
    """A cell that is being computed."""

    number: int
    planned: Plan
    journal: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    parts: dict[tuple[str, tuple[int, int]], xarray.Dataset] = field(default_factory=dict)

    def results(self) -> store.StoredResults | None:
        """What was computed here, as it would be read from disk; None if anything has to be read."""
        results = store.StoredResults()
        for one in self.planned.experiments:
            every = budget.parts(one.members, self.journal["part_size"][one.name])
            if any((one.name, bounds) not in self.parts for bounds in every):
                return None
            results[one.name] = store.ordered(store.join_members([self.parts[one.name, bounds] for bounds in every]))
        return results


@dataclass(frozen=True)
class _Part:
    cell: _Cell
    experiment: Experiment
    bounds: tuple[int, int]

    @property
    def bytes(self) -> int:
        return (self.bounds[1] - self.bounds[0]) * self.experiment.bytes_per_member


def compute(grid: Grid, cells: Sequence[int]) -> Iterator[Row]:
    """Run the cells that are missing, and give the rows of all in no particular order.

    A cell that raises, or whose settings the study refuses, has a reason instead of numbers and does not stop the
    others; a disk that cannot be written stops everything.

    Raises
    ------
    StoreError
        If a run folder cannot be written.
    """
    under_way: list[_Cell] = []
    for number in cells:
        try:
            planned = grid.plan(number)
        except UsageError as error:
            yield Row(number, reason=str(error))
            continue
        except Exception as error:
            yield Row(number, reason=_reason(error))
            continue
        if (planned.folder / store.MANIFEST).exists():
            yield _row(number, planned)
        else:
            under_way.append(_Cell(number, planned))
    # Locks in one order everywhere: two sweeps that share cells never wait for each other in a circle.
    under_way.sort(key=lambda cell: cell.planned.hash)
    with contextlib.ExitStack() as locks:
        mine = []
        for cell in under_way:
            with store.writing(cell.planned.folder.parent):
                cell.planned.folder.parent.mkdir(parents=True, exist_ok=True)
                locks.enter_context(locked(cell.planned.lock, lambda: None))
            if (cell.planned.folder / store.MANIFEST).exists():  # somebody else has computed it meanwhile
                yield _row(cell.number, cell.planned)
            else:
                mine.append(cell)
        _simulate(mine)
        for cell in mine:
            interrupts.raise_if_pressed()
            _finish(cell)
            yield Row(cell.number, reason=cell.failure) if cell.failure else _row(cell.number, cell.planned)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _row(number: int, planned: Plan) -> Row:
    document = store.read_json(planned.folder / store.DOCUMENT)
    return Row(number, planned.hash, "", tuple(document["claims"]), tuple(document.get("quantities", ())))


def _simulate(cells: Sequence[_Cell]) -> None:
    """Compute and keep all missing parts of these cells."""
    available = machine.available_memory()
    todo: dict[Hashable, list[_Part]] = {}
    for cell in cells:
        planned = cell.planned
        try:
            sizes = {one.name: budget.part_size(one, available) for one in planned.experiments}
            cell.journal = execution.open_partial(planned, sizes)
            for experiment in planned.experiments:
                for bounds in execution.missing(planned, experiment, cell.journal):
                    simulate = experiment.simulate
                    # a simulation that stands alone is a group of its own
                    group = simulate.group if isinstance(simulate, JointSimulation) else (cell.number, experiment.name, bounds)  # fmt: skip  # noqa: E501
                    todo.setdefault(group, []).append(_Part(cell, experiment, bounds))
        except StoreError:
            raise
        except Exception as error:
            cell.failure = _reason(error)
    most = int(available * budget.MEMORY_SHARE)
    for parts in todo.values():
        for launch in _fitting(parts, most):
            interrupts.raise_if_pressed()
            _launch([part for part in launch if not part.cell.failure])


def _fitting(parts: Sequence[_Part], most: int) -> Iterator[list[_Part]]:
    """Consecutive parts that fit the memory together."""
    launch: list[_Part] = []
    for part in parts:
        if launch and sum(one.bytes for one in launch) + part.bytes > most:
            yield launch
            launch = []
        launch.append(part)
    if launch:
        yield launch


def _launch(parts: Sequence[_Part]) -> None:
    """Compute parts of one group together and keep them; if that raises, one by one, so that the guilty is known."""
    if not parts:
        return
    try:
        datasets = _together(parts)
    except Exception as error:
        if len(parts) == 1:
            parts[0].cell.failure = _reason(error)
            return
        for part in parts:
            if not part.cell.failure:
                _launch([part])
        return
    for part, dataset in zip(parts, datasets, strict=True):
        try:
            execution.keep(part.cell.planned, part.experiment, part.bounds, dataset)
            if dataset.nbytes < _SMALL:
                part.cell.parts[part.experiment.name, part.bounds] = dataset
        except StoreError:
            raise
        except Exception as error:
            part.cell.failure = _reason(error)


def _together(parts: Sequence[_Part]) -> Iterable[xarray.Dataset]:
    simulate = parts[0].experiment.simulate
    if isinstance(simulate, JointSimulation):
        return simulate.together([(part.experiment.simulate, *part.bounds) for part in parts])
    return [part.experiment.simulate(*part.bounds) for part in parts]


def _finish(cell: _Cell) -> None:
    """Judge a cell whose data are complete and put its folder in place."""
    if cell.failure:
        return
    planned = cell.planned
    try:
        for experiment in planned.experiments:
            if not (planned.partial / planned.data(experiment)).exists():
                execution.join(planned, experiment, cell.journal)
        outcome.finish(planned, planned.partial, cell.journal, results=cell.results(), report=False)
        cell.parts.clear()
        run.put_in_place(planned)
    except StoreError:
        raise
    except Exception as error:
        cell.failure = _reason(error)
