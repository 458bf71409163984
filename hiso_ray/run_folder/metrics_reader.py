"""Reads the rows of ``metrics.csv`` and ``diagnostics.csv``, even from damaged files.

Bytes follow the rules of ``traffic``; a row counts them up to its round, over all clients.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

COLUMNS = (
    "round", "train_loss", "eval_loss", "eval_accuracy", "uplink_bytes", "downlink_bytes",
    "seconds", "ray_bytes", "forward_passes", "update_norm", "h_min", "h_median", "h_max",
    "eval_exact_match", "eval_f1", "eval_rouge1", "eval_rouge2", "eval_rougeL",
    "answered", "dropped", "late", "simulated_seconds", "epsilon",
    "validation_loss", "validation_accuracy", "validation_exact_match", "validation_f1",
    "validation_rouge1", "validation_rouge2", "validation_rougeL", "lr",
)  # fmt: skip
Row = dict[str, Any]
NUMBER = r"(?:-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|-?inf|nan)?"
COUNTED = re.compile(rf"\d+(?:,{NUMBER})*\r?\n")  # a line of metrics.csv
MEASURED = re.compile(r"\d+,.*\r?\n")  # a line of diagnostics.csv, which has text cells


def scan_rows(path: Path) -> Iterator[Row]:
    """The rows of a metrics file, one at a time; empty cells are None. Skips a torn last line and
    the lines of :func:`spoilt_lines`."""
    for row in cells(path, COUNTED):
        if row is not None:
            yield {name: _number(text) for name, text in row.items()}


def spoilt_lines(path: Path) -> list[int]:
    """The invalid lines of a metrics file, counted from 1: a cell is not a number, the number of
    cells differs from the header's, or the round is not after that of the row before."""
    return [line for line, row in enumerate(cells(path, COUNTED), 2) if row is None]


def cells(path: Path, pattern: re.Pattern[str]) -> Iterator[dict[str, str] | None]:
    """The cells of each whole line after the header, by name; None for an invalid row."""
    if not path.exists():
        return
    with _opened(path) as file:
        names, before = _names(file), -1
        for line in file:
            if not line.endswith("\n"):
                return  # torn when the process was killed
            found = line.rstrip("\r\n").split(",")
            sound = len(found) == len(names) and pattern.fullmatch(line) and names[0] == "round"
            if sound and int(found[0]) > before:
                before = int(found[0])
                yield dict(zip(names, found, strict=True))
            else:
                yield None


def _opened(path: Path) -> TextIO:
    """Tolerates invalid bytes, and the byte-order mark that some editors add."""
    return open(path, newline="", encoding="utf-8-sig", errors="replace")


def _names(file: TextIO) -> list[str]:
    return next(file, "").rstrip("\r\n").split(",")


def header(path: Path) -> list[str]:
    """The columns of a metrics file; empty if it is missing or not a metrics file."""
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
