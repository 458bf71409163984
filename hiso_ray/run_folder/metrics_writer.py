"""``metrics.csv`` and ``diagnostics.csv``, written after each round."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from hiso_ray.run_folder import files
from hiso_ray.run_folder.metrics_reader import COLUMNS, MEASURED, Row, cells, header, scan_rows
from hiso_ray.run_folder.whole_files import whole


class MetricsFile:
    """``metrics.csv``: a row per round. A score without a column gets one, after the others."""

    def __init__(self, folder: Path, keep: Iterable[Row] = ()) -> None:
        """Starts the table with the rows of an interrupted run, if any."""
        self._path = folder / files.METRICS
        self._begin([*COLUMNS, *(n for n in header(self._path) if n not in COLUMNS)], keep)

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
        if row["eval_loss"] is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


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
