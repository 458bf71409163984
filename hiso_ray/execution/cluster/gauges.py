"""Exports the run's numbers to Ray's metrics page, and so to its dashboard."""

from __future__ import annotations

from pathlib import Path

from ray.util.metrics import Gauge

from hiso_ray.execution.cluster.labels import label_of
from hiso_ray.run_folder import faults
from hiso_ray.run_folder.metrics_reader import Row

NAMES = {
    "hiso_round": "rounds done",
    "hiso_train_loss": "mean loss of the last cohort, before its update",
    "hiso_score": "the task's metric at the last evaluation",
    "hiso_rounds_per_second": "rounds per second between the last two evaluations",
    "hiso_faults": "faults survived",
}


class Gauges:
    """Prometheus gauges, tagged with the run folder's name."""

    def __init__(self, folder: Path, metric: str) -> None:
        self._folder, self._metric = folder, metric
        self._tags = {"run": label_of(folder)}
        self._gauges = {name: Gauge(name, text, ("run",)) for name, text in NAMES.items()}
        self._before: Row | None = None  # the row of the last evaluation

    def show(self, row: Row) -> None:
        """Shows one row of ``metrics.csv``."""
        found = {"hiso_round": row["round"], "hiso_train_loss": row["train_loss"]}
        if row["eval_loss"] is not None:
            found["hiso_score"] = row.get(f"eval_{self._metric}")
            found["hiso_faults"] = sum(faults.by_kind(self._folder).values())
            if self._before is not None and row["seconds"] > self._before["seconds"]:
                rounds = row["round"] - self._before["round"]
                found["hiso_rounds_per_second"] = rounds / (
                    row["seconds"] - self._before["seconds"]
                )
            self._before = row
        for name, value in found.items():
            if value is not None:
                self._gauges[name].set(value, self._tags)
