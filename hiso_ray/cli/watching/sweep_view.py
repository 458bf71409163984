"""A sweep on a screen: how its trials ended, which run, which is best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hiso_ray.analysis.sweep_files import FAILED, UNFINISHED
from hiso_ray.analysis.sweep_state import OVER, RUNNING, SweepState, TrialState, read_sweep_state
from hiso_ray.cli.watching.curves import Curve, Plot
from hiso_ray.cli.watching.pace import pace, pace_of_sweep
from hiso_ray.cli.watching.run_view import bar

DRAWN = ("cyan", "yellow", "magenta", "green", "blue")  # colours; the rest of the trials has none
LONGEST = 14  # trials in the table
COLOURS = {"running": "cyan", "finished": "green", "failed": "red"}


@dataclass(frozen=True)
class SweepView:
    """A sweep to be watched; see ``watch.View``."""

    sweep: SweepState

    @classmethod
    def read(cls, folder: Path) -> SweepView:
        return cls(read_sweep_state(folder))

    @property
    def running(self) -> bool:
        return self.sweep.running

    @property
    def ended(self) -> bool:
        return self.sweep.over and not self.sweep.running

    @property
    def succeeded(self) -> bool:
        return self.sweep.over and not self.sweep.of_status(FAILED)

    @property
    def quiet_seconds(self) -> float:
        return self.sweep.quiet_seconds

    @property
    def slowest_seconds(self) -> float:
        paces = [pace(trial.run) for trial in self.sweep.trials if trial.status not in OVER]
        return max((1 / found.speed for found in paces if found is not None), default=0.0)

    def line(self) -> str:
        sweep, found = self.sweep, pace_of_sweep(self.sweep)
        counts = ", ".join(f"{count} {status}" for status, count in sweep.counts.items())
        parts = [f"{sweep.planned} trials: {counts}"]
        parts += [str(found)] if found is not None else []
        if best := sweep.ranked[:1]:
            parts.append(f"best {best[0].label}: {_scores(best[0])}")
        return "  ".join(parts)

    def verdict(self) -> str:
        return f"{self.sweep.folder}: {state_in_words(self.sweep)}"

    def screen(self) -> RenderableType:
        sweep = self.sweep
        done = sum(t.run.done for t in sweep.trials)
        planned = sum(t.run.planned for t in sweep.trials)
        whole = planned / len(sweep.trials) * sweep.planned if sweep.trials else 1
        head = Text.assemble((f"sweep {sweep.name}", "bold"), "  ", (str(sweep.folder), "dim"))
        shown = list(zip(shown_trials(sweep), DRAWN, strict=False))
        curves = [
            Curve(trial.label, trial.run.values(f"eval_{trial.run.metric}"), colour)
            for trial, colour in shown
        ]
        plot = Panel(Plot(curves, "{:.1%}".format), title="score")
        return Group(head, Text(self.line()), bar(done, whole), plot, trials_table(sweep))


def shown_trials(sweep: SweepState) -> list[TrialState]:
    """Those that run, then those that failed or lack their end, then the best of the others."""
    order = [sweep.of_status(status) for status in (RUNNING, FAILED, UNFINISHED)]
    return [trial for some in [*order, sweep.ranked] for trial in some][:LONGEST]


def trials_table(sweep: SweepState) -> Table:
    table = Table("trial", "state", "rounds", "score", "pace", box=None, header_style="dim")
    for trial in shown_trials(sweep):
        table.add_row(*_cells(trial))
    if (more := len(sweep.trials) - table.row_count) > 0:
        table.add_row(f"[dim]and {more} more[/]")
    return table


def _cells(trial: TrialState) -> Iterator[str]:
    found = pace(trial.run) if trial.status == RUNNING else None
    yield escape(trial.label)
    yield f"[{COLOURS.get(trial.status, 'yellow')}]{trial.status}[/]"
    yield f"{trial.run.done}/{trial.run.planned}"
    yield _scores(trial)
    last = trial.error.strip().splitlines()[-1:]
    yield escape(last[0]) if last else str(found or "")


def _scores(trial: TrialState) -> str:
    """``75.23% (validation 73.17%)``"""
    if trial.score is None:
        return "–"
    more = f" (validation {trial.validation:.2%})" if trial.validation is not None else ""
    return f"{trial.score:.2%}{more}"


def state_in_words(sweep: SweepState) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in sweep.counts.items())
    if sweep.running:
        return f"running; {counts}"
    if sweep.over:
        return f"over; {counts}"
    return f"{counts}; no process of this machine runs it"
