"""Computing the parts of a run that are missing, in a folder from which another process can go on at any moment."""

from __future__ import annotations

import datetime
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from separatrix.lab import budget, interrupts, machine, store
from separatrix.lab.errors import UsageError
from separatrix.lab.plan import Plan
from separatrix.lab.progress import Progress
from separatrix.lab.study import Experiment

if TYPE_CHECKING:
    import xarray

Notify = Callable[[str], None]


def open_partial(planned: Plan, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Journal of the run under way: part sizes fixed when it began, time spent so far."""
    path = planned.partial / "journal.json"
    if planned.partial.exists():
        store.remove_temporaries(planned.partial)
        try:
            return store.read_json(path)
        except UsageError:
            store.remove(planned.partial)
    store.make_folder(planned.partial)
    journal = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "part_size": dict(sizes),
        "seconds": {},
        "peak_memory": 0,
    }
    store.write_json(path, journal)
    return journal


def missing(planned: Plan, experiment: Experiment, journal: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Bounds of the parts of an experiment that are not on disk."""
    if (planned.partial / planned.data(experiment)).exists():
        return []
    every = budget.parts(experiment.members, journal["part_size"][experiment.name])
    return [bounds for bounds in every if not planned.part(experiment, bounds).exists()]


def _seconds(experiment: Experiment, bounds: tuple[int, int]) -> float:
    return experiment.seconds * (bounds[1] - bounds[0]) / experiment.members


def announce(planned: Plan, journal: Mapping[str, Any], notify: Notify) -> None:
    """Say how much time and memory the rest of the run should take."""
    every = done = 0
    seconds, memory = 0.0, [0]
    for experiment in planned.experiments:
        size = journal["part_size"][experiment.name]
        absent = missing(planned, experiment, journal)
        every += len(budget.parts(experiment.members, size))
        done += len(budget.parts(experiment.members, size)) - len(absent)
        seconds += sum(_seconds(experiment, bounds) for bounds in absent)
        if absent:
            memory.append(size * experiment.bytes_per_member)
    seconds *= budget.OVERLAP
    bytes_needed = sum(sorted(memory)[-budget.WORKERS :]) + machine.peak_memory()
    resumed = f"; {done} of {every} parts are done already" if done else ""
    notify(f"Expected: {budget.in_time(seconds)}, {budget.in_bytes(bytes_needed)} of memory{resumed}.")


def execute(planned: Plan, journal: dict[str, Any]) -> None:
    """Compute the missing parts, :data:`budget.WORKERS` at a time, and join the parts of each experiment."""
    todo = [(experiment, missing(planned, experiment, journal)) for experiment in planned.experiments]
    total = sum(_seconds(experiment, bounds) for experiment, absent in todo for bounds in absent)
    with Progress(total) as progress, ThreadPoolExecutor(budget.WORKERS, "part") as pool:
        jobs = ((experiment, bounds) for experiment, absent in todo for bounds in absent)
        stop = threading.Event()

        def work(experiment: Experiment, bounds: tuple[int, int]) -> float:
            # Nothing begins after a failure: a part that could not be kept would be computed in vain.
            if stop.is_set():
                raise CancelledError
            try:
                interrupts.raise_if_pressed()
                return _compute(planned, experiment, bounds)
            except BaseException:
                stop.set()
                raise

        submit = lambda job: pool.submit(work, *job)  # noqa: E731
        # A few more than there are workers: a short part does not wait for a long one before it.
        under_way = deque(map(submit, itertools.islice(jobs, 2 * budget.WORKERS)))
        try:
            for experiment, absent in todo:
                if (planned.partial / planned.data(experiment)).exists():
                    continue
                for bounds in absent:
                    with progress.part(experiment.name, _seconds(experiment, bounds)):
                        interrupts.raise_if_pressed()
                        spent = under_way.popleft().result()
                    under_way.extend(map(submit, itertools.islice(jobs, 1)))
                    journal["seconds"][experiment.name] = journal["seconds"].get(experiment.name, 0.0) + spent
                    journal["peak_memory"] = max(journal["peak_memory"], machine.peak_memory())
                    store.write_json(planned.partial / "journal.json", journal)
                join(planned, experiment, journal)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)  # what has begun is finished and kept
            raise
    interrupts.raise_if_pressed()


def _compute(planned: Plan, experiment: Experiment, bounds: tuple[int, int]) -> float:
    """Compute and write one part; returns the seconds of the simulation."""
    began = time.monotonic()
    dataset = experiment.simulate(*bounds)
    spent = time.monotonic() - began
    keep(planned, experiment, bounds, dataset)
    return spent


def keep(planned: Plan, experiment: Experiment, bounds: tuple[int, int], dataset: xarray.Dataset) -> None:
    """Write a finished part."""
    dataset = _checked(experiment, dataset, bounds)
    store.make_folder(planned.partial / "parts" / experiment.name)
    store.write_dataset(planned.part(experiment, bounds), dataset)


def join(planned: Plan, experiment: Experiment, journal: Mapping[str, Any]) -> None:
    """Put the parts of an experiment together."""
    every = budget.parts(experiment.members, journal["part_size"][experiment.name])
    whole = planned.partial / planned.data(experiment)
    store.make_folder(whole.parent)
    if len(every) == 1:
        store.rename(planned.part(experiment, every[0]), whole)
    else:
        parts = [store.read_dataset(planned.part(experiment, bounds)) for bounds in every]
        store.write_dataset(whole, store.join_members(parts))
    store.remove(planned.partial / "parts" / experiment.name)


def _checked(experiment: Experiment, dataset: xarray.Dataset, bounds: tuple[int, int]) -> xarray.Dataset:
    """Refuse a part that does not hold the members it was asked for (a mistake of the study's author)."""
    if experiment.members > 1:
        members = dataset.coords["member"].values.tolist() if "member" in dataset.coords else None
        if members != list(range(*bounds)):
            raise ValueError(
                f"Experiment {experiment.name} was asked for the members {bounds[0]} to {bounds[1] - 1} and returned a "
                f"dataset whose member coordinate is {members}."
            )
    return dataset
