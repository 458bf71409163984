"""Contents of a sweep folder.

::

    plan.yaml        the sweep as requested; resume reads it
    runs/ID/         a run folder per trial; its summary says that the trial has finished
    outcomes.jsonl   status of each trial that did not finish (failed, stopped, restarted)
    trials.parquet, rounds.parquet   everything, tidy: docs/columns.md
    tune/            Ray Tune's own records; nothing here needs them
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from hiso_ray.analysis import load, store, sweep_files
from hiso_ray.analysis.identity import LOCAL
from hiso_ray.analysis.sweep_files import (
    FINISHED,
    OUTCOMES,
    PLAN,
    RUNS,
    STOPPED,
    UNFINISHED,
    Ending,
)
from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.run_folder import files
from hiso_ray.run_folder.folder import read_experiment, stamped
from hiso_ray.run_folder.locks import hold
from hiso_ray.run_folder.metrics_reader import scan_rows
from hiso_ray.run_folder.summary import read_summary
from hiso_ray.run_folder.whole_files import write_text
from hiso_ray.sweeps.table import Sweep, Trial, read_sweep

TABLES = ("trials.parquet", "rounds.parquet")


def default_path(sweep: Sweep) -> Path:
    """``runs/sweep-NAME-TIME``."""
    return stamped(f"sweep-{sweep.name}")


def planned(folder: Path) -> Sweep:
    """The sweep that a folder holds.

    Raises:
        UserError: the folder holds none.
    """
    if not (folder / PLAN).exists():
        raise UserError(f"{folder} is not a sweep folder: it has no plan.yaml")
    return read_sweep(str(folder / PLAN))


@contextmanager
def opened(folder: Path, sweep: Sweep, trials: Sequence[Trial], resume: bool) -> Iterator[None]:
    """Creates the folder if needed and locks it for as long as the context lasts.

    Raises:
        FileExistsError: it holds something, and ``resume`` was not asked for.
        UserError: it holds a sweep of another plan, or another process is running it.
    """
    if resume:
        planned(folder)  # raises if it is not a sweep folder
    else:
        _check_free(folder)
    try:
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
        lock = open(folder / OUTCOMES, "a", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write to the sweep folder {folder} ({error.strerror}): choose another --out"
        ) from error
    with lock:
        try:
            hold(lock)
        except BlockingIOError as error:
            raise UserError(f"{folder} is being run by another process: wait for it") from error
        if not resume:
            _check_free(folder)  # again: another process may have completed it meanwhile
        check_plan(folder, sweep, trials)
        yield


def _check_free(folder: Path) -> None:
    """
    Raises:
        FileExistsError: the folder holds more than an aborted start leaves behind.
    """
    if not folder.exists():
        return
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    begun = (folder / RUNS).is_dir() and any((folder / RUNS).iterdir())
    if PLAN in found:
        raise FileExistsError(
            f"{folder} already holds a sweep: --resume finishes what it lacks, or choose another "
            "--out"
        )
    if begun or not found <= {RUNS, OUTCOMES}:
        raise FileExistsError(f"{folder} already holds something: choose another --out")


def check_plan(folder: Path, sweep: Sweep, trials: Sequence[Trial]) -> None:
    """
    Raises:
        UserError: the folder holds trials that are not in this sweep.
    """
    if not (folder / PLAN).exists():
        return
    known = {trial.id for trial in trials}
    before = planned(folder)
    gone = [trial for trial in before.trials() if trial.id not in known]
    if gone:
        raise UserError(
            f"{folder} holds a sweep of another plan ({before.name}): {len(gone)} of its trials "
            f"are not in this one, such as {gone[0].label}. Trials can be added to a sweep, not "
            "taken away: choose another --out, or leave the sweep's name and options out to "
            "resume what is there"
        )


def write_plan(folder: Path, sweep: Sweep) -> None:
    """Call it once every trial is known to be valid."""
    write_text(folder / PLAN, sweep.to_yaml())


def moved(folder: Path, trials: Sequence[Trial]) -> list[str]:
    """Local files of finished trials whose paths have changed since; only their names are known to
    match."""
    return _unlike(folder, trials, LOCAL)


def unmeasured(folder: Path, trials: Sequence[Trial]) -> list[str]:
    """Diagnostics settings that have changed since trials finished."""
    names = type(trials[0].experiment.diagnostics).model_fields
    return _unlike(folder, trials, [f"diagnostics.{name}" for name in names])


def _unlike(folder: Path, trials: Sequence[Trial], fields: Sequence[str]) -> list[str]:
    """Messages about fields in which finished trials and the plan differ."""
    found: dict[str, None] = {}
    for trial in trials:
        if summary_of(folder, trial) is None:
            continue
        before = read_experiment(run_folder(folder, trial)).model_dump()
        now_in = trial.experiment.model_dump()
        for field in fields:
            section, name = field.split(".")
            then, now = before[section].get(name), now_in[section].get(name)
            if then != now:
                found[f"{field} was {then}, now {now}"] = None
    return list(found)


def run_folder(folder: Path, trial: Trial) -> Path:
    return folder / RUNS / trial.id


def summary_of(folder: Path, trial: Trial) -> dict[str, Any] | None:
    """The summary of a trial that ran to its end, else None."""
    summary = read_summary(run_folder(folder, trial))
    return summary if summary and summary["rounds"] == trial.experiment.federation.rounds else None


def add_outcome(
    folder: Path, trial_id: str, status: str, error: str | None, kind: str | None = None
) -> None:
    """Records that a trial has started, or that it ended without finishing.

    Args:
        kind: the name of the exception's class.
    """
    line = json.dumps({"trial": trial_id, "status": status, "error": error, "error_kind": kind})
    with open(folder / OUTCOMES, "a", encoding="utf-8") as file:
        file.write(f"\n{line}")  # a new line, in case a kill left the last one incomplete


def outcomes(folder: Path, trials: Sequence[Trial]) -> dict[str, Ending]:
    """Status of each trial, by id."""
    told = sweep_files.endings(folder)
    found = {}
    for trial in trials:
        done = summary_of(folder, trial) is not None
        found[trial.id] = Ending(FINISHED) if done else told.get(trial.id, Ending(UNFINISHED))
    return found


def missing(folder: Path, trials: Sequence[Trial], early_stopping: bool) -> list[Trial]:
    """Trials still to be run: those that never ended, those that failed, and, without
    ``early_stopping``, those that an earlier start stopped early."""
    standing = outcomes(folder, trials)
    over = {FINISHED, STOPPED} if early_stopping else {FINISHED}
    return [trial for trial in trials if standing[trial.id].status not in over]


def outdate(folder: Path) -> None:
    """Removes the tables, which the runs about to start will make out of date."""
    for name in TABLES:
        (folder / name).unlink(missing_ok=True)


def _as_run(folder: Path, trial: Trial) -> Experiment:
    """What a trial was run with; the plan's diagnostics or resources may have changed since."""
    run = run_folder(folder, trial)
    return read_experiment(run) if (run / files.CONFIG).exists() else trial.experiment


def collect(folder: Path, trials: Sequence[Trial]) -> pd.DataFrame:
    """Writes ``trials.parquet`` and ``rounds.parquet`` from the run folders; returns the trials.

    Both are in plan order, so that two sweeps of the same plan differ only in machine measurements.
    """
    standing = outcomes(folder, trials)
    rows, evaluated = [], []
    for trial in trials:
        run, ending = f"runs/{trial.id}", standing[trial.id]
        row = load.trial_row(_as_run(folder, trial).model_dump(), summary_of(folder, trial))
        how = {"status": ending.status, "error": ending.error, "error_kind": ending.kind}
        rows.append({"run": run, **how, **row})
        if any(True for _ in scan_rows(run_folder(folder, trial) / files.METRICS)):
            evaluated.append(load.evaluated(run_folder(folder, trial)).assign(run=run))
    table = load.as_trials(rows)
    if evaluated:
        rounds = load.one_type(pd.concat(evaluated, ignore_index=True))
        store.write(folder / "rounds.parquet", rounds)
        store.write(folder / "trials.parquet", table)
    return table
