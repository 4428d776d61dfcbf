"""Progress on the terminal: one bar for the runs of a job, one for the steps of a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from limbeck.engine.loop import Report


def console() -> Console:
    """Where limbeck speaks to people; standard output is kept for results."""
    return Console(file=sys.stderr)


class Bars:
    """Bars that are drawn on a terminal, and a line now and then where there is none.

    Args:
        progress: rich's live display.
        runs: how many runs there will be; a bar for them where there are several.
    """

    QUIET_SECONDS = 15.0

    def __init__(self, progress: Progress, runs: int = 1) -> None:
        self.progress = progress
        self.overall = progress.add_task("runs", total=runs, words="") if runs > 1 else None
        self._spoken = time.monotonic()

    @contextmanager
    def run(self, name: str) -> Iterator[Report]:
        """A bar for one run; gives the function that moves it."""
        task = self.progress.add_task(name, total=None, words="")
        try:
            yield lambda step, steps, words: self._move(task, step, steps, words)
        finally:
            self.progress.remove_task(task)
            if self.overall is not None:
                self.progress.advance(self.overall)

    def _move(self, task: TaskID, step: int, steps: int, words: str) -> None:
        self.progress.update(task, completed=step, total=steps, words=words)
        now = time.monotonic()
        if not self.progress.console.is_terminal and now - self._spoken > self.QUIET_SECONDS:
            self._spoken = now
            name = self.progress.tasks[self.progress.task_ids.index(task)].description
            self.progress.console.print(f"{name}: step {step} of {steps}, {words}")


@contextmanager
def bars(runs: int = 1, *, show: bool = True) -> Iterator[Bars]:
    """Bars for `runs` runs; drawn only where `show` is set."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[words]}"),
    )
    terminal = console()
    live = show and terminal.is_terminal
    with Progress(*columns, console=terminal, transient=True, disable=not live) as progress:
        yield Bars(progress, runs) if show else _Silent(progress, runs)


class _Silent(Bars):
    QUIET_SECONDS = float("inf")
