"""Where the batches of a sweep are computed: in this process, in a pool of processes, or on a Ray cluster.

Each takes batches of cell numbers and yields their rows as they come. A cell is a function of its settings alone, and
its folder is locked and written atomically: an executor may try a batch again after a worker has died, and the results
have the same bits wherever they are computed.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import socket
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from separatrix.lab import discovery, machine, runtime
from separatrix.lab.errors import UsageError
from separatrix.lab.settings import specs
from separatrix.lab.sweep.cells import Row, compute
from separatrix.lab.sweep.grid import Grid

Batch = tuple[int, ...]
NAMES = ("inline", "processes", "ray")
#: A cell whose worker dies this often is given up: it is the cell that kills.
TRIES = 2


@dataclass(frozen=True)
class Work:
    """A grid as another process can build it again; ``work(batch)`` computes cells there."""

    slug: str
    path: str
    folder: str
    settings: Any
    axes: tuple[Any, ...]
    out: str
    controls: bool
    only: tuple[str, ...]

    def grid(self) -> Grid:
        """The grid."""
        if self.path:
            os.environ[discovery.PATH_VARIABLE] = self.path
        study = discovery.import_study(discovery.locate(self.slug))
        return Grid(study, study.settings(**self.settings), self.axes, Path(self.out), self.controls, self.only)

    def __call__(self, batch: Batch) -> list[Row]:
        """Compute a batch in this process."""
        with contextlib.suppress(OSError):
            os.chdir(self.folder)  # the settings may name files relative to it
        runtime.configure()
        grid = _grids.get(self.key)
        if grid is None:
            _grids.clear()
            grid = _grids[self.key] = self.grid()
        return list(compute(grid, batch))

    @property
    def key(self) -> str:
        """What tells one grid from another."""
        return repr(self)


_grids: dict[str, Grid] = {}


def work(grid: Grid) -> Work:
    """What other processes need to compute cells of this grid."""
    folders = filter(None, os.environ.get(discovery.PATH_VARIABLE, "").split(os.pathsep))
    path = os.pathsep.join(str(Path(folder).resolve()) for folder in folders)
    settings = {name: getattr(grid.settings, name) for name in specs(type(grid.settings))}
    out = str(grid.out.resolve())
    return Work(grid.study.slug, path, os.getcwd(), settings, grid.axes, out, grid.controls, grid.only)


def inline(grid: Grid, batches: Sequence[Batch]) -> Iterator[Row]:
    """Compute one batch after the other in this process."""
    for batch in batches:
        yield from compute(grid, batch)


# -- processes --------------------------------------------------------------------------------------------------------


def _start_worker(cores: Sequence[Sequence[int]], number: Any, parent: int) -> None:
    """Take a share of the cores, leave Ctrl-C to the parent, and end when the parent does."""
    with number.get_lock():
        mine = cores[number.value % len(cores)]
        number.value += 1
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, mine)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    runtime.configure()


def shares(workers: int) -> list[list[int]]:
    """The usable cores, dealt out to the workers so that two do not compete for one as long as there are enough."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if workers >= len(usable):
        return [[core] for core in usable]
    return [usable[k::workers] for k in range(workers)]


