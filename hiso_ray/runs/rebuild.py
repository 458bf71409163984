"""A run's weights, rebuilt from x_0 and its ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hiso_ray import progress
from hiso_ray.errors import UserError
from hiso_ray.execution.contract import OnNote
from hiso_ray.execution.header import check_header, other_evaluation
from hiso_ray.execution.worker import Worker
from hiso_ray.messages import Missed
from hiso_ray.run_folder import files, mask_file
from hiso_ray.run_folder import folder as folders
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.outcomes import joined, means, write
from hiso_ray.run_folder.summary import spoilt
from hiso_ray.runs import hub
from hiso_ray.runs.export import Wanted, facts_of, write_model
from hiso_ray.runs.setting import settle
from hiso_ray.server.weights import WeightServer
from hiso_ray.server.work_units import work_units
from hiso_ray.tasks.threads import torch_threads
from hiso_ray.tracking.tracked import show_model


def replay(
    folder: Path | str,
    round_: int | None = None,
    export: Path | str | None = None,
    on_note: OnNote = lambda _: None,
    outcomes: Path | str | None = None,
    *,
    merge: bool = False,
    push: str | None = None,
    private: bool = False,
) -> dict[str, Any]:
    """Rebuilds the weights of a round from x_0 and the ledger, in this process.

    Args:
        round_: number of records to apply; all of them by default.
        export: a new folder to write the model and its card to (for language tasks, a Hugging
            Face folder); the run's trackers are given it too.
        outcomes: a new file for that round's outcomes, in the format of ``outcomes.parquet``.
        merge: fold LoRA adapters into the model that is exported.
        push: OWNER/NAME of a hub repository to upload the export to; created if there is none. The
            token is that of huggingface_hub, usually ``HF_TOKEN``.
        private: create it as a private one.

    Returns:
        ``round``, ``model_sha256``, ``eval_loss``, ``eval_METRIC`` for each of the task's metrics
        (with validation examples, ``validation_loss`` and ``validation_METRIC`` as well), and
        ``matches``: whether the digest equals the one in ``summary.json`` (None if that has none
        for this round); ``pushed``, the address of the repository, if there was a push (None if
        the digest does not match: such a model is not uploaded).

    Raises:
        LedgerError: (a ``UserError``) the ledger is corrupt, or does not match the configuration,
            model, data or devices found here.
        UserError: the ledger does not reach the round, ``merge`` or ``push`` cannot be done, or
            the hub did not take the export, which then is complete in its folder.
        FileExistsError: ``export`` or ``outcomes`` exists.
    """
    folder = Path(folder)
    experiment = folders.read_experiment(folder)
    ledger = Ledger.read(folder / files.LEDGER)
    if ledger.dropped_bytes:
        on_note(f"left out a torn record of {ledger.dropped_bytes} bytes at the ledger's end")
    done = ledger.round
    upto = done if round_ is None else round_
    if not 0 <= upto <= done:
        raise UserError(f"round {upto}: the ledger holds {done} rounds, choose 0 to {done}")
    wanted = Wanted(None if export is None else Path(export), merge, push, private)
    wanted.check(experiment)
    if outcomes is not None and Path(outcomes).exists():
        raise FileExistsError(f"{outcomes} exists; choose a new file to write outcomes to")
    setting = settle(experiment, mask=mask_file.read(folder))
    with torch_threads(experiment):
        worker = Worker(setting.experiment, setting.prepared, setting.partition)
        description = worker.describe()
        for note in check_header(ledger.header, setting.identity, description):
            on_note(note)
        if said := other_evaluation(ledger.header, setting.evaluation_sha256):
            on_note(f"{said}; the weights are the run's, and their scores are of these")
        _rebuild(worker, setting.prepared.x0, ledger, upto)
        score = joined(worker.scores(range(description.eval_batches)))
        digest = worker.digest()
        if wanted.folder is not None:
            facts = facts_of(wanted, setting, folder, ledger, upto, digest, score)
            write_model(worker, wanted.folder, facts)
            show_model(experiment, folder, wanted.folder, on_note)
    validation = experiment.task.validation_examples
    if outcomes is not None:
        write(
            Path(outcomes),
            score,
            validation,
            round_=upto,
            model_sha256=digest,
            evaluation_sha256=setting.evaluation_sha256,
        )
    for line in spoilt(folder):
        on_note(line)
    recorded = folders.recorded_digest(folder, upto)
    found = {
        "round": upto,
        "model_sha256": digest,
        **means(score, validation),
        "matches": None if recorded is None else recorded == digest,
    }
    if wanted.folder is not None and push is not None:
        differs = found["matches"] is False
        found["pushed"] = None if differs else hub.push(wanted.folder, push, private)
    return found


def _rebuild(worker: Worker, x0: np.ndarray, ledger: Ledger, upto: int) -> None:
    """Moves a worker from x_0 to round ``upto``: applies the records or, for methods that send
    weights, runs their rounds again."""
    experiment = worker.replica.experiment
    records = progress.counted("replaying rounds", ledger.scan(0, upto), upto)
    if not experiment.sends_weights:
        for number, record in enumerate(records):
            worker.catch_up(Missed(number + 1, [record]))
        return
    server = WeightServer(experiment, x0, np.diff(worker.partition.offsets))
    for record in records:
        turns = worker.turns(work_units(experiment, record.cohort), record.seeds)
        server.again(record, [turn for some in turns for turn in some])
        worker.catch_up(Missed(server.round, (), weights=server.x))
