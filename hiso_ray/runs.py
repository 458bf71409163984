"""A run and its folder: start one, go on with it, rebuild its weights.

``run`` is what the command line, sweeps and notebooks call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hiso_ray import devices, opening, run_folder, tasks
from hiso_ray.attendance import Population, describe
from hiso_ray.config import Experiment
from hiso_ray.config.fits import check_dimension
from hiso_ray.errors import UserError
from hiso_ray.execution.contract import Job, OnNote, OnRow
from hiso_ray.execution.driver import run_rounds
from hiso_ray.execution.header import (
    check_evaluation,
    check_header,
    check_identity,
    identity_of,
    other_evaluation,
)
from hiso_ray.execution.weights import WeightServer
from hiso_ray.execution.worker import Worker, torch_threads
from hiso_ray.ledger import Ledger
from hiso_ray.messages import Missed
from hiso_ray.metrics import spoilt
from hiso_ray.outcomes import joined, means, write
from hiso_ray.tasks import evaluation
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.partition import Partition, split
from hiso_ray.traffic import Sizes
from hiso_ray.work_units import work_units

if TYPE_CHECKING:  # it needs ray, the serial executor does not
    from hiso_ray.execution.cluster.shared import SharedTask


def _ignore(_: Any) -> None:
    return None


def run(
    experiment: Experiment | None = None,
    out: Path | str | None = None,
    on_round: OnRow = _ignore,
    on_note: OnNote = _ignore,
    task: SharedTask | None = None,
) -> dict[str, Any]:
    """Runs one federation and returns its summary (also ``summary.json`` in the run folder).

    Args:
        experiment: what to run; the embedded default job when left out.
        out: the run folder, new or empty; by default ``runs/TASK-METHOD-seedN-TIME``.
        on_round: called with each row of ``metrics.csv`` as it is made.
        on_note: called with lines worth telling the user (data, skew, placement).
        task: the prepared task, where it is in Ray's object store already, for many runs.

    Raises:
        UserError: something in the experiment does not fit, in words; or all evaluation examples
            are training examples too.
        TurnFailed: a client failed again and again; names it, the round and the step.
        FileExistsError: ``out`` already holds something, or a run is being started there.
    """
    experiment = devices.resolve(tasks.resolve(experiment or Experiment()))
    prepared, partition = _load(experiment, task)
    seen = evaluation.seen(experiment.task, prepared)
    population = _population(experiment, partition)
    check_dimension(experiment, prepared.x0.size)
    sizes = Sizes(experiment, prepared.x0.size)
    clock = [f"virtual clock: {line}" for line in describe(sizes, population.devices)]
    with run_folder.named(experiment, out) as path, run_folder.started(experiment, path) as folder:
        counts = partition.label_counts(prepared.labels, len(prepared.label_names))
        for note in (
            *prepared.notes,
            *seen,
            opening.model(experiment, prepared),
            opening.partition(counts),
            *clock,
            opening.memory(experiment, prepared),
            *opening.probes(experiment, prepared),
            *opening.precision(experiment),
            *opening.signs(experiment),
        ):
            on_note(note)
        return _execute(
            experiment, folder, prepared, partition, population, on_round, on_note, task
        )


def resume(
    folder: Path | str,
    on_round: OnRow = _ignore,
    on_note: OnNote = _ignore,
    changes: Mapping[str, Any] | None = None,
    task: SharedTask | None = None,
) -> dict[str, Any]:
    """Goes on with an interrupted run, from its ledger to the same end.

    Args:
        changes: dotted fields to change: ``federation.rounds`` for more rounds, and what decides
            no result (``resources``, ``eval``, ``diagnostics``).
        task: as in :func:`run`.

    Raises:
        UserError: a change that would change the past.
        LedgerError: (a ``UserError``) not a run folder, or its model or data have changed.
    """
    folder = Path(folder).resolve()
    with run_folder.held(folder):
        experiment = run_folder.continued(folder, changes or {})
        experiment = devices.resolve(tasks.resolve(experiment))
        prepared, partition = _load(experiment, task)
        population = _population(experiment, partition)
        check_dimension(experiment, prepared.x0.size)
        if changes:
            identity = identity_of(experiment, prepared, population)
            _take_over(folder, experiment, identity, evaluation.digest(prepared))
        return _execute(
            experiment, folder, prepared, partition, population, on_round, on_note, task
        )


def replay(
    folder: Path | str,
    round_: int | None = None,
    export: Path | str | None = None,
    on_note: OnNote = _ignore,
    outcomes: Path | str | None = None,
) -> dict[str, Any]:
    """Rebuilds the weights of a round from x_0 and the ledger, in this process.

    Args:
        round_: how many records to apply; all of them by default.
        export: a new folder to write the model to (for language tasks, a Hugging Face folder).
        outcomes: a new file to write that round's outcomes to, as ``outcomes.parquet`` has them.

    Returns:
        ``round``, ``model_sha256``, ``eval_loss``, ``eval_METRIC`` for each of the task's metrics
        (with validation examples, ``validation_loss`` and ``validation_METRIC`` as well), and
        ``matches``: whether the digest is the one in ``summary.json`` (None when there is nothing
        to compare with).

    Raises:
        LedgerError: (a ``UserError``) the ledger is corrupt or does not fit what is here.
        UserError: a round that the ledger does not reach.
        FileExistsError: ``export`` or ``outcomes`` exists.
    """
    folder = Path(folder)
    experiment = run_folder.read_experiment(folder)
    ledger = Ledger.read(folder / "ledger.jsonl")
    if ledger.dropped_bytes:
        on_note(f"left out a torn record of {ledger.dropped_bytes} bytes at the ledger's end")
    done = ledger.round
    upto = done if round_ is None else round_
    if not 0 <= upto <= done:
        raise UserError(f"round {upto}: the ledger holds {done} rounds, choose 0 to {done}")
    if export is not None and Path(export).exists():
        raise FileExistsError(f"{export} exists; choose a new folder to export to")
    if outcomes is not None and Path(outcomes).exists():
        raise FileExistsError(f"{outcomes} exists; choose a new file to write outcomes to")
    prepared, partition = tasks.load(experiment)
    identity = identity_of(experiment, prepared, _population(experiment, partition))
    with torch_threads(experiment):
        worker = Worker(experiment, prepared, partition)
        description = worker.describe()
        for note in check_header(ledger.header, identity, description):
            on_note(note)
        if said := other_evaluation(ledger.header, evaluation.digest(prepared)):
            on_note(f"{said}; the weights are the run's, and their scores are of these")
        _rebuild(worker, prepared.x0, ledger, upto)
        score = joined(worker.scores(range(description.eval_batches)))
        digest = worker.digest()
        if export is not None:
            worker.replica.task.export(worker.replica.state.x, Path(export))
    validation = experiment.task.validation_examples
    if outcomes is not None:
        write(
            Path(outcomes),
            score,
            validation,
            round_=upto,
            model_sha256=digest,
            evaluation_sha256=evaluation.digest(prepared),
        )
    for line in spoilt(folder):
        on_note(line)
    recorded = run_folder.recorded_digest(folder, upto)
    return {
        "round": upto,
        "model_sha256": digest,
        **means(score, validation),
        "matches": None if recorded is None else recorded == digest,
    }


def _rebuild(worker: Worker, x0: np.ndarray, ledger: Ledger, upto: int) -> None:
    """Brings a worker from x_0 to the end of so many records: by applying them, or, where they are
    of a method that sends weights, by running their rounds again."""
    experiment = worker.replica.experiment
    if not experiment.sends_weights:
        for number, record in enumerate(ledger.scan(0, upto)):
            worker.catch_up(Missed(number + 1, [record]))
        return
    server = WeightServer(experiment, x0, np.diff(worker.partition.offsets))
    for record in ledger.scan(0, upto):
        turns = worker.turns(work_units(experiment, record.cohort), record.seeds)
        server.again(record, [turn for some in turns for turn in some])
        worker.catch_up(Missed(server.round, (), weights=server.x))


def _execute(
    experiment: Experiment,
    folder: Path,
    prepared: Prepared,
    partition: Partition,
    population: Population,
    on_round: OnRow,
    on_note: OnNote,
    task: SharedTask | None,
) -> dict[str, Any]:
    _show_partition(folder, prepared, partition, on_note)
    identity = identity_of(experiment, prepared, population)
    job = Job(experiment, folder, identity, population, evaluation.digest(prepared))
    if experiment.resources.executor == "serial":
        from hiso_ray.execution.serial import SerialExecutor

        with torch_threads(experiment):
            executor = SerialExecutor(experiment, prepared, partition, on_note)
            on_note(f"{partition.num_clients} clients, one after the other, in this process")
            summary = run_rounds(job, executor, on_round, on_note)
    else:
        from hiso_ray.execution.cluster.session import run_on_ray

        summary = run_on_ray(job, prepared, partition, on_round, on_note, task)
    with _pictures(on_note):
        from hiso_ray.analysis.curves import convergence

        convergence([folder], folder / "convergence.png")
    return summary


def _take_over(
    folder: Path, experiment: Experiment, identity: dict[str, str], evaluation_sha256: str
) -> None:
    """Writes a changed configuration, once it is known to fit and nobody else runs the folder."""
    if not (folder / "ledger.jsonl").exists():
        run_folder.write_experiment(folder, experiment)
        return
    ledger = Ledger.open(folder / "ledger.jsonl")
    try:
        check_identity(ledger.header, identity)
        check_evaluation(ledger.header, evaluation_sha256)
        run_folder.write_experiment(folder, experiment)
    finally:
        ledger.close()


def _load(experiment: Experiment, task: SharedTask | None) -> tuple[Prepared, Partition]:
    if task is None:
        return tasks.load(experiment)
    prepared = task.fetch()
    return prepared, split(experiment.federation, prepared.labels, experiment.seed)


def _population(experiment: Experiment, partition: Partition) -> Population:
    return Population(np.diff(partition.offsets), devices.load(experiment))


def _show_partition(
    folder: Path, prepared: Prepared, partition: Partition, on_note: OnNote
) -> None:
    """``partition.csv`` and its picture, unless they are there."""
    if (folder / "partition.csv").exists():
        return
    counts = partition.label_counts(prepared.labels, len(prepared.label_names))
    run_folder.write_partition(folder / "partition.csv", counts, prepared.label_names)
    with _pictures(on_note):
        from hiso_ray.analysis.skew import who_holds_what

        who_holds_what(folder, folder / "partition.png")


@contextmanager
def _pictures(on_note: OnNote) -> Iterator[None]:
    """A picture that cannot be drawn must not end a run."""
    try:
        yield
    except Exception as error:
        on_note(f"a picture could not be drawn ({type(error).__name__}: {error})")
