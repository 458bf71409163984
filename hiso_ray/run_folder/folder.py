"""The layout of a run folder, and its files other than the ledger and the metrics.

::

    config.yaml      the resolved experiment, with the versions that ran it
    ledger.jsonl     header and one record per round: the checkpoint
    snapshots/       the newest weights and curvature, to start from instead of x_0
    mask.safetensors  the weights that are trained, if they were measured by their sensitivity
    partition.csv    how many examples of each group each client holds; partition.png shows it
    clients.csv      how often each client took part, and what it sent and received
    trial-notes.txt  the notes of a sweep's trial; a single run shows them to its user
    faults.jsonl     the deaths and failures that the run survived
    stopped.json     why the run ended before its last round, unless it was killed
    actors.csv       on Ray, how long each client actor took for its work
    diagnostics.csv  evidence about H, if requested
    outcomes.parquet  loss and scores of every evaluation example after the last round
    metrics.csv, summary.json, convergence.png
    tensorboard/     its event files
    tracking/        how far MLflow and W&B have got; wandb/ holds the files of the latter
"""

from __future__ import annotations

import csv
import io
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hiso_ray import config
from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.run_folder import files
from hiso_ray.run_folder.ledger import Ledger, LedgerError
from hiso_ray.run_folder.locks import LOCK_SECONDS, hold
from hiso_ray.run_folder.summary import read_summary
from hiso_ray.run_folder.whole_files import write_text
from hiso_ray.version import __version__

# files written before the first round; a killed process may also leave *.new files
EARLY = (
    files.CONFIG,
    files.FAULTS,
    files.MASK,
    files.PARTITION,
    files.PARTITION_PICTURE,
    files.STOPPED,
    "trial-notes.txt",
)
LOCK = files.FAULTS  # the process that runs the folder locks this file
VERSIONS_OF = ("torch", "ray", "transformers", "datasets", "numpy")


def stamped(name: str) -> Path:
    """``runs/NAME-TIME``."""
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


@contextmanager
def fresh(path: Path) -> Iterator[Path]:
    """Creates a new folder, which no other process uses: ``path``, or if that exists ``path-2``
    and so on. A folder that is still empty at the end is removed, together with its parent if
    that was created here.

    Raises:
        UserError: it cannot be created.
    """
    made = [] if path.parent.exists() else [path.parent]
    for number in count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with _writing(folder):
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                continue
    try:
        yield folder
    finally:
        with suppress(OSError):  # not empty
            for empty in (folder, *made):
                empty.rmdir()


@contextmanager
def named(experiment: Experiment, out: Path | str | None) -> Iterator[Path]:
    """``out``, or a :func:`fresh` ``runs/TASK-METHOD-seedN-TIME``."""
    if out is not None:
        yield Path(out)
        return
    task, method = experiment.task.name, experiment.method.name
    with fresh(stamped(f"{task}-{method}-seed{experiment.seed}")) as folder:
        yield folder


