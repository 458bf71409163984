"""``metrics.csv``, its TensorBoard events and ``diagnostics.csv``, written after each round."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hiso_ray.run_folder import files
from hiso_ray.run_folder.metrics_reader import COLUMNS, MEASURED, Row, cells, header, scan_rows
from hiso_ray.run_folder.whole_files import whole

BRIEF = ("round", "train_loss")  # sent to TensorBoard for rounds without evaluation


class MetricsFile:
    """``metrics.csv`` and the TensorBoard events beside it.

    Each round has a row and an event. The event of an evaluated round holds the whole row, others
    only the training loss: a whole event costs eight times a row, as its checksum is plain Python.

    A score without a column gets one, after the others.

    Both are written in this thread: TensorBoard's writer thread dies on a full disk, and closing
    it then waits forever.
    """

    def __init__(self, folder: Path, keep: Iterable[Row] = ()) -> None:
        """Starts the table with the rows of an interrupted run, if any."""
        from tensorboardX.event_file_writer import EventsWriter

        self._path = folder / files.METRICS
        self._begin([*COLUMNS, *(n for n in header(self._path) if n not in COLUMNS)], keep)
        (folder / files.TENSORBOARD).mkdir(exist_ok=True)
        # The process id, because a run may be resumed within the second that names the file.
        prefix, suffix = str(folder / files.TENSORBOARD / "events"), f".{os.getpid()}"
        self._events = EventsWriter(prefix, suffix)

    def _begin(self, names: Sequence[str], rows: Iterable[Row]) -> None:
        _write_table(self._path, names, rows)
        self._file = open(self._path, "a", newline="", encoding="utf-8")
        self._csv = csv.DictWriter(self._file, names)

    def add(self, row: Row) -> None:
        """Writes a row, which survives the death of this process. An evaluated round also syncs all
        rows so far to disk; unsynced rows can be rebuilt from the ledger.

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
    """``diagnostics.csv``: the rows of ``diagnostics``, each written when it is measured."""

    def __init__(self, folder: Path, round_: int) -> None:
        """Keeps the rows up to ``round_`` of an interrupted run, if any."""
        self._path = folder / files.DIAGNOSTICS
        kept = [row for row in cells(self._path, MEASURED) if row and int(row["round"]) <= round_]
        self._done = {int(row["round"]) for row in kept}
        if self._path.exists():
            _write_table(self._path, kept[0] if kept else (), kept)

    def add(self, row: Row) -> None:
        """Writes a row, unless its round already has one.

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
    """A row as a TensorBoard event."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    shown = ((name, value) for name, value in row.items() if name != "round" and value is not None)
    values = [Summary.Value(tag=name, simple_value=value) for name, value in shown]
    return Event(wall_time=time.time(), step=row["round"], summary=Summary(value=values))
