"""One trial, in its own process: an ordinary run that reports its progress to Ray Tune."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from hiso_ray import Experiment, resume, run
from hiso_ray.errors import TurnFailed, UserError
from hiso_ray.execution.cluster.shared import SharedTask
from hiso_ray.run_folder import files
from hiso_ray.run_folder.metrics_reader import Row


@dataclass(frozen=True)
class Assignment:
    """What a trial runs and where."""

    experiment: Experiment
    folder: Path
    task: SharedTask


def run_trial(config: dict[str, Any], assignments: ray.ObjectRef) -> None:
    """Ray Tune's trainable: starts a run, or resumes an interrupted one.

    A run that fails is reported as a result, ``failed``. Tune sees an error, and retries, only if
    a process or a node died.

    Args:
        config: the trial's id, as ``trial``.
        assignments: of every trial, by id, in the object store.
    """
    assignment: Assignment = ray.get(assignments)[config["trial"]]
    try:
        summary = _run(assignment)
    except (UserError, OSError, TurnFailed) as error:
        tune.report({"failed": str(error) or repr(error), "error_kind": type(error).__name__})
    except Exception as error:
        tune.report({"failed": traceback.format_exc(), "error_kind": type(error).__name__})
    else:
        tune.report({"round": summary["rounds"], "score": summary["final_score"], "finished": True})


def _run(assignment: Assignment) -> dict[str, Any]:
    experiment, folder, task = assignment.experiment, assignment.folder, assignment.task

    def on_round(row: Row) -> None:
        if row["eval_loss"] is not None and row["round"] < experiment.federation.rounds:
            score = row[f"eval_{experiment.task.metric}"]
            tune.report({"round": row["round"], "score": score})

    notes: list[str] = []
    try:
        if not (folder / files.LEDGER).exists():
            return run(experiment, folder, on_round, notes.append, task)
        changes = {  # the plan's may have changed
            name: value
            for name, value in experiment.dotted().items()
            if name.startswith(("tracking", "resources.", "diagnostics."))
        }
        return resume(folder, on_round, notes.append, changes, task)
    finally:
        if folder.is_dir():
            with open(folder / "trial-notes.txt", "a", encoding="utf-8") as file:
                file.writelines(f"{note}\n" for note in notes)
