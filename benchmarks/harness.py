"""Interleaved races: every candidate once per round, ratios from the paired rounds, results as JSON.

A race compares the seconds per unit of work (a run-step, a path-step, a call). Each candidate is called once to warm
up (compilation, threads, buffers: reported apart), then timed once per round in the order A-B-A-B. A peer may have
several variants (thread counts, formulations); it is represented by the one with the smallest median, so the choice
favours the peer. A ratio is the peer's seconds over ours in the same round; its 95 % interval is Student's, on the
logarithms over the rounds, and a goal counts as met when the whole interval lies at or above it.
"""

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from separatrix.lab.machine import usable_cores

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "separatrix",
    "jax",
    "jaxlib",
    "numpy",
    "scipy",
    "torch",
    "diffrax",
    "equinox",
    "hessian-eigenthings",
    "curvlinops-for-pytorch",
    "pyhessian",
)
MOST_LOAD_BEFORE = 0.5  # one-minute load average for each core
MOST_FOREIGN_CPU = 0.15  # cores, taken by other processes on average during the races, for each core
SHORT_SECONDS = 0.1  # calls below this are preceded by one that is not timed
SETTLE_SECONDS = 0.05  # between two timings, so that one library's spinning threads do not slow the next


class DisagreementError(Exception):
    """Two candidates do not compute the same thing: their race would be unfair."""


@dataclass(frozen=True)
class Options:
    """What the command line chose."""

    quick: bool = False
    full: bool = False
    rounds: int = 5
    round_seconds: float = 0.4


@dataclass(frozen=True)
class Candidate:
    """One way to do the work.

    Attributes
    ----------
    name
        Unique within the race.
    run
        Does ``work`` units of work and returns when they are done.
    work
        Units of work in one call.
    group
        Name of the peer of which this is a variant; by default the candidate's own name.
    prepare
        Called before each timing, untimed (number of threads).
    """

    name: str
    run: Callable[[], object]
    work: float
    group: str = ""
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Comparison:
    """A ratio to report: the seconds per unit of ``peer`` (a group) times ``factor``, over those of ``ours``."""

    ours: str
    peer: str
    goal: float | None = None
    factor: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class Race:
    """Candidates for the same work, and the ratios that count.

    ``check`` runs after the warm-up and before the rounds: it raises :class:`DisagreementError` if the candidates do
    not compute the same thing, and returns figures to store beside ``details``. ``derive`` turns the median seconds per
    unit of each candidate into further figures.
    """

    title: str
    unit: str
    candidates: Sequence[Candidate]
    comparisons: Sequence[Comparison]
    check: Callable[[], dict[str, Any]]
    details: dict[str, Any] = field(default_factory=dict)
    derive: Callable[[dict[str, float]], dict[str, Any]] = lambda _: {}


