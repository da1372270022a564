"""Sweeps: what the lab costs for each cell, what shared launches save, and how soon a finished sweep is open again.

Cells without work, in this process, in a pool of two processes and on a local Ray cluster of two workers: the time of a
long sweep minus that of a short one, over the difference in cells, so that the start of the workers is reported apart.
A sweep of the scalar chain whose cells differ in the label noise: with shared launches, as runs one after the other in
one process, and as one command for each. A finished sweep of 10,000 cells with twelve claims is opened again by its
command. Memory: the growth of the process's peak from a short to a long sweep of empty cells.
"""

import importlib.util
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.lab import discovery, runtime
from separatrix.lab import run as lab_run
from separatrix.lab.sweep import Grid, axis, driver, sweep
from separatrix.lab.sweep.cells import Row
from separatrix.lab.sweep.results import Table, open_sweep

WORKERS = 2
#: Goals of the overhead, in milliseconds for each cell, and of opening a finished sweep, in seconds.
GOALS = {"inline": 5.0, "processes": 20.0, "ray": 50.0}
REOPEN_GOAL = 2.0
SHARED, ONE_BY_ONE, COMMANDS = "shared launches", "runs in one process", "a command for each cell"
CHAIN = {"chain_runs": 200, "depth": (2,)}


class Cells:
    """Sweeps of empty cells in fresh folders."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.study = discovery.import_study(discovery.locate("empty-cell"))
        self.fresh = itertools.count()
        self.starts: dict[str, float] = {}

    def time(self, on: str, cells: int) -> float:
        """Seconds of a sweep of new cells."""
        out = self.scratch / f"empty{next(self.fresh)}"
        grid = Grid(self.study, self.study.settings(), (axis(self.study.settings, "number", range(cells)),), out)
        began = time.perf_counter()
        found = sweep(grid, on=on, workers=None if on == "inline" else WORKERS)
        took = time.perf_counter() - began
        if found.manifest["counts"]["done"] != cells:
            raise harness.DisagreementError(f"{on}: {found.manifest['counts']}")
        shutil.rmtree(out)
        return took

    def overhead(self, on: str, few: int, many: int) -> dict[str, float]:
        """Milliseconds for each further cell, and seconds before the first."""
        short, long = self.time(on, few), self.time(on, many)
        each = (long - short) / (many - few)
        return {"milliseconds": 1e3 * each, "start_seconds": max(short - few * each, 0.0)}


def empty_cells(scratch: Path, options: Options) -> Race:
    """Overhead of each executor; the ratio compares a pool with this process."""
    few, many = (2, 6) if options.quick else (20, 220)
    cells = Cells(scratch)
    executors = ["inline", "processes"]
    if not options.quick and importlib.util.find_spec("ray"):
        executors.append("ray")
    figures: dict[str, list[dict[str, float]]] = {on: [] for on in executors}

    def run(on: str) -> Callable[[], None]:
        return lambda: figures[on].append(cells.overhead(on, few, many))

    def derive(_: dict[str, float]) -> dict[str, Any]:
        middle = {on: float(np.median([one["milliseconds"] for one in found])) for on, found in figures.items()}
        return {
            "milliseconds for each cell": middle,
            "seconds until the first cell": {
                on: float(np.median([one["start_seconds"] for one in found])) for on, found in figures.items()
            },
            "goals, milliseconds": {on: GOALS[on] for on in executors},
            "met": {on: middle[on] < GOALS[on] for on in executors},
        }

    return Race(
        f"Empty cells, sweeps of {few} and {many}",
        "cell",
        [Candidate(on, run(on), few + many) for on in executors],
        [],
        dict,
        derive=derive,
    )


class Chain:
    """Sweeps of the scalar chain's escape over label noises."""

    def __init__(self, scratch: Path, cells: int) -> None:
        self.scratch, self.cells = scratch, cells
        self.study = discovery.import_study(discovery.locate("saddle-to-saddle-sgd"))
        self.settings = self.study.resolve("default", CHAIN)
        self.fresh = itertools.count()
        self.first: dict[str, float] = {}

    def grid(self, cells: int) -> Grid:
        """A grid of new cells."""
        noise = axis(self.study.settings, "scalar_label_noise", np.linspace(0.1, 1.0, cells).round(9).tolist())
        out = self.scratch / f"chain{next(self.fresh)}"
        return Grid(self.study, self.settings, (noise,), out, controls=False, only=("C9",))

    def shared(self) -> None:
        """One sweep of all cells."""
        grid = self.grid(self.cells)
        found = sweep(grid, on="inline")
        self.first[SHARED] = float(found.dataset["estimate"].values[0, 0])
        shutil.rmtree(grid.out)

    def one_by_one(self, cells: int) -> None:
        """The first cells as runs, one after the other."""
        grid = self.grid(self.cells)
        for cell in range(cells):
            done = lab_run.run(self.study, grid.cell(cell), out=grid.out, controls=False, only=grid.only)
            if cell == 0:
                self.first[ONE_BY_ONE] = done.document["claims"][0]["estimate"]
        shutil.rmtree(grid.out)

    def commands(self, cells: int) -> None:
        """The first cells as commands, each a process of its own."""
        from separatrix.lab.options import command

        grid = self.grid(self.cells)
        for cell in range(cells):
            words = command(self.study.slug, grid.cell(cell), controls=False, only=grid.only).split()[1:]
            subprocess.run(
                [sys.executable, "-m", "separatrix", *words, "--out", str(grid.out)], check=True, capture_output=True
            )
        shutil.rmtree(grid.out)

    def check(self) -> dict[str, Any]:
        """The first cell has the same estimate either way."""
        if self.first[SHARED] != self.first[ONE_BY_ONE]:
            raise harness.DisagreementError(f"The first cell differs: {self.first}.")
        return {"estimate of the first cell": self.first[SHARED]}


