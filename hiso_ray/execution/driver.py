"""The round loop: sample, ask for turns, average, append, evaluate. It never holds weights.

Data flow of round r, and who waits for whom::

    driver    cohort, who answers, seeds = f(run seed, r)  waits for nothing
    executor  missed records + turns -> clients            all replicas catch up to x_r, H_r
    clients   τ×P scalars each                             driver waits for the whole cohort
    driver    ḡ = mean in client-id order; append          round r+1 waits for the disk
    executor  every k rounds: score the evaluation set     driver waits for all shards

The same loop runs in this process with the serial executor and inside the driver actor on Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hiso_ray.attendance import Population, attend
from hiso_ray.config import Experiment
from hiso_ray.execution import faults
from hiso_ray.execution.header import open_ledger
from hiso_ray.execution.history import History
from hiso_ray.execution.reports import Reports
from hiso_ray.ledger import Ledger, Record
from hiso_ray.messages import Description, Score, Snapshot, Turn, TurnFailed
from hiso_ray.metrics import Row, summarize, write_summary
from hiso_ray.sampling import cohort
from hiso_ray.seeds import step_seeds
from hiso_ray.traffic import Traffic, write_clients

OnRow = Callable[[Row], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One federation to be run.

    Attributes:
        folder: the run folder.
        identity: digests for the ledger's header.
    """

    experiment: Experiment
    folder: Path
    identity: dict[str, str]
    population: Population


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
    """What the loop asks for, always of x_r: the fold of a history of r records."""

    description: Description
    actors: int

    @property
    def message_bytes(self) -> int:
        """Serialized messages so far."""
        ...

    def turns(self, history: History, clients: np.ndarray, seeds: Sequence[int]) -> Iterable[Turn]:
        """The turns of a cohort, in any order."""
        ...

    def evaluate(self, history: History) -> Evaluation: ...

    def digest(self, history: History) -> str:
        """SHA-256 of the weights."""
        ...

    def snapshot(self, history: History) -> Snapshot | str:
        """Writes x_r and H_r into the history's folder, or says why nobody could."""
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


def run_rounds(job: Job, executor: Executor, on_row: OnRow, on_note: OnNote) -> dict[str, Any]:
    """Runs every round that the job's ledger does not hold yet; returns the summary.

    Starting and resuming are the same thing: the ledger says where the federation stands.

    Raises:
        UserError: the run folder cannot be written to; the ledger is whole.
        LedgerError: the ledger is corrupt, another run's, or cannot be opened for writing.
    """
    if job.experiment.resources.gpus_per_client not in (
        0,
        "auto",
    ) and executor.description.device.startswith("cpu"):
        on_note("GPUs were asked for, but torch sees none here: computing on CPUs")
    ledger = open_ledger(job.folder, job.identity, executor.description, on_note)
    try:
        return _rounds(job, ledger, executor, on_row, on_note)
    finally:
        ledger.close()


def _rounds(
    job: Job, ledger: Ledger, executor: Executor, on_row: OnRow, on_note: OnNote
) -> dict[str, Any]:
    experiment, folder, population = job.experiment, job.folder, job.population
    history = History(ledger, folder / "snapshots", on_note)
    traffic = Traffic(experiment)
    for record in ledger.scan():
        traffic.count(record)
    with history.writing():
        reports = Reports(experiment, folder, history, traffic, executor, on_row)

    def finish() -> None:
        reports.close()
        write_clients(folder / "clients.csv", traffic, population.sizes, population.devices)

    keeper = _Keeper(experiment.resources.snapshot_every, executor, on_note)
    try:
        reports.catch_up()
        for round_ in range(history.round, experiment.federation.rounds):
            record = _next_record(job, round_, history, traffic, executor)
            history.append(record)
            traffic.count(record)
            reports.add(record)
            keeper.after_round(history)
        summary = summarize(
            experiment,
            reports.course,
            digest=executor.digest(history),
            parameters=executor.description.dimension + executor.description.frozen,
            actors=executor.actors,
            faults=faults.count(folder),
        )
    except BaseException:
        with suppress(OSError):  # what stopped the run is what must be told
            finish()
        raise
    with history.writing():
        finish()
        write_summary(folder, summary)
    return summary


def _next_record(
    job: Job, round_: int, history: History, traffic: Traffic, executor: Executor
) -> Record:
    """One round: cohort and seeds, who answers, their turns, the average."""
    experiment, population = job.experiment, job.population
    federation, method = experiment.federation, experiment.method
    clients = cohort(experiment.seed, round_, federation, population.sizes)
    seeds = step_seeds(experiment.seed, round_, federation.local_steps)
    present = attend(experiment, population.devices, round_, clients, traffic.missed(clients))
    answered = np.array(present.answered, np.int64)
    scalars, loss = None, None
    if len(answered):
        scalars, loss = average(executor.turns(history, answered, seeds), answered)
    return Record(
        round=round_,
        cohort=present.answered,
        seeds=seeds,
        scalars=() if scalars is None else tuple(tuple(map(float, step)) for step in scalars),
        lr=method.lr,
        mu=method.mu,
        hessian_retention=method.hessian_retention,
        hessian_eps=method.hessian_eps,
        train_loss=loss,
        dropped=present.dropped,
        late=present.late,
        seconds=present.seconds,
    )


class _Keeper:
    """Has a snapshot written every so many rounds; a run goes on without where that fails."""

    def __init__(self, every: int, executor: Executor, on_note: OnNote) -> None:
        self._every, self._executor, self._on_note = every, executor, on_note

    def after_round(self, history: History) -> None:
        if self._every == 0 or history.round % self._every:
            return
        try:
            written = self._executor.snapshot(history)
        except TurnFailed as error:
            written = str(error).splitlines()[0]
        if isinstance(written, Snapshot) and not written.path.exists():
            written = f"{written.path} was written where the driver cannot see it"
        if isinstance(written, Snapshot):
            history.start_from(written)
        else:
            self._every = 0
            self._on_note(
                f"no snapshot ({written}), and no more will be tried: actors that restart replay "
                "every round, and all records stay in memory"
            )
