"""``summary.json``: the results of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiso_ray.config import Experiment
from hiso_ray.run_folder import files
from hiso_ray.run_folder.metrics_reader import Row, spoilt_lines
from hiso_ray.run_folder.whole_files import write_text


class Course:
    """Accumulates what a summary needs from the rows, without keeping them.

    Attributes:
        row: the newest row.
    """

    def __init__(self) -> None:
        self.row: Row | None = None
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._at_best: dict[str, float] = {}

    def add(self, row: Row) -> Row:
        """Adds the next row, and returns it."""
        self.row = row
        for name, value in row.items():
            if name.startswith(("eval_", "validation_")) and value is not None:
                if row["round"] == 0:
                    self._first[name] = value
                self._last[name] = value
                if name not in self._best or value > self._best[name]:
                    self._best[name] = value
                    self._at_best[name] = row[name.replace("validation_", "eval_")]
        return row

    def of(self, metric: str, name: str) -> dict[str, float | None]:
        """The initial, final and best value of a metric; None if it was not measured."""
        found = {"initial": self._first, "final": self._last, "best": self._best}
        return {f"{when}_{name}": where.get(f"eval_{metric}") for when, where in found.items()}

    def of_validation(self, metric: str) -> dict[str, float | None]:
        """The final and best value of a metric on the validation examples, and the test value at
        the best one (the earliest of equals); None without validation examples."""
        name = f"validation_{metric}"
        return {
            "final_validation_score": self._last.get(name),
            "best_validation_score": self._best.get(name),
            "score_at_best_validation": self._at_best.get(name),
        }


def summarize(
    experiment: Experiment,
    course: Course,
    *,
    digest: str,
    paper_bytes: int,
    parameters: int,
    actors: int,
    faults: Mapping[str, int],
) -> dict[str, Any]:
    """``summary.json`` of a finished run.

    ``initial_``, ``final_`` and ``best_score`` are values of the run's ``metric``. The same values
    of the accuracy are null for tasks without one; validation scores are null without validation
    examples.

    Args:
        paper_bytes: sent and received by one client, counted by the published tables' rule.
        parameters: weights of the model, trained or not.
        faults: number of faults of each kind.
    """
    metric = experiment.task.metric
    federation, method, last = experiment.federation, experiment.method, course.row
    assert last is not None
    return {
        "method": method.name,
        "curvature": method.curvature,
        "task": experiment.task.name,
        "model": experiment.task.model,
        "seed": experiment.seed,
        "rounds": last["round"],
        "metric": metric,
        **course.of(metric, "score"),
        **course.of("accuracy", "accuracy"),
        **course.of_validation(metric),
        "uplink_bytes": last["uplink_bytes"],
        "downlink_bytes": last["downlink_bytes"],
        "paper_bytes_per_client": paper_bytes,
        "initial_model_bytes_per_client": 4 * parameters,
        "ray_bytes": last["ray_bytes"],
        "forward_passes": last["forward_passes"],
        "model_sha256": digest,
        "seconds": last["seconds"],
        "simulated_seconds": last["simulated_seconds"],
        "actors": actors,
        "clients": federation.num_clients,
        "epsilon": last["epsilon"],
        "delta": experiment.privacy.delta if experiment.privacy.noise > 0 else None,
        "faults": sum(faults.values()),
        "faults_by_kind": dict(faults),
    }


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    write_text(folder / files.SUMMARY, json.dumps(summary, indent=2) + "\n")


def read_summary(folder: Path) -> dict[str, Any] | None:
    """A run folder's ``summary.json``; None if it is missing or cannot be read."""
    try:
        summary = json.loads((folder / files.SUMMARY).read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return summary if isinstance(summary, dict) and "rounds" in summary else None


def spoilt(folder: Path) -> list[str]:
    """Messages about what cannot be read of a run folder's table and summary."""
    lines = spoilt_lines(folder / files.METRICS)
    found = [f"{folder / 'metrics.csv'}: line {n} is no row of it: left out" for n in lines[:3]]
    if len(lines) > 3:
        found.append(f"and {len(lines) - 3} lines more")
    if (folder / files.SUMMARY).exists() and read_summary(folder) is None:
        found.append(f"{folder / 'summary.json'} cannot be read: taken as missing")
    return found
