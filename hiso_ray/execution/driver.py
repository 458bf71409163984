"""The round loop: sample, ask for turns, average, append, evaluate. It never holds weights.

Data flow of round r, and who waits for whom::

    driver    cohort, seeds = f(run seed, r)            waits for nothing
    executor  missed records + turns -> clients         all replicas catch up to x_r, H_r
    clients   τ×P scalars each                          driver waits for the whole cohort
    driver    ḡ = mean in client-id order; append       round r+1 waits for the disk
    executor  every k rounds: score the evaluation set  driver waits for all shards

The same loop runs in this process with the serial executor and inside the driver actor on Ray.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.execution.header import open_ledger
from hiso_ray.ledger import Record
from hiso_ray.messages import Description, NonFiniteLoss, Score, Turn
from hiso_ray.metrics import MetricsFile, Row, Traffic, read_rows, summarize, write_summary
from hiso_ray.sampling import cohort
from hiso_ray.seeds import step_seeds

OnRow = Callable[[Row], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """The whole evaluation set at one round.

    Attributes:
        loss: mean over examples, or for generation over the tokens of their answers.
        metrics: mean over examples of each of the task's metrics; accuracy is correct / total.
        statistics: of the update and of H.
    """

    loss: float
    metrics: dict[str, float]
    statistics: dict[str, float]


class Executor(Protocol):
    """What the loop asks for. ``records`` are all records so far; x_r is their fold."""

    description: Description
    actors: int
    message_bytes: int

    def turns(
        self, records: Sequence[Record], clients: np.ndarray, seeds: Sequence[int]
    ) -> Iterable[Turn]:
        """The turns of a cohort, in any order."""
        ...

    def evaluate(self, records: Sequence[Record]) -> Evaluation: ...

    def digest(self, records: Sequence[Record]) -> str:
        """SHA-256 of the weights."""
        ...


def total(scores: Iterable[Score], statistics: dict[str, float]) -> Evaluation:
    """Sums evaluation batches, which must come in batch order."""
    loss, terms, examples = 0.0, 0, 0
    points: dict[str, float] = {}
    for score in scores:
        loss += score.loss
        terms += score.terms
        examples += score.examples
        for name, value in score.points.items():
            points[name] = points.get(name, 0.0) + value
    return Evaluation(
        loss / terms, {name: value / examples for name, value in points.items()}, statistics
    )


def average(turns: Iterable[Turn], clients: np.ndarray) -> tuple[np.ndarray, float]:
    """The cohort's mean scalars and loss, summed in client-id order whatever order they came in.

    Returns:
        ḡ (τ, P), float32 values summed in float64 and rounded once; mean loss.
    """
    by_client = {turn.client: turn for turn in turns}
    ordered = [by_client[int(client)] for client in clients]
    total = np.zeros(ordered[0].scalars.shape)
    loss = 0.0
    for turn in ordered:
        total += turn.scalars
        loss += float(turn.losses.mean())
    return (total / len(ordered)).astype(np.float32), loss / len(ordered)


def run_rounds(
    experiment: Experiment,
    folder: Path,
    identity: dict[str, str],
    executor: Executor,
    on_row: OnRow,
    on_note: OnNote,
) -> dict[str, Any]:
    """Runs every round that the ledger in ``folder`` does not hold yet; returns the summary.

    Starting and resuming are the same thing: the ledger says where the federation stands.
    """
    if experiment.resources.gpus_per_client > 0 and executor.description.device == "cpu":
        on_note("GPUs were asked for, but torch sees none here: computing on CPUs")
    ledger = open_ledger(folder, identity, executor.description, on_note)
    reports = _Reports(experiment, folder, executor, ledger.records, on_row)
    try:
        reports.catch_up()
        for round_ in range(len(ledger.records), experiment.federation.rounds):
            ledger.append(_next_record(experiment, round_, ledger.records, executor))
            reports.add()
        summary = summarize(
            experiment,
            reports.rows,
            digest=executor.digest(ledger.records),
            parameters=executor.description.dimension + executor.description.frozen,
            actors=executor.actors,
            faults=len((folder / "faults.jsonl").read_text(encoding="utf-8").splitlines()),
        )
        write_summary(folder, summary)
        return summary
    finally:
        ledger.close()
        reports.close()


def _next_record(
    experiment: Experiment, round_: int, records: Sequence[Record], executor: Executor
) -> Record:
    """One round: cohort and seeds, turns, the average."""
    federation, method = experiment.federation, experiment.method
    clients = cohort(experiment.seed, round_, federation.num_clients, federation.clients_per_round)
    seeds = step_seeds(experiment.seed, round_, federation.local_steps)
    scalars, loss = average(executor.turns(records, clients, seeds), clients)
    return Record(
        round=round_,
        cohort=tuple(map(int, clients)),
        seeds=seeds,
        scalars=tuple(tuple(map(float, step)) for step in scalars),
        lr=method.lr,
        mu=method.mu,
        hessian_retention=method.hessian_retention,
        hessian_eps=method.hessian_eps,
        train_loss=loss,
    )


class _Reports:
    """The rows of ``metrics.csv``: one a round, with the evaluation every ``eval.every`` rounds.

    Bytes and forward passes are folded from the records; seconds and Ray's bytes go on from where
    an interrupted run left them.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        executor: Executor,
        records: Sequence[Record],
        on_row: OnRow,
    ) -> None:
        self.experiment, self.executor, self.records = experiment, executor, records
        self.on_row = on_row
        found = read_rows(folder / "metrics.csv")
        self.rows = [row for row in found if row["round"] <= len(records)]
        self.traffic = Traffic(experiment)
        self.counted = 0
        self.file = MetricsFile(folder, self.rows)
        before = self.rows[-1] if self.rows else {"seconds": 0.0, "ray_bytes": 0}
        self.seconds_before, self.bytes_before = before["seconds"], before["ray_bytes"]
        self.started = time.perf_counter()

    def catch_up(self) -> None:
        """The row of round 0, or of a round whose record was written and whose row was not."""
        if not self.rows or self.rows[-1]["round"] < len(self.records):
            self.add()

    def add(self) -> None:
        """Evaluates if it is time, and adds the row of the newest round.

        Raises:
            NonFiniteLoss: the evaluation loss is not finite.
        """
        done, experiment = len(self.records), self.experiment
        for record in self.records[self.counted :]:
            self.traffic.count(record)
        self.counted = done
        row: Row = {
            "round": done,
            "train_loss": self.records[-1].train_loss if done else None,
            "eval_loss": None,
        }
        if done % experiment.eval.every == 0 or done == experiment.federation.rounds:
            result = self.executor.evaluate(self.records)
            if not math.isfinite(result.loss):
                raise NonFiniteLoss(
                    f"non-finite evaluation loss after round {done}; lower method.lr (now "
                    f"{experiment.method.lr:g})"
                )
            row["eval_loss"] = result.loss
            row |= {f"eval_{name}": value for name, value in result.metrics.items()}
            row |= result.statistics
        row |= {
            "uplink_bytes": self.traffic.up,
            "downlink_bytes": self.traffic.down,
            "seconds": round(self.seconds_before + time.perf_counter() - self.started, 6),
            "ray_bytes": self.bytes_before + self.executor.message_bytes,
            "forward_passes": self.traffic.forwards,
        }
        self.rows.append(row)
        self.file.add(row)
        self.on_row(row)

    def close(self) -> None:
        self.file.close()