def run_race(race: Race, options: Options) -> dict[str, Any]:
    """Warm up, time the rounds, form the ratios; a dictionary that JSON can hold."""
    first, repeats, short = {}, {}, set()
    for c in race.candidates:
        c.prepare()
        first[c.name] = seconds(c.run, 1)
        once = seconds(c.run, 1)
        if once < SHORT_SECONDS:
            short.add(c.name)
        repeats[c.name] = max(1, math.ceil(options.round_seconds / max(once, 1e-9)))
    agreement = race.check()
    rounds: dict[str, list[float]] = {c.name: [] for c in race.candidates}
    for _ in range(options.rounds):
        for c in race.candidates:
            time.sleep(SETTLE_SECONDS)
            c.prepare()
            if c.name in short:
                c.run()  # wakes the threads and fills the caches after another candidate's turn
            rounds[c.name].append(seconds(c.run, repeats[c.name]) / repeats[c.name])
    per_unit = {c.name: np.asarray(rounds[c.name]) / c.work for c in race.candidates}
    medians = {name: float(np.median(times)) for name, times in per_unit.items()}
    rows = {
        c.name: {
            "peer": c.group or c.name,
            "seconds_per_unit": medians[c.name],
            "seconds_per_unit_range": [float(per_unit[c.name].min()), float(per_unit[c.name].max())],
            "first_call_seconds": first[c.name],
            "call_seconds": float(np.median(rounds[c.name])),
            "units_per_call": c.work,
            "calls_per_round": repeats[c.name],
            "round_seconds_per_call": rounds[c.name],
        }
        for c in race.candidates
    }
    ratios = []
    for comparison in race.comparisons:
        variants = [c.name for c in race.candidates if (c.group or c.name) == comparison.peer]
        variant = min(variants, key=medians.__getitem__)
        paired = comparison.factor * per_unit[variant] / per_unit[comparison.ours]
        low, high = _interval(paired)
        ratios.append(
            {
                "ours": comparison.ours,
                "peer": comparison.peer,
                "peer_variant": variant,
                "note": comparison.note,
                "factor": comparison.factor,
                "ratio": float(np.median(paired)),
                "interval_95": [low, high],
                "round_ratios": paired.tolist(),
                "goal": comparison.goal,
                "met": None if comparison.goal is None else bool(low >= comparison.goal),
            }
        )
    return {
        "title": race.title,
        "unit": race.unit,
        "details": {**race.details, **race.derive(medians)},
        "agreement": agreement,
        "candidates": rows,
        "ratios": ratios,
    }


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Wall time of ``repeats`` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - start


def _interval(ratios: np.ndarray) -> tuple[float, float]:
    """95 % interval of the ratio by Student's distribution on the logarithms."""
    logs = np.log(ratios)
    if logs.size < 2:
        return 0.0, math.inf
    half = float(scipy.stats.t.ppf(0.975, logs.size - 1) * logs.std(ddof=1) / math.sqrt(logs.size))
    return float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def agree(what: str, first: float, second: float, error: float, most: float = 4.5) -> float:
    """Number of standard errors between two estimates of one quantity.

    Raises
    ------
    DisagreementError
        If it exceeds ``most``, or is not a number.
    """
    z = abs(first - second) / error if error > 0 else (0.0 if first == second else math.inf)
    if not z <= most:
        raise DisagreementError(f"{what}: {first:.6g} and {second:.6g} lie {z:.1f} standard errors apart")
    return z


def close(what: str, first: np.ndarray, second: np.ndarray, relative: float) -> float:
    """Largest difference of two arrays relative to the largest entry.

    Raises
    ------
    DisagreementError
        If it exceeds ``relative``, or is not a number.
    """
    difference = float(np.max(np.abs(first - second)) / np.max(np.abs(first)))
    if not difference <= relative:
        raise DisagreementError(
            f"{what}: the largest relative difference is {difference:.2e}, allowed is {relative:.0e}"
        )
    return difference


def thread_counts() -> list[int]:
    """One thread, and as many as there are cores."""
    return sorted({1, usable_cores()})


def machine() -> dict[str, Any]:
    """Processor, cores and memory."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"processor": model, "cores": usable_cores(), "memory_gib": round(memory / 2**30, 1)}


def versions() -> dict[str, str]:
    """Versions of Python and of the racing packages."""
    table = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            table[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return table


class ForeignCpu:
    """Cores taken by other processes since it was made; None where the system does not tell (not Linux)."""

    def __init__(self) -> None:
        self._start = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float, float] | None:
        try:
            fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        user, nice, system, _, _, irq, soft, steal = (f / os.sysconf("SC_CLK_TCK") for f in fields)
        own = os.times()
        mine = own.user + own.system + own.children_user + own.children_system
        return time.monotonic(), user + nice + system + irq + soft, steal, mine

    def measure(self) -> dict[str, float] | None:
        """Average number of cores taken by others, and by other guests of a virtual machine's host."""
        now = self._read()
        if self._start is None or now is None:
            return None
        wall, busy, stolen, mine = (b - a for a, b in zip(self._start, now, strict=True))
        return {"others": max(0.0, (busy - mine) / wall), "stolen": stolen / wall}


def refuse(reason: str) -> None:
    """Say why nothing is measured and stop with exit code 2."""
    print(reason, file=sys.stderr)
    raise SystemExit(2)


