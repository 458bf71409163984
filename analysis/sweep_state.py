"""How a sweep stands, from the files of its folder alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiso_ray.analysis import identity, sweep_files
from hiso_ray.analysis.sweep_files import FAILED, FINISHED, STOPPED, UNFINISHED
from hiso_ray.run_folder.locks import is_held
from hiso_ray.run_folder.state import State, read_state

RUNNING, WAITING = "running", "waiting"
OVER = (FINISHED, FAILED, STOPPED)


@dataclass(frozen=True)
class TrialState:
    """
    Attributes:
        label: its method and what else differs from other trials.
        status: ``running``, ``finished``, ``failed``, ``stopped`` (early) or ``unfinished``.
        error: why it failed, if it did.
    """

    label: str
    status: str
    error: str
    run: State

    @property
    def score(self) -> float | None:
        """The last test score."""
        return self.run.last(f"eval_{self.run.metric}")

    @property
    def validation(self) -> float | None:
        """The last validation score, None without validation examples."""
        return self.run.last(f"validation_{self.run.metric}")

    @property
    def merit(self) -> float:
        """What trials are ranked by: the validation score, without one the test score."""
        found = (value for value in (self.validation, self.score) if value is not None)
        return next(found, float("-inf"))


@dataclass(frozen=True)
class SweepState:
    """
    Attributes:
        held: whether a process of this machine runs the sweep.
        planned: number of trials.
        trials: those that have begun.
    """

    folder: Path
    name: str
    held: bool
    planned: int
    trials: Sequence[TrialState]

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by status, those that have not begun as ``waiting``."""
        found = Counter(trial.status for trial in self.trials)
        found[WAITING] = max(0, self.planned - len(self.trials))
        order = (RUNNING, *OVER, UNFINISHED, WAITING)
        return {status: found[status] for status in order if found[status]}

    @property
    def running(self) -> bool:
        return self.held or any(trial.status == RUNNING for trial in self.trials)

    @property
    def over(self) -> bool:
        """Whether every trial has ended."""
        return sum(self.counts.get(status, 0) for status in OVER) >= self.planned

    @property
    def quiet_seconds(self) -> float:
        """Time since a trial wrote anything; infinite if none has begun."""
        return min((trial.run.quiet_seconds for trial in self.trials), default=float("inf"))

    def of_status(self, status: str) -> list[TrialState]:
        return [trial for trial in self.trials if trial.status == status]

    @property
    def ranked(self) -> list[TrialState]:
        """Finished trials, best first: by their validation score where they have one."""
        return sorted(self.of_status(FINISHED), key=lambda trial: trial.merit, reverse=True)


def read_sweep_state(folder: Path) -> SweepState:
    """
    Raises:
        UserError: it is not a sweep folder, or a trial's configuration is not of this version.
    """
    name, planned = sweep_files.planned(folder)
    told, runs = sweep_files.endings(folder), list(map(read_state, sweep_files.begun(folder)))
    varied = _varied(runs)
    trials = []
    for run in runs:
        ending = told.get(run.folder.name, sweep_files.Ending(UNFINISHED))
        status = run.phase if run.phase in (RUNNING, FINISHED) else ending.status
        error = (ending.error or "") if status == FAILED else ""
        trials.append(TrialState(_label(run, varied), status, error, run))
    held = is_held(folder / sweep_files.OUTCOMES)
    return SweepState(folder, name, held, planned, trials)


def _varied(runs: Sequence[State]) -> list[str]:
    """Fields in which the trials differ, but for those that a method's label names."""
    tables = [identity.fields_of(run.experiment) for run in runs]
    named = {"method.name", *(f"method.{name}" for name in identity.VARIANTS)}
    return [
        name
        for name in dict.fromkeys(name for table in tables for name in table)
        if name not in named
        and not name.startswith(identity.NO_RESULT)
        and len({str(table.get(name)) for table in tables}) > 1
    ]


def _label(run: State, varied: Sequence[str]) -> str:
    """``hiso (scalar) lr=0.004 seed=0``"""
    fields = identity.fields_of(run.experiment)
    shown = (f"{name.rpartition('.')[2]}={fields[name]}" for name in varied if name in fields)
    return " ".join([identity.label(run.experiment), *shown])
