"""``hiso-ray watch``: looks again and again at a folder's files until its run or sweep is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live

from hiso_ray.analysis.sweep_files import kind_of
from hiso_ray.cli.options import FAILED
from hiso_ray.cli.watching.run_view import RunView
from hiso_ray.cli.watching.sweep_view import SweepView

QUIET_LOOKS = 10  # without a change, before a folder that nobody here runs is given up
QUIET_ROUNDS = 10  # the same, of the slowest run
QUIET_SECONDS = 60.0  # the same, at least
SHARE = 0.1  # of the time, at most, is spent looking


class View(Protocol):
    """What was read at one look."""

    @property
    def running(self) -> bool:
        """Whether a process of this machine is seen to run it."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing more will be written."""
        ...

    @property
    def succeeded(self) -> bool: ...

    @property
    def quiet_seconds(self) -> float:
        """Time since anything was written."""
        ...

    @property
    def slowest_seconds(self) -> float:
        """What a round takes; 0 if that is not known."""
        ...

    def line(self) -> str:
        """Everything in one line."""
        ...

    def verdict(self) -> str:
        """How it stands, for the end."""
        ...

    def screen(self) -> RenderableType:
        """Everything, with curves."""
        ...


def read_view(folder: Path) -> View:
    """
    Raises:
        UserError: it is neither a run folder nor a sweep folder.
    """
    return SweepView.read(folder) if kind_of(folder) == "sweep" else RunView.read(folder)


def watch(folder: Path, console: Console, every: float) -> int:
    """Shows a run or sweep until it is over: live in a terminal, elsewhere a line per change.

    A folder that no process of this machine runs may be a copy that somebody keeps up to date. It
    is given up when it has been quiet for long.

    Args:
        every: seconds between two looks, at least.

    Returns:
        The exit status: 0 if it ended as planned.
    """
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            view = _until_over(folder, every, lambda v: live.update(v.screen(), refresh=True))
    else:
        told = _Told(console)
        view = _until_over(folder, every, lambda view: told.line(view.line()))
    console.print(view.verdict(), highlight=False, markup=False, soft_wrap=True)
    return 0 if view.succeeded else FAILED


def _until_over(folder: Path, every: float, show: Callable[[View], None]) -> View:
    while True:
        began = time.monotonic()
        view = read_view(folder)
        show(view)
        given_up = not view.running and view.quiet_seconds > _patience(view, every)
        if view.ended or given_up:
            return view
        time.sleep(max(every, (time.monotonic() - began) / SHARE))


def _patience(view: View, every: float) -> float:
    return max(QUIET_SECONDS, QUIET_LOOKS * every, QUIET_ROUNDS * view.slowest_seconds)


class _Told:
    """Prints a line unless it is the one before."""

    def __init__(self, console: Console) -> None:
        self._console, self._before = console, ""

    def line(self, text: str) -> None:
        if text != self._before:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._before = text
