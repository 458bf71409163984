"""One round -> one row; the run folder's table and the summary.

Bytes follow the rules of ``traffic``; those of a row are cumulative over all clients.
"""

from __future__ import annotations

import csv
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from hiso_ray.config import Experiment
from hiso_ray.traffic import paper_bytes_per_client
from hiso_ray.whole_files import whole, write_text

COLUMNS = (
    "round", "train_loss", "eval_loss", "eval_accuracy", "uplink_bytes", "downlink_bytes",
    "seconds", "ray_bytes", "forward_passes", "update_norm", "h_min", "h_median", "h_max",
    "eval_exact_match", "eval_f1", "eval_rouge1", "eval_rouge2", "eval_rougeL",
    "answered", "dropped", "late", "simulated_seconds", "epsilon",
    "validation_loss", "validation_accuracy", "validation_exact_match", "validation_f1",
    "validation_rouge1", "validation_rouge2", "validation_rougeL",
)  # fmt: skip
BRIEF = ("round", "train_loss")  # of a round without evaluation, for TensorBoard
Row = dict[str, Any]
NUMBER = r"(?:-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|-?inf|nan)?"
COUNTED = re.compile(rf"\d+(?:,{NUMBER})*\r?\n")  # a line of metrics.csv
MEASURED = re.compile(r"\d+,.*\r?\n")  # of diagnostics.csv, which has texts


class MetricsFile:
    """``metrics.csv`` and the TensorBoard events beside it.

    A round has a row, and an event with its training loss; that of an evaluated round holds the
    whole row. A whole event costs eight times a row here: its checksum is plain Python.

    A score that no column is for gets one, at the end.

    Both are written in place, not by a thread of TensorBoard's: that one dies on a full disk, and
    whoever then closes it waits for ever.
    """

    def __init__(self, folder: Path, keep: Iterable[Row] = ()) -> None:
        """Starts the table with the rows of an interrupted run, if any."""
        from tensorboardX.event_file_writer import EventsWriter

        self._path = folder / "metrics.csv"
        self._begin([*COLUMNS, *(n for n in _header(self._path) if n not in COLUMNS)], keep)
        (folder / "tensorboard").mkdir(exist_ok=True)
        # The process's number, because a run may be resumed within the second that names the file.
        prefix, suffix = str(folder / "tensorboard" / "events"), f".{os.getpid()}"
        self._events = EventsWriter(prefix, suffix)

    def _begin(self, names: Sequence[str], rows: Iterable[Row]) -> None:
        _write_table(self._path, names, rows)
        self._file = open(self._path, "a", newline="", encoding="utf-8")
        self._csv = csv.DictWriter(self._file, names)

    def add(self, row: Row) -> None:
        """Writes a row, so that it outlives this process; that of an evaluated round is on disk
        afterwards, and so are those before it. The others could be made again from the ledger.

        Raises:
            OSError: the disk is full.
        """
        known = self._csv.fieldnames
        if more := [name for name in row if name not in known]:
            self._file.close()
            self._begin([*known, *more], scan_rows(self._path))
        self._csv.writerow(row)
        self._file.flush()
        evaluated = row["eval_loss"] is not None
        self._events.write_event(_event(row if evaluated else {n: row[n] for n in BRIEF}))
        if evaluated:
            os.fsync(self._file.fileno())
            self._events.flush()

    def close(self) -> None:
        self._file.close()
        self._events.close()


class DiagnosticsFile:
    """``diagnostics.csv``: the rows of ``diagnostics``, written as they come."""

    def __init__(self, folder: Path, round_: int) -> None:
        """Keeps the rows up to ``round_`` of an interrupted run, if any."""
        self._path = folder / "diagnostics.csv"
        kept = [row for row in _rows(self._path, MEASURED) if row and int(row["round"]) <= round_]
        self._done = {int(row["round"]) for row in kept}
        if self._path.exists():
            _write_table(self._path, kept[0] if kept else (), kept)

    def add(self, row: Row) -> None:
        """Writes a row, unless its round has one.

        Raises:
            OSError: the disk is full.
        """
        if row["round"] in self._done:
            return
        if not self._done:
            _write_table(self._path, row, [row])
        else:
            with open(self._path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, list(row)).writerow(row)
                file.flush()
                os.fsync(file.fileno())
        self._done.add(row["round"])


def _write_table(path: Path, names: Iterable[str], rows: Iterable[Row]) -> None:
    with whole(path) as new, open(new, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(names))
        table.writeheader()
        table.writerows(rows)


