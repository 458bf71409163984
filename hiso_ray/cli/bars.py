"""Progress bars in a terminal; elsewhere nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

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

from hiso_ray.progress import told_to

MOMENT_SECONDS = 0.5  # a step that is over sooner is not shown


class Steps:
    """Shows the long steps of what runs in its context: a bar each in a terminal, nothing
    elsewhere."""

    def __init__(self, console: Console) -> None:
        self._context = ExitStack()
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[numbers]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(compact=True),
                console=console,
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._progress:
            self._context.enter_context(self._progress)
            self._context.enter_context(told_to(self._step))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._context.close()

    @contextmanager
    def _step(self, what: str, total: int | None) -> Iterator[Callable[[], None]]:
        """A bar for one step; of one that counts, once it has lasted a moment."""
        assert self._progress is not None
        shown, began = self._progress, time.monotonic()
        bar: TaskID | None = None
        done = 0

        def appear() -> None:  # a task draws the terminal anew, too much for each round
            nonlocal bar
            if bar is None and (total is None or time.monotonic() - began > MOMENT_SECONDS):
                bar = shown.add_task(what, total=total, completed=done, numbers="")

        def one_done() -> None:
            nonlocal done
            done += 1
            appear()
            if bar is not None:
                shown.update(bar, completed=done)

        appear()
        try:
            yield one_done
        finally:
            if bar is not None:
                shown.remove_task(bar)


class Bar(Steps):
    """A bar for the whole, and below it one for the step at hand; stays when it is over."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        super().__init__(console)
        if self._progress:
            self._progress.live.transient = False
            self._whole = self._progress.add_task(what, total=total, numbers="")

    def show(self, done: int, numbers: str) -> bool:
        """Updates the bar; returns False if there is none."""
        if self._progress:
            self._progress.update(self._whole, completed=done, numbers=numbers)
        return self._progress is not None
