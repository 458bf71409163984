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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.ledger import Ledger, LedgerError, Record
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
        loss: mean over examples.
        accuracy: correct / total.
        statistics: of the update and of H.
    """

    loss: float
    accuracy: float
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
    loss, correct, count = 0.0, 0, 0
    for score in scores:
        loss += score.loss_sum
        correct += score.correct
        count += score.total
    return Evaluation(loss / count, correct / count, statistics)


def open_ledger(
    folder: Path, identity: dict[str, str], description: Description, on_note: OnNote
) -> Ledger:
    """The run's ledger, created on its first start.

    Args:
        identity: digests of the configuration, x_0 and the data.

    Raises:
        LedgerError: the ledger belongs to another run, or its directions cannot be rebuilt here.
    """
    path = folder / "ledger.jsonl"
    if not path.exists():
        return Ledger.create(path, identity | asdict(description))
    ledger = Ledger.open(path)
    for note in check_header(ledger.header, identity, description):
        on_note(note)
    if ledger.dropped_bytes:
        on_note(f"dropped a torn record of {ledger.dropped_bytes} bytes at the ledger's end")
    return ledger


def check_header(
    header: dict[str, Any], identity: dict[str, str], description: Description
) -> list[str]:
    """Compares a ledger's header with what is here; returns differences that may change bits.

    Raises:
        LedgerError: a difference that makes replay wrong.
    """
    for name, value in identity.items():
        if header[name] != value:
            raise LedgerError(
                f"the ledger was written with another {name.removesuffix('_sha256')}: "
                f"{header[name][:12]} there, {value[:12]} here"
            )
    if header["generator"] != description.generator:
        raise LedgerError(
            f"the ledger's directions come from {header['generator']}, here they would come from "
            f"{description.generator}: replay where it was written, or the weights would differ"
        )
    here = asdict(description)
    return [
        f"{name}: {header[name]} when written, {here[name]} here; results may differ in their bits"
        for name in ("device", "torch", "threads")
        if header[name] != here[name]
    ]


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
    federation, method = experiment.federation, experiment.method
    if experiment.resources.gpus_per_client > 0 and executor.description.device == "cpu":
        on_note("GPUs were asked for, but torch sees none here: computing on CPUs")
    ledger = open_ledger(folder, identity, executor.description, on_note)
    traffic = Traffic(experiment)
    for record in ledger.records:
        traffic.count(record)
    rows = [r for r in read_rows(folder / "metrics.csv") if r["round"] <= len(ledger.records)]
    metrics = MetricsFile(folder, rows)
    seconds = rows[-1]["seconds"] if rows else 0.0
    ray_bytes = rows[-1]["ray_bytes"] if rows else 0
    started = time.perf_counter()

    def report(train_loss: float | None) -> None:
        done = len(ledger.records)
        row: Row = dict.fromkeys(
            ("round", "train_loss", "eval_loss", "eval_accuracy"), None
        )  # the order of the columns
        if done % experiment.eval.every == 0 or done == federation.rounds:
            result = executor.evaluate(ledger.records)
            if not math.isfinite(result.loss):
                raise NonFiniteLoss(
                    f"non-finite evaluation loss after round {done}; lower method.lr (now "
                    f"{method.lr:g})"
                )
            row |= {"eval_loss": result.loss, "eval_accuracy": result.accuracy}
            row |= result.statistics
        row |= {
            "round": done,
            "train_loss": train_loss,
            "uplink_bytes": traffic.up,
            "downlink_bytes": traffic.down,
            "seconds": round(seconds + time.perf_counter() - started, 6),
            "ray_bytes": ray_bytes + executor.message_bytes,
            "forward_passes": traffic.forwards,
        }
        rows.append(row)
        metrics.add(row)
        on_row(row)

    try:
        if not rows or rows[-1]["round"] < len(ledger.records):
            report(ledger.records[-1].train_loss if ledger.records else None)
        for r in range(len(ledger.records), federation.rounds):
            clients = cohort(
                experiment.seed, r, federation.num_clients, federation.clients_per_round
            )
            seeds = step_seeds(experiment.seed, r, federation.local_steps)
            scalars, loss = average(executor.turns(ledger.records, clients, seeds), clients)
            record = Record(
                round=r,
                cohort=tuple(map(int, clients)),
                seeds=seeds,
                scalars=tuple(tuple(map(float, step)) for step in scalars),
                lr=method.lr,
                mu=method.mu,
                hessian_retention=method.hessian_retention,
                hessian_eps=method.hessian_eps,
                train_loss=loss,
            )
            ledger.append(record)
            traffic.count(record)
            report(loss)
        summary = summarize(
            experiment,
            rows,
            digest=executor.digest(ledger.records),
            dimension=executor.description.dimension,
            actors=executor.actors,
            faults=len((folder / "faults.jsonl").read_text(encoding="utf-8").splitlines()),
        )
        write_summary(folder, summary)
        return summary
    finally:
        ledger.close()
        metrics.close()
