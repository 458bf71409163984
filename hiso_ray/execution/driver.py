"""The round loop: sample, ask for turns, aggregate, append, evaluate.

Data flow of round r, and who waits for whom::

    driver    cohort, who answers, seeds = f(run seed, r)  waits for nothing
    executor  missed records + turns -> clients            all replicas catch up to x_r, H_r
    clients   τ×P scalars each (K, if they project)        driver waits for the whole cohort
    driver    aggregate ḡ in client-id order; append       round r+1 waits for the disk
    executor  every k rounds: score the evaluation set     driver waits for all shards

For the scalar family, the driver never holds weights. For methods that send weights,
``WeightServer`` holds them: the driver sends x_r instead of records and receives weight changes
of d floats instead of scalars.

The same loop runs in this process with the serial executor and inside the driver actor on Ray.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.config.aggregation import shortage
from hiso_ray.config.schedule import record_rate
from hiso_ray.execution.contract import Executor, Job, OnNote, OnRow
from hiso_ray.execution.header import open_ledger
from hiso_ray.execution.history import History
from hiso_ray.execution.keeper import Keeper
from hiso_ray.execution.metrics_rows import MetricsRows
from hiso_ray.federation.attendance import attend
from hiso_ray.federation.sampling import cohort
from hiso_ray.federation.traffic import Traffic, paper_bytes_per_client, write_clients
from hiso_ray.messages import Turn
from hiso_ray.record import Record
from hiso_ray.run_folder import faults, files, outcomes
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.summary import spoilt, summarize, write_summary
from hiso_ray.seeds import step_seeds
from hiso_ray.server.combine import combine, in_order, mean_loss, received
from hiso_ray.server.weights import WeightServer, digest


def run_rounds(job: Job, executor: Executor, on_row: OnRow, on_note: OnNote) -> dict[str, Any]:
    """Runs every round that the job's ledger does not hold yet; returns the summary.

    Starting and resuming are the same operation: the ledger holds the completed rounds.

    Raises:
        UserError: the run folder cannot be written to; the ledger stays intact.
        LedgerError: the ledger is corrupt, another run's, or cannot be opened for writing.
    """
    device, triton = executor.description.device, executor.description.triton
    if device.startswith("cpu") and job.experiment.resources.gpus_per_client not in (0, "auto"):
        on_note("GPUs were asked for, but torch sees none here: computing on CPUs")
    if device.startswith("cuda") and job.experiment.method.generator == "philox" and not triton:
        on_note(
            "Triton is missing: directions are made on the CPU and copied to the GPU, which is "
            "slow and gives the same bits; pip install triton"
        )
    ledger = open_ledger(job, executor.description, on_note)
    try:
        return _rounds(job, ledger, executor, on_row, on_note)
    finally:
        ledger.close()


def _rounds(
    job: Job, ledger: Ledger, executor: Executor, on_row: OnRow, on_note: OnNote
) -> dict[str, Any]:
    experiment, folder, population = job.experiment, job.folder, job.population
    server = None
    if experiment.sends_weights:
        server = WeightServer(experiment, executor.x0(), population.sizes)
    by_client = experiment.method.directions == "per_client"
    history = History(ledger, folder / files.SNAPSHOTS, on_note, server, by_client)
    description = executor.description
    traffic = Traffic(experiment, description.dimension, description.frozen)
    _run_again(history, executor, on_note)
    for line in spoilt(folder):
        on_note(line)
    with history.writing():
        rows = MetricsRows(experiment, folder, history, traffic, executor, on_row)

    def finish() -> None:
        rows.close()
        write_clients(folder / files.CLIENTS, traffic, population.sizes, population.devices)

    keeper = Keeper(experiment, executor, on_note)
    try:
        rows.catch_up()
        for round_ in range(history.round, experiment.federation.rounds):
            record, update = _next_record(job, round_, history, traffic, executor, on_note)
            history.append(record, update)
            traffic.add(record)
            rows.add(record)
            keeper.after_round(history)
        model_sha256, score = executor.digest(history), rows.final_score()
        summary = summarize(
            experiment,
            rows.course,
            digest=model_sha256,
            paper_bytes=paper_bytes_per_client(
                experiment, history.round, executor.description.dimension
            ),
            parameters=executor.description.dimension + executor.description.frozen,
            actors=executor.actors,
            faults=faults.by_kind(folder),
        )
    except BaseException:
        with suppress(OSError):  # keep the error that stopped the run
            finish()
        raise
    with history.writing():
        finish()
        outcomes.write(
            folder / files.OUTCOMES,
            score,
            experiment.task.validation_examples,
            round_=history.round,
            model_sha256=model_sha256,
            evaluation_sha256=job.evaluation_sha256,
        )
        write_summary(folder, summary)
    return summary


def _run_again(history: History, executor: Executor, on_note: OnNote) -> None:
    """Reruns the rounds between the server's newest weights and the ledger's end; there are none
    in the scalar family."""
    server = history.server
    if server is None:
        return
    if server.round < history.ledger.round:
        on_note(
            f"weights of round {server.round} are the newest that were kept: running "
            f"{history.ledger.round - server.round} rounds again"
        )
    while server.round < history.ledger.round:
        record = history.ledger.since(server.round)[0]
        clients = np.array(record.cohort, np.int64)
        turns = executor.turns(history, clients, record.seeds) if len(clients) else ()
        server.again(record, in_order(turns, clients))


def _next_record(
    job: Job,
    round_: int,
    history: History,
    traffic: Traffic,
    executor: Executor,
    on_note: OnNote,
) -> tuple[Record, np.ndarray | None]:
    """Runs one round; returns its record, which holds the scalars, and for methods that send
    weights the mean change of the weights."""
    experiment, population = job.experiment, job.population
    federation, method = experiment.federation, experiment.method
    clients = cohort(experiment.seed, round_, federation, population.sizes)
    seeds = step_seeds(experiment.seed, round_, experiment.record_steps)
    present = attend(traffic.sizes, population.devices, round_, clients, traffic.missed(clients))
    answered = np.array(present.answered, np.int64)
    turns = in_order(executor.turns(history, answered, seeds), answered) if len(answered) else []
    update, scalars = None, np.empty((0, 0, 2), np.float32)
    if turns and history.server is not None:
        update = history.server.mean(turns)
    elif turns:
        scalars = _scalars(experiment, round_, turns, population.sizes[answered], on_note)
    record = Record(
        round=round_,
        cohort=present.answered,
        seeds=seeds,
        scalars=_tuples(scalars[:, :, 0]),
        lr=record_rate(method, round_),
        mu=method.mu,
        hessian_retention=method.hessian_retention,
        hessian_eps=method.hessian_eps,
        train_loss=mean_loss(turns) if turns else None,
        dropped=present.dropped,
        late=present.late,
        seconds=present.seconds,
        second=_tuples(scalars[:, :, 1]) if method.row.second_differences else (),
        momentum=method.momentum,
        update_sha256=None if update is None else digest(update),
    )
    return record, update


def _scalars(
    experiment: Experiment, round_: int, turns: list[Turn], examples: np.ndarray, on_note: OnNote
) -> np.ndarray:
    """See ``combine``; empty if too few clients answered for the aggregation rule."""
    short = shortage(experiment.rule, experiment.aggregation.byzantine, len(turns))
    if short is not None:
        on_note(f"round {round_} moves nothing: {short}")
        return np.empty((0, 0, 2), np.float32)
    return combine(experiment, round_, received(experiment, round_, turns), examples)


def _tuples(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, values.tolist()))
