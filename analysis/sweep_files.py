"""What a sweep folder says of its trials, to readers that have only the files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hiso_ray import config
from hiso_ray.errors import UserError
from hiso_ray.run_folder import files

PLAN, OUTCOMES, RUNS = "plan.yaml", "outcomes.jsonl", "runs"
FINISHED, FAILED, STOPPED, UNFINISHED = "finished", "failed", "stopped", "unfinished"


class Ending(NamedTuple):
    """Status of a trial.

    Attributes:
        error, kind: the error's text and the exception's name, if the trial failed.
    """

    status: str
    error: str | None = None
    kind: str | None = None


def kind_of(path: Path) -> Literal["run", "sweep"]:
    """
    Raises:
        UserError: the path is missing, or neither kind of folder.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: give run folders or sweep folders")
    if (path / PLAN).exists():
        return "sweep"
    if (path / files.CONFIG).exists():
        return "run"
    raise UserError(
        f"{path} is neither a run folder (config.yaml) nor a sweep folder (plan.yaml): give one of "
        "these, such as runs/NAME"
    )


def begun(folder: Path) -> list[Path]:
    """The run folders of trials that have begun, in the order of their names."""
    return sorted(path.parent for path in (folder / RUNS).glob(f"*/{files.CONFIG}"))


def sweep_of(run: Path) -> Path | None:
    """The sweep folder that a run folder is a trial of; None if it is not one."""
    place = run.resolve().parent
    if place.name != RUNS or not (place.parent / PLAN).exists():
        return None
    short = not run.is_absolute() and place.parent.is_relative_to(Path.cwd())
    return place.parent.relative_to(Path.cwd()) if short else place.parent


def planned(folder: Path) -> tuple[str, int]:
    """A sweep's name and number of trials: its arms times the values of each axis.

    The trials themselves are not resolved: that needs their files, which a copy's machine may lack.

    Raises:
        UserError: ``plan.yaml`` is not a sweep's.
    """
    plan: dict[str, Any] = config.read_yaml(folder / PLAN)
    try:
        axes = plan.get("grid", {}).values()
        return str(plan["name"]), len(plan.get("arms", [{}])) * math.prod(map(len, axes))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / PLAN} is no sweep's plan ({error!r}): restore it, or show the run folders "
            "in runs/ one by one"
        ) from error


def endings(folder: Path) -> dict[str, Ending]:
    """How trials ended that did not finish, by id; ``outcomes.jsonl`` has it."""
    told: dict[str, Ending] = {}
    path = folder / OUTCOMES
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            outcome = json.loads(line)
            kind = outcome.get("error_kind")  # missing in older folders
            told[outcome["trial"]] = Ending(outcome["status"], outcome["error"], kind)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # incomplete after a kill, or foreign: the trial is unfinished
    return told