def _event(row: Row) -> Any:
    """A row as TensorBoard's protocol has it."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    shown = ((name, value) for name, value in row.items() if name != "round" and value is not None)
    values = [Summary.Value(tag=name, simple_value=value) for name, value in shown]
    return Event(wall_time=time.time(), step=row["round"], summary=Summary(value=values))


def scan_rows(path: Path) -> Iterator[Row]:
    """The rows of a metrics file, one at a time; empty cells are None. Left out are a torn last
    line and those of :func:`spoilt_lines`."""
    for row in _rows(path, COUNTED):
        if row is not None:
            yield {name: _number(text) for name, text in row.items()}


def spoilt_lines(path: Path) -> list[int]:
    """Which lines of a metrics file, counted from 1, are no rows: they are no numbers, have more or
    fewer cells than the header, or are of a round that does not follow."""
    return [line for line, row in enumerate(_rows(path, COUNTED), 2) if row is None]


def _rows(path: Path, pattern: re.Pattern[str]) -> Iterator[dict[str, str] | None]:
    """The cells of each whole line after the header, by name; None where it is no row."""
    if not path.exists():
        return
    with _opened(path) as file:
        names, before = _names(file), -1
        for line in file:
            if not line.endswith("\n"):
                return  # torn by a kill
            cells = line.rstrip("\r\n").split(",")
            sound = len(cells) == len(names) and pattern.fullmatch(line) and names[0] == "round"
            if sound and int(cells[0]) > before:
                before = int(cells[0])
                yield dict(zip(names, cells, strict=True))
            else:
                yield None


def _opened(path: Path) -> TextIO:
    """Whatever a hand or a disk has put there; editors begin files with a byte-order mark."""
    return open(path, newline="", encoding="utf-8-sig", errors="replace")


def _names(file: TextIO) -> list[str]:
    return next(file, "").rstrip("\r\n").split(",")


def _header(path: Path) -> list[str]:
    """The columns of a metrics file that is there; none where it is no such file."""
    if not path.exists():
        return []
    with _opened(path) as file:
        names = _names(file)
    return names if set(COLUMNS[:3]) <= set(names) else []


def read_rows(path: Path) -> list[Row]:
    """All rows; see :func:`scan_rows`."""
    return list(scan_rows(path))


def _number(text: str) -> float | int | None:
    if text == "":
        return None
    value = float(text)
    return int(value) if text.lstrip("-").isdecimal() else value


class Course:
    """What a summary needs of the rows, without keeping them.

    Attributes:
        row: the newest.
    """

    def __init__(self) -> None:
        self.row: Row | None = None
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._at_best: dict[str, float] = {}

    def add(self, row: Row) -> Row:
        """Takes the next row, and gives it back."""
        self.row = row
        for name, value in row.items():
            if name.startswith(("eval_", "validation_")) and value is not None:
                if row["round"] == 0:
                    self._first[name] = value
                self._last[name] = value
                if name not in self._best or value > self._best[name]:
                    self._best[name] = value
                    self._at_best[name] = row[name.replace("validation_", "eval_")]
        return row

    def of(self, metric: str, name: str) -> dict[str, float | None]:
        """A metric at the start, at the end and at its best; None where it was never measured."""
        found = {"initial": self._first, "final": self._last, "best": self._best}
        return {f"{when}_{name}": where.get(f"eval_{metric}") for when, where in found.items()}

    def of_validation(self, metric: str) -> dict[str, float | None]:
        """A metric of the validation examples at the end and at its best, and the test's at that
        evaluation, the earliest of equals; None without validation examples."""
        name = f"validation_{metric}"
        return {
            "final_validation_score": self._last.get(name),
            "best_validation_score": self._best.get(name),
            "score_at_best_validation": self._at_best.get(name),
        }


def summarize(
    experiment: Experiment,
    course: Course,
    *,
    digest: str,
    dimension: int,
    parameters: int,
    actors: int,
    faults: Mapping[str, int],
) -> dict[str, Any]:
    """``summary.json`` of a finished run.

    ``initial_``, ``final_`` and ``best_score`` are of the run's ``metric``; those of the accuracy
    stand beside them, null for tasks that have none, and those of the validation examples, null
    without any.

    Args:
        dimension: d, the weights that are trained.
        parameters: weights of the model, trained or not.
        faults: how many of each kind.
    """
    metric = experiment.task.metric
    federation, method, last = experiment.federation, experiment.method, course.row
    assert last is not None
    return {
        "method": method.name,
        "curvature": method.curvature,
        "task": experiment.task.name,
        "model": experiment.task.model,
        "seed": experiment.seed,
        "rounds": last["round"],
        "metric": metric,
        **course.of(metric, "score"),
        **course.of("accuracy", "accuracy"),
        **course.of_validation(metric),
        "uplink_bytes": last["uplink_bytes"],
        "downlink_bytes": last["downlink_bytes"],
        "paper_bytes_per_client": paper_bytes_per_client(experiment, last["round"], dimension),
        "initial_model_bytes_per_client": 4 * parameters,
        "ray_bytes": last["ray_bytes"],
        "forward_passes": last["forward_passes"],
        "model_sha256": digest,
        "seconds": last["seconds"],
        "simulated_seconds": last["simulated_seconds"],
        "actors": actors,
        "clients": federation.num_clients,
        "epsilon": last["epsilon"],
        "delta": experiment.privacy.delta if experiment.privacy.noise > 0 else None,
        "faults": sum(faults.values()),
        "faults_by_kind": dict(faults),
    }


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")


def read_summary(folder: Path) -> dict[str, Any] | None:
    """A run folder's ``summary.json``; None where there is none that can be read."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return summary if isinstance(summary, dict) and "rounds" in summary else None


def spoilt(folder: Path) -> list[str]:
    """What cannot be read of a run folder's table and summary, in words."""
    lines = spoilt_lines(folder / "metrics.csv")
    found = [f"{folder / 'metrics.csv'}: line {n} is no row of it: left out" for n in lines[:3]]
    found += [f"and {len(lines) - 3} lines more"] * (len(lines) > 3)
    if (folder / "summary.json").exists() and read_summary(folder) is None:
        found.append(f"{folder / 'summary.json'} cannot be read: taken as missing")
    return found
