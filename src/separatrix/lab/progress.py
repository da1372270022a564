"""Progress of a run on a terminal's standard error; nothing at all where that is not a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from separatrix.lab.budget import in_time


def notice(sentence: str) -> None:
    """Print a sentence for the person at the terminal; standard output is kept for results."""
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201


class Progress:
    """Bar over the expected seconds of a run; within a part it moves with the clock.

    Parameters
    ----------
    total
        Expected seconds of all parts that remain.
    """

    def __init__(self, total: float) -> None:
        self._total = total
        self._bar = None
        self._task = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._bar, self._task = _bar(self._total)
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @contextlib.contextmanager
    def part(self, label: str, seconds: float) -> Iterator[None]:
        """Show ``label`` while a part of ``seconds`` expected seconds is computed."""
        if self._bar is None:
            yield
            return
        self._bar.begin(self._task, label, seconds)
        yield
        self._bar.end(self._task)


def _bar(total: float):
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    class ClockProgress(RichProgress):
        """A bar that knows how long the current part should take."""

        done = spent = 0.0
        pace = 1.0
        expected = 0.0
        began: float | None = None

        def begin(self, task, label: str, seconds: float) -> None:
            self.expected, self.began = seconds, time.monotonic()
            self.update(task, description=label)

        def end(self, task) -> None:
            self.done += self.expected
            self.spent += time.monotonic() - (self.began or 0.0)
            # this machine may be faster or slower than the one for which the seconds were declared
            self.pace = self.spent / self.done if self.done else 1.0
            self.began = None
            self.update(task, completed=self.done)

        def get_renderables(self):
            if self.began is not None:
                # never claim that a part is finished before it is
                within = min((time.monotonic() - self.began) / self.pace, 0.98 * self.expected)
                for task in self.tasks:
                    task.completed = self.done + within
                    left = max((task.total or 0.0) - task.completed, 0.0) * self.pace
                    task.fields["left"] = f"{in_time(left)} left"
            yield from super().get_renderables()

    bar = ClockProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        transient=True,
    )
    return bar, bar.add_task("starting", total=total or None, left="")


class CellProgress:
    """Bar over the cells of a sweep: done, failed, left, and the time that the rest should take.

    Parameters
    ----------
    total
        Number of cells.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._bar = None
        self._task = None

    def __enter__(self) -> CellProgress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                BarColumn(),
                TextColumn("{task.fields[done]} done, {task.fields[failed]} failed, {task.fields[left]} left"),
                TimeElapsedColumn(),
                TextColumn("still"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=self._total, done=0, failed=0, left=self._total)
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, *, done: int, failed: int, left: int, total: int) -> None:
        """Show these counts."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=total - left, done=done, failed=failed, left=left)