@contextmanager
def started(experiment: Experiment, out: Path) -> Iterator[Path]:
    """Creates a run folder, and locks it until the context or this process ends. The path must be
    new, empty, or left by a run that died before its first round.

    Raises:
        FileExistsError: the path holds something else, or another process is starting a run there.
        UserError: nothing can be written there.
    """
    folder = out.resolve()
    _check_free(folder)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock, is_first = _lock_file(folder)
    with lock:
        _hold_start(folder, lock, is_first)
        _check_free(folder)  # again: another process may have finished a run there meanwhile
        with _writing(folder):
            lock.truncate(0)
            for path in folder.iterdir():  # left by a failed start, perhaps with other values
                if path.name != LOCK:
                    path.unlink()
            write_experiment(folder, experiment)
        yield folder


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Locks an existing run folder until the context or this process ends.

    Raises:
        LedgerError: it is not a run folder, it cannot be written, or another process runs it.
    """
    _config(folder)
    try:
        lock, _ = _lock_file(folder)
    except OSError as error:
        raise LedgerError(
            f"cannot write to {folder} ({error.strerror}): make the run folder writable, or copy it"
        ) from error
    with lock:
        try:
            hold(lock, LOCK_SECONDS)
        except BlockingIOError as error:
            raise LedgerError(
                f"another process is running {folder}: wait for it, or stop it"
            ) from error
        for path in folder.glob("*.new"):  # left half written by a killed process
            with suppress(OSError):
                path.unlink()
        yield


def _check_free(folder: Path) -> None:
    if (folder / files.LEDGER).exists():
        raise FileExistsError(
            f"{folder} already holds a run: choose another --out, or go on with it: "
            f"hiso-ray resume {folder}"
        )
    if folder.exists() and not (folder.is_dir() and all(map(_is_early, folder.iterdir()))):
        raise FileExistsError(f"{folder} is not empty: choose another --out")


def _is_early(path: Path) -> bool:
    return path.name in EARLY or path.suffix == ".new"


def _lock_file(folder: Path) -> tuple[BinaryIO, bool]:
    """The file to lock, and whether this process created it."""
    try:
        return open(folder / LOCK, "xb"), True
    except FileExistsError:
        return open(folder / LOCK, "ab"), False


def _hold_start(folder: Path, lock: BinaryIO, is_first: bool) -> None:
    try:
        known = hold(lock) or is_first
    except BlockingIOError as error:
        raise FileExistsError(
            f"another process is starting a run in {folder}: choose another --out"
        ) from error
    if not known:
        raise FileExistsError(
            f"{folder} holds the beginning of a run, and its file system has no locks that tell "
            "whether somebody is running it: remove it, or choose another --out"
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to the run folder {folder} ({error.strerror}): make room, or choose "
            "another --out"
        ) from error


def write_experiment(folder: Path, experiment: Experiment) -> None:
    write_text(folder / files.CONFIG, _versions() + experiment.to_yaml())


def read_versions(folder: Path) -> str:
    """The versions that a run folder's configuration was written with, as ``NAME==VERSION`` words;
    empty if somebody took that line out."""
    first, *_ = [*_config(folder).read_text(encoding="utf-8").splitlines(), ""]
    return first.removeprefix("# ") if first.startswith("# hiso-ray==") else ""


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a run folder."""
    return Experiment.model_validate(config.read_yaml(_config(folder)))


def _config(folder: Path) -> Path:
    path = folder / files.CONFIG
    if not path.exists():
        raise LedgerError(f"{folder} is not a run folder: it has no config.yaml")
    return path


def continued(folder: Path, changes: Mapping[str, Any]) -> Experiment:
    """A run folder's experiment with fields changed; the changes must not affect past rounds.

    Raises:
        UserError: a change would alter weights or scores, or asks for fewer rounds than were run.
    """
    before = read_experiment(folder)
    after = before.changed(**changes)
    for name, value in changes.items():
        if before.changed(**{name: value}).digest() != before.digest():
            raise UserError(
                f"{name} = {value}: the rounds so far were run with another value, and resume does "
                "not change the past; it takes federation.rounds and what decides no result "
                "(tracking, resources, eval, diagnostics). Start a new run instead"
            )
        if before.changed(**{name: value}).scoring() != before.scoring():
            raise UserError(
                f"{name} = {value}: the rounds so far were scored with another value, and one "
                "table must not mix the two. Leave it out, or start a new run instead"
            )
    ledger = folder / files.LEDGER
    done = Ledger.read(ledger).round if "federation.rounds" in changes and ledger.exists() else 0
    if after.federation.rounds < done:
        raise UserError(
            f"federation.rounds = {after.federation.rounds}: {done} rounds are in the ledger "
            f"already; give {done} or more"
        )
    return after


def recorded_digest(folder: Path, round_: int) -> str | None:
    """The digest of the weights in ``summary.json``; None unless it is of this round."""
    summary = read_summary(folder) or {}
    return summary.get("model_sha256") if summary.get("rounds") == round_ else None


def write_partition(path: Path, counts: np.ndarray, names: tuple[str, ...]) -> None:
    rows = ((client, sum(row), *row) for client, row in enumerate(counts.tolist()))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("client", "examples", *names), *rows])
    write_text(path, text.getvalue())


def _versions() -> str:
    versions = " ".join(f"{name}=={version(name)}" for name in VERSIONS_OF)
    return f"# hiso-ray=={__version__} python=={platform.python_version()} {versions}\n"
