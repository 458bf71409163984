"""How a run stands, from the files of its folder alone: while it runs, when it is over, and of a
copy on another machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hiso_ray.config import Experiment
from hiso_ray.run_folder import faults, files
from hiso_ray.run_folder.folder import LOCK, read_experiment
from hiso_ray.run_folder.locks import is_held
from hiso_ray.run_folder.metrics_reader import Row, read_rows
from hiso_ray.run_folder.stopped import Stopped, read_stopped
from hiso_ray.run_folder.summary import read_summary

Phase = Literal["running", "finished", "diverged", "failed", "interrupted", "unfinished"]
GROWING = (files.METRICS, files.LEDGER, files.FAULTS, files.SUMMARY, files.CONFIG)


@dataclass(frozen=True)
class State:
    """A run folder as it was read at one moment.

    Attributes:
        experiment: as its ``config.yaml`` has it.
        phase: ``running`` only if a process of this machine holds the folder; ``unfinished`` if
            nobody does and nothing says why it ended: it was killed, or it is a copy of a folder
            whose run may go on elsewhere.
        versions: that ran it: ``hiso-ray==0.2.0 python==3.11.7 …``; empty if it does not say.
        rows: of ``metrics.csv``, whole ones.
        faults: number of each kind.
        changed: when one of its files was written last [seconds since 1970].
    """

    folder: Path
    experiment: Experiment
    versions: str
    phase: Phase
    rows: list[Row]
    summary: dict[str, Any] | None
    stopped: Stopped | None
    faults: dict[str, int]
    changed: float

    @property
    def done(self) -> int:
        """Rounds in the table."""
        return int(self.rows[-1]["round"]) if self.rows else 0

    @property
    def planned(self) -> int:
        return self.experiment.federation.rounds

    @property
    def quiet_seconds(self) -> float:
        """Time since anything was written."""
        return max(0.0, time.time() - self.changed)

    @property
    def metric(self) -> str:
        """The name of its score."""
        metric = self.experiment.task.metric
        return "accuracy" if metric == "auto" else metric  # auto: in old folders

    def last(self, column: str) -> float | None:
        """The newest value of a column; None if there is none."""
        values = (row.get(column) for row in reversed(self.rows))
        return next((value for value in values if value is not None), None)

    def values(self, column: str) -> list[tuple[int, float]]:
        """(round, value) of each row that has one."""
        return [(row["round"], row[column]) for row in self.rows if row.get(column) is not None]


def read_state(folder: Path) -> State:
    """
    Raises:
        LedgerError: (a ``UserError``) it is not a run folder.
        pydantic.ValidationError: its configuration is not one of this version.
    """
    experiment = read_experiment(folder)
    held = is_held(folder / LOCK)  # first: a run that has let go has written everything
    summary, stopped = read_summary(folder), read_stopped(folder)
    if summary is not None and summary["rounds"] != experiment.federation.rounds:
        summary = None  # of before it was resumed with more rounds
    return State(
        folder,
        experiment,
        _versions(folder / files.CONFIG),
        _phase(held, summary, stopped),
        read_rows(folder / files.METRICS),
        summary,
        stopped,
        faults.by_kind(folder),
        max(path.stat().st_mtime for name in GROWING if (path := folder / name).exists()),
    )


def _versions(path: Path) -> str:
    with open(path, encoding="utf-8") as file:
        first = file.readline()
    return first.removeprefix("# ").strip() if first.startswith("# hiso-ray") else ""


def _phase(held: bool, summary: dict[str, Any] | None, stopped: Stopped | None) -> Phase:
    if held:
        return "running"
    if summary is not None:
        return "finished"
    if stopped is None:
        return "unfinished"
    if stopped.interrupted:
        return "interrupted"
    return "diverged" if stopped.diverged else "failed"