def chain_sweep(scratch: Path, options: Options) -> Race:
    """Shared launches against cell by cell."""
    cells, some = (6, 2) if options.quick else (1000, 20)
    chain = Chain(scratch, cells)
    candidates = [Candidate(SHARED, chain.shared, cells), Candidate(ONE_BY_ONE, lambda: chain.one_by_one(some), some)]
    comparisons = [Comparison(SHARED, ONE_BY_ONE, goal=20.0)]
    if not options.quick:
        candidates.append(Candidate(COMMANDS, lambda: chain.commands(2), 2))
        comparisons.append(Comparison(SHARED, COMMANDS, note="(compiled anew for each cell)"))
    return Race(
        f"Scalar chain, {cells} cells of {CHAIN['chain_runs']} runs", "cell", candidates, comparisons, chain.check
    )


def reopening(scratch: Path, options: Options) -> Race:
    """Open a finished sweep by its command, and by its folder."""
    cells = 100 if options.quick else 10_000
    study = discovery.import_study(discovery.locate("saddle-to-saddle-sgd"))
    noise = axis(study.settings, "label_noise", np.linspace(0.1, 1.0, cells // 100).round(9).tolist())
    seeds = axis(study.settings, "seed", range(100))
    grid = Grid(study, study.settings(), (noise, seeds), scratch / "large")
    table = Table(grid)
    claims = [{"id": f"C{k}", "statement": "x", "estimate": 0.5, "interval": [0.4, 0.6], "verdict": "holds",
               "control_verdict": "fails"} for k in range(1, 13)]  # fmt: skip
    for cell in range(grid.size):
        table.add(Row(cell, f"{cell:016x}", "", tuple(claims), ()))
    grid.partial.mkdir(parents=True)
    folder = driver._keep(grid, table, "inline", 0.0).folder
    words = ["sweep", study.slug, "--over", f"label_noise={','.join(map(repr, noise.values))}",
             "--over", f"seed={','.join(map(str, seeds.values))}", "--out", str(grid.out)]  # fmt: skip

    def by_command() -> None:
        done = subprocess.run([sys.executable, "-m", "separatrix", *words], capture_output=True, text=True, check=True)
        if "is reused" not in done.stderr:
            raise harness.DisagreementError(f"the sweep was not reused: {done.stderr}")

    return Race(
        f"Opening a finished sweep of {grid.size} cells",
        "opening",
        [Candidate("its command", by_command, 1), Candidate("its folder", lambda: open_sweep(folder), 1)],
        [],
        dict,
        derive=lambda seconds: {"seconds": seconds, "goal": REOPEN_GOAL, "met": seconds["its command"] < REOPEN_GOAL},
    )


def memory(scratch: Path, options: Options) -> Race:
    """Peak memory of this process after a short and after a long sweep."""
    few, many = (5, 20) if options.quick else (100, 1000)
    cells = Cells(scratch)
    peak: dict[str, float] = {}

    def run(name: str, count: int) -> Callable[[], None]:
        def measure() -> None:
            cells.time("inline", count)
            peak.setdefault(name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

        return measure

    short, long = f"{few} cells", f"{many} cells"
    return Race(
        "Memory of a sweep in this process",
        "cell",
        [Candidate(short, run(short, few), few), Candidate(long, run(long, many), many)],
        [],
        dict,
        derive=lambda _: {
            "peak MiB": peak,
            "kiB for each further cell": 1024 * (peak[long] - peak[short]) / (many - few),
        },
    )


def races(options: Options) -> Sequence[Race]:
    """All races; those of memory first, since peaks never fall."""
    os.environ[discovery.PATH_VARIABLE] = str(Path(__file__).parent / "studies")
    runtime.configure()
    scratch = Path(tempfile.mkdtemp(prefix="sweeps"))
    return [make(scratch, options) for make in (memory, empty_cells, chain_sweep, reopening)]


if __name__ == "__main__":
    harness.main("sweeps", __doc__, races)
