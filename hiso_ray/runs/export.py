"""Takes a rebuilt model out of its run: a folder, its card, and a copy on a hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hiso_ray import progress
from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.execution.header import other_evaluation
from hiso_ray.execution.worker import Worker
from hiso_ray.messages import Score
from hiso_ray.run_folder import files
from hiso_ray.run_folder.folder import read_versions
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.metrics_reader import read_rows
from hiso_ray.run_folder.outcomes import means
from hiso_ray.runs import card, hub
from hiso_ray.runs.card.facts import Facts
from hiso_ray.runs.setting import Setting
from hiso_ray.tasks.pretrained.model_files import find
from hiso_ray.tasks.pretrained.origin import repository_of
from hiso_ray.tasks.pretrained.unfit import Unfit


@dataclass(frozen=True)
class Wanted:
    """What is to become of a model.

    Attributes:
        folder: a new folder for it; None to leave it in the run.
        merge: fold LoRA adapters into the model that they are for.
        push: OWNER/NAME of the hub repository to upload it to; None for none.
        private: create that repository as a private one.
    """

    folder: Path | None
    merge: bool
    push: str | None
    private: bool

    def check(self, experiment: Experiment) -> None:
        """
        Raises:
            UserError: something is asked for that cannot be done.
            FileExistsError: the folder exists.
        """
        if self.folder is None:
            for name in ("merge", "push"):
                if getattr(self, name):
                    raise UserError(f"{name}: there is nothing to {name} without an export")
        elif self.folder.exists():
            raise FileExistsError(f"{self.folder} exists; choose a new folder to export to")
        if self.merge and not experiment.task.lora.r:
            raise UserError(
                "merge: this run has no adapters (task.lora.r = 0), and what it exports is the "
                "whole model; leave merge out"
            )
        if self.private and self.push is None:
            raise UserError("private: it is of the repository of a push, and there is none")
        if self.push is not None:
            hub.check(self.push)
            if experiment.task.lora.r and not self.merge and _of_this_machine(experiment):
                raise UserError(
                    f"push = {self.push}: the adapter would name its base model by the folder "
                    "where it is on this machine, which nobody else has; merge it (--merge)"
                )


def _of_this_machine(experiment: Experiment) -> bool:
    """Whether an adapter's base model is in a folder of this machine."""
    name = experiment.task.model
    try:
        return repository_of(name) is None and find(name).from_gguf is None
    except Unfit:  # said where the model is loaded
        return False


def facts_of(
    wanted: Wanted,
    setting: Setting,
    run: Path,
    ledger: Ledger,
    round_: int,
    model_sha256: str,
    score: Score,
) -> Facts:
    """What the card says of a model.

    Args:
        run: its run folder.
        model_sha256, score: of its weights at ``round_``.
    """
    assert wanted.folder is not None
    experiment, prepared = setting.experiment, setting.prepared
    rows = {row["round"]: row for row in read_rows(run / files.METRICS)}
    scores = means(score, experiment.task.validation_examples)
    alike = other_evaluation(ledger.header, setting.evaluation_sha256) is None
    start = rows.get(0, {}) if round_ and alike else {}
    before = {name: start[name] for name in scores if start.get(name) is not None}
    return Facts(
        experiment=experiment,
        name=wanted.push.split("/")[1] if wanted.push else wanted.folder.resolve().name,
        run=run.resolve().name,
        versions=read_versions(run),
        round=round_,
        model_sha256=model_sha256,
        ledger_check=ledger.check(round_),
        trained=prepared.x0.size,
        frozen=prepared.frozen,
        train_examples=len(prepared.labels),
        test_examples=len(score.terms) - experiment.task.validation_examples,
        scores=scores,
        before=before or None,
        row=rows.get(round_),
        merge=wanted.merge,
        repository=wanted.push,
    )


def write_model(worker: Worker, folder: Path, facts: Facts) -> None:
    """Writes the model that a worker has, and its card, to a new folder."""
    task, weights = worker.replica.task, worker.replica.result
    with progress.step("exporting"):
        if facts.merge:  # language tasks alone have adapters
            exported = task.export(weights, folder, merge=True)  # type: ignore[call-arg]
        else:
            exported = task.export(weights, folder)
        card.write(folder, exported, facts)
