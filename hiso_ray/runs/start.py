"""Start a run in its folder, or resume one.

``run`` is what the command line, sweeps and notebooks call. The steps of a run:

    settle          (setting)   resolves the configuration, reads data and weights, splits the data
    notes           (opening)   describes what was found
    started, held   (run_folder) creates or opens the folder, and locks it for the whole run
    tracked         (tracking)  shows every row to the trackers, and the rest at the end
    run_rounds      (execution) runs the rounds, in this process or in a driver actor on a Ray
                    cluster, which sends its rows and notes to this process
    convergence     (analysis)  draws the curves
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiso_ray import progress
from hiso_ray.config import Experiment
from hiso_ray.execution.contract import Job, OnNote, OnRow
from hiso_ray.execution.driver import run_rounds
from hiso_ray.execution.header import check_evaluation, check_identity
from hiso_ray.run_folder import files, mask_file
from hiso_ray.run_folder import folder as folders
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.metrics_reader import Row
from hiso_ray.run_folder.stopped import recorded
from hiso_ray.runs import opening
from hiso_ray.runs.setting import Setting, settle
from hiso_ray.tasks.threads import torch_threads
from hiso_ray.tracking.tracked import check_installed, tracked

if TYPE_CHECKING:  # loads ray, which the serial executor does not need
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
        experiment: what to run; by default the embedded default job.
        out: the run folder, new or empty; by default ``runs/TASK-METHOD-seedN-TIME``.
        on_round: called with each row of ``metrics.csv`` when it is made.
        on_note: called with lines worth telling the user (data, skew, placement).
        task: the prepared task, if it is already in Ray's object store, for many runs.

    Raises:
        UserError: the experiment is invalid (the text says why), a tracker is not installed, or
            all evaluation examples are training examples too.
        TurnFailed: a client failed repeatedly; names the client, round and step.
        FileExistsError: ``out`` already holds something, or a run is being started there.
    """
    experiment = experiment or Experiment()
    check_installed(experiment)
    setting = settle(experiment, task)
    said, experiment = opening.notes(setting), setting.experiment
    with folders.named(experiment, out) as path, folders.started(experiment, path) as folder:
        for note in said:
            on_note(note)
        with recorded(folder):
            return _execute(setting, folder, on_round, on_note, task)


def resume(
    folder: Path | str,
    on_round: OnRow = _ignore,
    on_note: OnNote = _ignore,
    changes: Mapping[str, Any] | None = None,
    task: SharedTask | None = None,
) -> dict[str, Any]:
    """Resumes an interrupted run from its ledger; the result is as if it had not stopped.

    Args:
        changes: dotted fields to change: ``federation.rounds`` for more rounds, and fields that do
            not affect results (``tracking``, ``resources``, ``eval``, ``diagnostics``).
        task: as in :func:`run`.

    Raises:
        UserError: a change would affect past rounds, or a tracker is not installed.
        LedgerError: (a ``UserError``) it is not a run folder, or its model or data have changed.
    """
    folder = Path(folder).resolve()
    with folders.held(folder):
        experiment = folders.continued(folder, changes or {})
        check_installed(experiment)
        mask = mask_file.read(folder)
        task = task if mask is None else None  # the folder's mask, not one measured anew
        setting = settle(experiment, task, mask)
        if (folder / files.LEDGER).exists():
            _check_ledger(folder, setting)
        if changes:
            folders.write_experiment(folder, setting.experiment)
        with recorded(folder):
            return _execute(setting, folder, on_round, on_note, task)


def _execute(
    setting: Setting, folder: Path, on_round: OnRow, on_note: OnNote, task: SharedTask | None
) -> dict[str, Any]:
    experiment, prepared, partition = setting.experiment, setting.prepared, setting.partition
    if experiment.task.sparse_by == "sensitivity":
        mask_file.write(folder, prepared.arrays["mask/index"])
    _show_partition(folder, setting, on_note)
    job = Job(experiment, folder, setting.identity, setting.population, setting.evaluation_sha256)
    with tracked(experiment, folder, on_note) as trackers:

        def on_row(row: Row) -> None:
            trackers.row(row)
            on_round(row)

        if experiment.resources.executor == "serial":
            from hiso_ray.execution.serial import SerialExecutor

            with torch_threads(experiment):
                executor = SerialExecutor(experiment, prepared, partition, on_note)
                on_note(f"{partition.num_clients} clients, one after the other, in this process")
                summary = run_rounds(job, executor, on_row, on_note)
        else:
            from hiso_ray.execution.cluster.session import run_on_ray

            summary = run_on_ray(job, prepared, partition, on_row, on_note, task)
        with _pictures(on_note):
            from hiso_ray.analysis.curves import convergence

            convergence([folder], folder / files.CONVERGENCE_PICTURE)
        pictures = (files.PARTITION_PICTURE, files.CONVERGENCE_PICTURE)
        trackers.finish(summary, [folder / name for name in pictures])
    return summary


def _check_ledger(folder: Path, setting: Setting) -> None:
    """Refuses a ledger that belongs to another run, before anything is written."""
    header = Ledger.read(folder / files.LEDGER).header
    check_identity(header, setting.identity)
    check_evaluation(header, setting.evaluation_sha256)


def _show_partition(folder: Path, setting: Setting, on_note: OnNote) -> None:
    """Writes ``partition.csv`` and its picture, unless they exist."""
    if (folder / files.PARTITION).exists():
        return
    names = setting.prepared.label_names
    folders.write_partition(folder / files.PARTITION, setting.counts, names)
    with _pictures(on_note):
        from hiso_ray.analysis.skew import who_holds_what

        who_holds_what(folder, folder / files.PARTITION_PICTURE)


@contextmanager
def _pictures(on_note: OnNote) -> Iterator[None]:
    """Reports a picture that cannot be drawn, instead of ending the run."""
    try:
        with progress.step("drawing"):
            yield
    except Exception as error:
        on_note(f"a picture could not be drawn ({type(error).__name__}: {error})")
