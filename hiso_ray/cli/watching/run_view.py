"""A run on a screen: what it is, how it went or goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hiso_ray.analysis.identity import label
from hiso_ray.cli.progress import readable_bytes, readable_seconds
from hiso_ray.cli.watching.curves import Curve, Plot
from hiso_ray.cli.watching.pace import pace
from hiso_ray.cli.watching.slow import who_is_slow
from hiso_ray.run_folder import files
from hiso_ray.run_folder.state import State, read_state

Rows = list[tuple[str, str]]
COLOURS = {"running": "cyan", "finished": "green", "unfinished": "yellow", "interrupted": "yellow"}


@dataclass(frozen=True)
class RunView:
    """A run to be watched; see ``watch.View``."""

    run: State

    @classmethod
    def read(cls, folder: Path) -> RunView:
        return cls(read_state(folder))

    @property
    def running(self) -> bool:
        return self.run.phase == "running"

    @property
    def ended(self) -> bool:
        return self.run.phase not in ("running", "unfinished")

    @property
    def succeeded(self) -> bool:
        return self.run.phase == "finished"

    @property
    def quiet_seconds(self) -> float:
        return self.run.quiet_seconds

    @property
    def slowest_seconds(self) -> float:
        found = pace(self.run)
        return 0.0 if found is None else 1 / found.speed

    def line(self) -> str:
        run, found = self.run, pace(self.run)
        parts = [f"round {run.done}/{run.planned}"]
        if (loss := run.last("train_loss")) is not None:
            parts.append(f"loss {loss:.4f}")
        if (score := run.last(f"eval_{run.metric}")) is not None:
            parts.append(f"{run.metric} {score:.2%}")
        parts += [str(found)] if found is not None and self.running else []
        parts += [f"faults {sum(run.faults.values())}"] if run.faults else []
        return "  ".join(parts)

    def verdict(self) -> str:
        return f"{self.run.folder}: {state_in_words(self.run)}"

    def screen(self) -> RenderableType:
        run = self.run
        head = Table.grid(expand=True)
        head.add_column()
        head.add_column(justify="right")
        what = f"[bold]{escape(label(run.experiment))}[/] on {escape(run.experiment.task.name)}"
        colour = COLOURS.get(run.phase, "red")
        head.add_row(f"{what}  [dim]{escape(str(run.folder))}[/]", f"[{colour}]{run.phase}[/]")
        plots = Table.grid(expand=True)
        for _ in range(2):
            plots.add_column(ratio=1)
        plots.add_row(*(Panel(plot, title=escape(title)) for title, plot in _plots(run)))
        facts = Table.grid(padding=(0, 2))
        for name, value in [*scores(run), *traffic(run), *troubles(run)]:
            facts.add_row(f"[dim]{escape(name)}[/]", escape(value))
        facts.add_row("[dim]written[/]", f"{readable_seconds(run.quiet_seconds)} ago")
        return Group(head, Text(self.line()), bar(run.done, run.planned), plots, facts)


def bar(done: float, planned: float) -> Table:
    """A progress bar on a line of its own."""
    grid = Table.grid(expand=True)
    grid.add_row(ProgressBar(total=planned, completed=done))
    return grid


def _plots(run: State) -> list[tuple[str, Plot]]:
    losses = [
        Curve("training", run.values("train_loss"), "blue"),
        Curve("validation", run.values("validation_loss"), "magenta"),
        Curve("test", run.values("eval_loss"), "yellow"),
    ]
    metric = run.metric
    points = [
        Curve("validation", run.values(f"validation_{metric}"), "magenta"),
        Curve("test", run.values(f"eval_{metric}"), "yellow"),
    ]
    return [("loss", Plot(losses)), (metric, Plot(points, "{:.1%}".format))]


def state_in_words(run: State) -> str:
    ago = readable_seconds(run.quiet_seconds)
    if run.phase == "running":
        return f"running, a process of this machine holds the folder; last written {ago} ago"
    if run.phase == "unfinished":
        return (
            f"unfinished, and no process of this machine runs it: killed, or a copy of a run that "
            f"goes on elsewhere; last written {ago} ago"
        )
    if run.phase == "interrupted":
        return f"interrupted {ago} ago"
    if run.stopped is None or run.phase == "finished":
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed))
        return f"finished, {when}"
    lines = run.stopped.error.strip().splitlines() or [run.stopped.kind]
    if len(lines) > 1 and lines[0].startswith("Traceback"):
        lines = [f"{lines[-1]} (the traceback is in {run.folder / files.STOPPED})"]
    return f"{run.phase}: {lines[0]}" + (f" … {lines[-1]}" if len(lines) > 1 else "")


def scores(run: State) -> Rows:
    """First, last and best of each score and loss that was measured."""
    names = {f"eval_{run.metric}": run.metric, f"validation_{run.metric}": "on validation"}
    rows = [
        (name, _course(values, max, "best", "{:.2%}".format))
        for column, name in names.items()
        if (values := run.values(column))
    ]
    losses = {"eval_loss": "test loss", "train_loss": "training loss"}
    return rows + [
        (name, _course(values, min, "lowest", "{:.4g}".format))
        for column, name in losses.items()
        if (values := run.values(column))
    ]


def _course(
    values: list[tuple[int, float]],
    choose: Callable[..., tuple[int, float]],
    chosen: str,
    number: Callable[[float], str],
) -> str:
    """``51.02% → 75.23% (best 76.00% in round 80)``"""
    if len(values) == 1:
        return f"{number(values[0][1])} in round {values[0][0]}"
    round_, best = choose(values, key=lambda point: point[1])
    first, last = number(values[0][1]), number(values[-1][1])
    return f"{first} → {last} ({chosen} {number(best)} in round {round_})"


def traffic(run: State) -> Rows:
    up, down = run.last("uplink_bytes"), run.last("downlink_bytes")
    if up is None or down is None:
        return []
    words = f"{readable_bytes(up)} up, {readable_bytes(down)} down, all clients"
    if (paper := (run.summary or {}).get("paper_bytes_per_client")) is not None:
        words += f"; {readable_bytes(paper)} a client by the paper's rule"
    return [("sent", words)]


def troubles(run: State) -> Rows:
    kinds = ", ".join(f"{count} {kind}" for kind, count in run.faults.items())
    return [("faults", kinds or "none"), *who_is_slow(run)]
