"""What lies in a run folder besides the ledger and the metrics: the folder is the run.

::

    config.yaml      the resolved experiment, with the versions that ran it
    ledger.jsonl     header and one record per round: the checkpoint
    snapshots/       the newest weights and curvature, to start from instead of x_0
    partition.csv    how many examples of each group each client holds; partition.png shows it
    clients.csv      how often each client took part, and what it sent and received
    trial-notes.txt  what a sweep's trial had to say; a run of its own says it to its user
    faults.jsonl     what went wrong and was survived
    diagnostics.csv  evidence about H, where it was asked for
    outcomes.parquet  loss and scores of every evaluation example after the last round
    metrics.csv, tensorboard/, summary.json, convergence.png
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
from hiso_ray.run_folder.ledger import Ledger, LedgerError
from hiso_ray.run_folder.locks import LOCK_SECONDS, hold
from hiso_ray.run_folder.summary import read_summary
from hiso_ray.run_folder.whole_files import write_text
from hiso_ray.version import __version__

# written before the first round, as are files that a kill has left half written
EARLY = ("config.yaml", "faults.jsonl", "partition.csv", "partition.png", "trial-notes.txt")
LOCK = "faults.jsonl"  # whoever runs the folder holds this file
VERSIONS_OF = ("torch", "ray", "transformers", "datasets", "numpy")


def stamped(name: str) -> Path:
    """``runs/NAME-TIME``."""
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


@contextmanager
def fresh(path: Path) -> Iterator[Path]:
    """A folder made now, and so nobody else's: ``path``, or where it is there already ``path-2``
    and so on. If nothing is put into it, it is removed again, and so is a folder around it that
    was made for it.

    Raises:
        UserError: it cannot be made.
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
        with suppress(OSError):  # it is not empty
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
    """A new run folder, in a place that is empty or where a run died before its first round; nobody
    else's for as long as the context lasts or this process lives.

    Raises:
        FileExistsError: there is something else, or another process is starting a run there.
        UserError: nothing can be written there.
    """
    folder = out.resolve()
    _check_free(folder)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock, is_first = _lock_file(folder)
    with lock:
        _hold_start(folder, lock, is_first)
        _check_free(folder)  # again: somebody may have run it to its end meanwhile
        with _writing(folder):
            lock.truncate(0)
            for path in folder.iterdir():  # of a start that failed, perhaps with other values
                if path.name != LOCK:
                    path.unlink()
            write_experiment(folder, experiment)
        yield folder


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A run folder that is there, nobody else's for as long as the context lasts or this process
    lives.

    Raises:
        LedgerError: it is no run folder, it cannot be written, or another process runs it.
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
        for path in folder.glob("*.new"):  # a kill has left it half written
            with suppress(OSError):
                path.unlink()
        yield


def _check_free(folder: Path) -> None:
    if (folder / "ledger.jsonl").exists():
        raise FileExistsError(
            f"{folder} already holds a run: choose another --out, or go on with it: "
            f"hiso-ray resume {folder}"
        )
    if folder.exists() and not (folder.is_dir() and all(map(_is_early, folder.iterdir()))):
        raise FileExistsError(f"{folder} is not empty: choose another --out")


def _is_early(path: Path) -> bool:
    return path.name in EARLY or path.suffix == ".new"


def _lock_file(folder: Path) -> tuple[BinaryIO, bool]:
    """The file to hold, and whether this process has made it."""
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
    write_text(folder / "config.yaml", _versions() + experiment.to_yaml())


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a run folder."""
    return Experiment.model_validate(config.load(_config(folder)))


def _config(folder: Path) -> Path:
    path = folder / "config.yaml"
    if not path.exists():
        raise LedgerError(f"{folder} is not a run folder: it has no config.yaml")
    return path


def continued(folder: Path, changes: Mapping[str, Any]) -> Experiment:
    """The experiment of a run folder with fields changed; such changes must leave the past alone.

    Raises:
        UserError: a change that would have made other weights or other scores, or fewer rounds
            than were run.
    """
    before = read_experiment(folder)
    after = before.changed(**changes)
    for name, value in changes.items():
        if before.changed(**{name: value}).digest() != before.digest():
            raise UserError(
                f"{name} = {value}: the rounds so far were run with another value, and resume does "
                "not change the past; it takes federation.rounds and what decides no result "
                "(resources, eval, diagnostics). Start a new run instead"
            )
        if before.changed(**{name: value}).scoring() != before.scoring():
            raise UserError(
                f"{name} = {value}: the rounds so far were scored with another value, and one "
                "table must not mix the two. Leave it out, or start a new run instead"
            )
    ledger = folder / "ledger.jsonl"
    done = Ledger.read(ledger).round if "federation.rounds" in changes and ledger.exists() else 0
    if after.federation.rounds < done:
        raise UserError(
            f"federation.rounds = {after.federation.rounds}: {done} rounds are in the ledger "
            f"already; give {done} or more"
        )
    return after


def recorded_digest(folder: Path, round_: int) -> str | None:
    """What ``summary.json`` says of the weights after so many rounds, if it does."""
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
