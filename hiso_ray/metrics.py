"""One round -> one row; the run folder's tables and the summary.

Bytes are counted by three rules, never mixed:

- *protocol* (``uplink_bytes``, ``downlink_bytes``; cumulative over all clients): up, the τ·P
  float32 scalars of each sampled client; down, to each sampled client, the request (τ seeds of
  8 bytes, lr and μ of 4) and every record it missed since its last turn (the same, plus τ·P
  scalars of 4). The initial model is a line of its own in the summary: every method pays it once.
- *paper* (``paper_bytes_per_client``): rounds × 2 × P × τ × 4, the rule of the published tables.
- *ray* (``ray_bytes``): the serialized messages between the driver and the client actors.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hiso_ray.config import Experiment, MethodConfig
from hiso_ray.ledger import Record

COLUMNS = (
    "round", "train_loss", "eval_loss", "eval_accuracy", "uplink_bytes", "downlink_bytes",
    "seconds", "ray_bytes", "forward_passes", "update_norm", "h_min", "h_median", "h_max",
    "eval_exact_match", "eval_f1", "eval_rouge1", "eval_rouge2", "eval_rougeL",
)  # fmt: skip
Row = dict[str, Any]


def uplink_bytes(local_steps: int, perturbations: int) -> int:
    """What one sampled client sends up."""
    return 4 * local_steps * perturbations


def request_bytes(local_steps: int) -> int:
    """What asks one sampled client for its turn."""
    return 8 * local_steps + 4 + 4


def record_bytes(local_steps: int, perturbations: int) -> int:
    """One missed record."""
    return request_bytes(local_steps) + 4 * local_steps * perturbations


def paper_bytes_per_client(rounds: int, local_steps: int, perturbations: int) -> int:
    """The byte rule behind the published tables (REFERENCE: HiSo tables; up + down)."""
    return rounds * 2 * perturbations * local_steps * 4


def forward_passes(method: MethodConfig, local_steps: int) -> int:
    """Of one client's turn, each over one minibatch."""
    p = method.num_perturbations
    return local_steps * (2 * p if method.probe == "central" else p + 1)


@dataclass
class Traffic:
    """Protocol bytes and forward passes so far, as a fold over the records.

    Attributes:
        seen: (num_clients,) the round up to which each client holds the records.
    """

    experiment: Experiment
    up: int = 0
    down: int = 0
    forwards: int = 0
    seen: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.seen = np.zeros(self.experiment.federation.num_clients, np.int64)

    def count(self, record: Record) -> None:
        method, tau = self.experiment.method, len(record.seeds)
        members = np.array(record.cohort)
        self.up += len(members) * uplink_bytes(tau, method.num_perturbations)
        missed = int((record.round - self.seen[members]).sum())
        self.down += len(members) * request_bytes(tau)
        self.down += missed * record_bytes(tau, method.num_perturbations)
        self.seen[members] = record.round
        self.forwards += len(members) * forward_passes(method, tau)


class MetricsFile:
    """``metrics.csv`` and the TensorBoard events beside it; every row is flushed."""

    def __init__(self, folder: Path, keep: Iterable[Row] = ()) -> None:
        """Starts the table with the rows of an interrupted run, if any."""
        from tensorboardX import SummaryWriter

        path, fresh = folder / "metrics.csv", folder / "metrics.csv.new"
        with open(fresh, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(keep)
        fresh.replace(path)  # whole or not at all
        self._file = open(path, "a", newline="", encoding="utf-8")
        self._csv = csv.DictWriter(self._file, COLUMNS)
        self._events = SummaryWriter(str(folder / "tensorboard"))

    def add(self, row: Row) -> None:
        self._csv.writerow(row)
        self._file.flush()
        for name, value in row.items():
            if name != "round" and value is not None:
                self._events.add_scalar(name, value, row["round"])

    def close(self) -> None:
        self._file.close()
        self._events.close()


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics file; empty cells are None, a torn last line is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(whole)]


def _number(text: str) -> float | int | None:
    if text == "":
        return None
    value = float(text)
    return int(value) if text.lstrip("-").isdecimal() else value


def summarize(
    experiment: Experiment,
    rows: Sequence[Row],
    *,
    digest: str,
    parameters: int,
    actors: int,
    faults: int,
) -> dict[str, Any]:
    """``summary.json`` of a finished run.

    ``initial_``, ``final_`` and ``best_score`` are of the run's ``metric``; those of the accuracy
    stand beside them, null for tasks that have none.

    Args:
        parameters: weights of the model, trained or not.
    """
    metric = experiment.task.metric
    federation, method, last = experiment.federation, experiment.method, rows[-1]
    return {
        "method": method.name,
        "curvature": experiment.curvature,
        "task": experiment.task.name,
        "model": experiment.task.model,
        "seed": experiment.seed,
        "rounds": last["round"],
        "metric": metric,
        **_course(rows, metric, "score"),
        **_course(rows, "accuracy", "accuracy"),
        "uplink_bytes": last["uplink_bytes"],
        "downlink_bytes": last["downlink_bytes"],
        "paper_bytes_per_client": paper_bytes_per_client(
            last["round"], federation.local_steps, method.num_perturbations
        ),
        "initial_model_bytes_per_client": 4 * parameters,
        "ray_bytes": last["ray_bytes"],
        "forward_passes": last["forward_passes"],
        "model_sha256": digest,
        "seconds": last["seconds"],
        "actors": actors,
        "clients": federation.num_clients,
        "faults": faults,
    }


def _course(rows: Sequence[Row], metric: str, name: str) -> dict[str, float | None]:
    """A metric at the start, at the end and at its best."""
    found = [row[f"eval_{metric}"] for row in rows if row.get(f"eval_{metric}") is not None]
    first, last, best = (found[0], found[-1], max(found)) if found else (None, None, None)
    return {f"initial_{name}": first, f"final_{name}": last, f"best_{name}": best}


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    new = folder / "summary.json.new"
    new.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    new.replace(folder / "summary.json")  # whole or not at all