def processes(grid: Grid, batches: Sequence[Batch], workers: int | None = None) -> Iterator[Row]:
    """Compute batches in ``workers`` processes of this machine, one for each usable core by default.

    Batches under way when a process is killed are computed again one by one, so that it shows which of them kills; a
    cell that has killed :data:`TRIES` processes on its own fails.
    """
    workers = workers or machine.usable_cores()
    job = work(grid)
    waiting, suspects = deque(batches), deque[Batch]()
    deaths: Counter[Batch] = Counter()
    while waiting or suspects:
        alone = bool(suspects)
        under_way: dict[Future, Batch] = {}
        try:
            with _pool(1 if alone else workers) as pool:
                queue = suspects if alone else waiting
                while queue or under_way:
                    while queue and len(under_way) < (1 if alone else 2 * workers):
                        batch = queue.popleft()
                        under_way[pool.submit(job, batch)] = batch
                    finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in finished:
                        rows = future.result()  # raises where a process has died
                        del under_way[future]
                        yield from rows
        except BrokenProcessPool:
            for batch in under_way.values():
                deaths[batch] += alone
                if deaths[batch] < (TRIES if len(batch) == 1 else 1):
                    suspects.append(batch)
                elif len(batch) > 1:
                    suspects.extend((cell,) for cell in batch)
                else:
                    reason = f"its process was killed {TRIES} times; is there too little memory?"
                    yield from (Row(cell, reason=reason) for cell in batch)


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (shares(workers), context.Value("i", 0), os.getpid()))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# -- Ray --------------------------------------------------------------------------------------------------------------


def ray_cluster(grid: Grid, batches: Sequence[Batch], address: str = "", workers: int | None = None) -> Iterator[Row]:
    """Compute batches as Ray tasks of one core each; Ray repeats those whose worker or node dies.

    Parameters
    ----------
    grid, batches
        What to compute. ``grid.out`` must be a folder that all nodes share.
    address
        Of a running cluster, or ``auto``; by default a cluster of this machine is started and stopped.
    workers
        Tasks at a time; by default as many as the cluster has cores.

    Raises
    ------
    UsageError
        If Ray is not installed or the cluster cannot be reached.
    """
    require_ray(address)
    import ray
    from ray.exceptions import RayError, RayTaskError

    started = not ray.is_initialized()
    if started:
        _connect(ray, address, workers)
    try:
        one = {"JAX_NUM_CPU_DEVICES": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
               "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"}  # fmt: skip
        task: Any = ray.remote(num_cpus=1, max_retries=TRIES, runtime_env={"env_vars": one})(_run_batch)
        job = work(grid)  # by value: an object in Ray's store would be lost with its node
        at_once = 2 * (workers or max(1, int(ray.cluster_resources().get("CPU", 1))))
        remaining = iter(batches)
        under_way = {task.remote(job, batch): batch for batch in itertools.islice(remaining, at_once)}
        while under_way:
            (first, *_), _ = ray.wait(list(under_way), num_returns=1)
            batch = under_way.pop(first)
            try:
                yield from ray.get(first)
            except RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except RayError as error:
                for cell in batch:
                    yield Row(cell, reason=f"its worker was lost {TRIES + 1} times ({type(error).__name__})")
            under_way |= {task.remote(job, batch): batch for batch in itertools.islice(remaining, 1)}
    finally:
        if started:
            ray.shutdown()


def _run_batch(job: Work, batch: Batch) -> list[Row]:
    return job(batch)


def require_ray(address: str) -> None:
    """Refuse what cannot work, before anything is written.

    Raises
    ------
    UsageError
        If Ray is not installed, or nobody listens at the address.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UsageError("on = 'ray' is not allowed: Ray is not installed (pip install 'separatrix[ray]').") from None
    if not _answers(address):
        raise UsageError(f"address = {address!r} is not allowed: nobody answers there.")


def _answers(address: str) -> bool:
    """Whether somebody listens at ``host:port``; Ray itself would wait a minute and then end the process."""
    try:
        target = urlsplit(address if "://" in address else f"//{address}")
        if target.hostname is None or target.port is None:
            return True  # such as auto: Ray knows what it means
        with socket.create_connection((target.hostname, target.port), timeout=10):
            return True
    except (OSError, ValueError):
        return False


def _connect(ray: Any, address: str, workers: int | None) -> None:
    import logging

    # Ray forks to start its own processes; they run other programs at once, which is the case that is safe.
    warnings.filterwarnings("ignore", message=r".*os\.fork\(\) was called", category=RuntimeWarning)
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",  # never a cluster that happens to run here
                num_cpus=workers or machine.usable_cores(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"address = {address!r} is not allowed: no Ray cluster answers there ({reason}).") from None