def too_loaded() -> str | None:
    """Why no race can start now, or None."""
    load, most = os.getloadavg()[0], MOST_LOAD_BEFORE * usable_cores()
    if load <= most:
        return None
    return (
        f"The machine is busy: one-minute load {load:.2f}, at most {most:.2f} for a race; "
        "wait, or pass --allow-load for figures that count for nothing."
    )


def parser(description: str) -> argparse.ArgumentParser:
    """The options all benchmarks share."""
    shared = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = shared.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="tiny sizes: does it run? (stored only with --out)")
    sizes.add_argument("--full", action="store_true", help="the largest sizes, where a benchmark has them: see there")
    shared.add_argument(
        "--allow-load", action="store_true", help="measure on a busy machine too (stored only with --out)"
    )
    shared.add_argument("--rounds", type=int, default=5, help="rounds of each race (default 5)")
    shared.add_argument("--out", type=Path, help="folder of the JSON results (default benchmarks/results)")
    return shared


def main(name: str, description: str, races: Callable[[Options], Sequence[Race]]) -> None:
    """Command line of one benchmark: measure, print, store."""
    chosen = parser(description).parse_args()
    if chosen.rounds < 2:
        refuse(f"--rounds must be at least 2, got {chosen.rounds}.")
    reason = too_loaded()
    if reason and not chosen.allow_load:
        refuse(reason)
    options = Options(chosen.quick, chosen.full, chosen.rounds, 0.0 if chosen.quick else Options.round_seconds)
    before, others = os.getloadavg(), ForeignCpu()
    try:
        results = [run_race(race, options) for race in races(options)]
    except DisagreementError as wrong:
        print(f"The candidates disagree, no race is stored. {wrong}", file=sys.stderr)
        raise SystemExit(1) from None
    foreign = others.measure()
    report = {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "load_before": before,
        "load_after": os.getloadavg(),
        "foreign_cpu_cores": foreign,
        "quick": chosen.quick,
        "full": chosen.full,
        "allow_load": chosen.allow_load,
        "rounds": chosen.rounds,
        "races": results,
    }
    print_report(report)
    if foreign and foreign["others"] > MOST_FOREIGN_CPU * usable_cores() and not chosen.allow_load:
        refuse(
            f"Nothing is stored: other processes took {foreign['others']:.2f} cores on average during the races, at "
            f"most {MOST_FOREIGN_CPU * usable_cores():.2f} are allowed."
        )
    folder = chosen.out or (None if chosen.quick or chosen.allow_load else RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
        print(f"Stored in {folder / f'{name}.json'}")


def print_report(report: dict[str, Any]) -> None:
    """The figures of one benchmark, for people."""
    for race in report["races"]:
        print(f"\n{race['title']}: seconds per {race['unit']}, median (range over {report['rounds']} rounds)")
        for name, row in race["candidates"].items():
            low, high = (_time(s) for s in row["seconds_per_unit_range"])
            print(f"  {name:<58} {_time(row['seconds_per_unit']):>9} ({low} to {high}); "
                  f"first call {row['first_call_seconds']:.2f} s")  # fmt: skip
        print_ratios(race)
        for key, value in (race["details"] | race["agreement"]).items():
            if not (isinstance(value, dict) and len(value) > 4):  # longer tables are in the JSON
                print(f"  {key}: {_figures(value)}")


def print_ratios(race: dict[str, Any]) -> None:
    """One line for each ratio."""
    for r in race["ratios"]:
        verdict = "" if r["goal"] is None else f"; goal {r['goal']:g}: {'met' if r['met'] else 'NOT met'}"
        note = f" {r['note']}" if r["note"] else ""
        low, high = r["interval_95"]
        print(f"  {r['ours']} / {r['peer_variant']}{note}: {r['ratio']:.3g}x (95 %: {low:.3g} to {high:.3g}){verdict}")


def _time(seconds: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _figures(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_figures(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_figures(item) for item in value) + "]"
    return str(value)
