"""CSV (RFC 4180) and TSV files, read strictly: every row must have one field per column.

All values are strings. CSV fields may be enclosed in double quotes; TSV has no quoting.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiso_ray.errors import UserError
from hiso_ray.tasks.files.table import Table, check_names, joined

DIALECTS: dict[str, dict[str, Any]] = {
    ".csv": {"delimiter": ",", "quoting": csv.QUOTE_MINIMAL},
    ".tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
}
QUOTING = {
    ".csv": 'a text with a comma stands in double quotes ("so, that"), and a double quote inside '
    "it is doubled",
    ".tsv": "TSV is read without quoting, so that no text may hold a tab: replace the tab, or keep "
    "such texts in CSV, in double quotes, or in JSONL",
}
LONGEST = 2**31 - 1  # characters of a field; the default limit of csv is 131,072


@dataclass(frozen=True)
class _Part:
    file: Path
    header: bool
    table: Table


def read(files: Sequence[Path], known: set[str], columns: Sequence[str]) -> Table:
    """The rows of a split's files; blank lines are skipped.

    Args:
        known: column names; a first row that contains any of them is a header.
        columns: column names of a file without a header, in order; empty if a header is required.

    Raises:
        UserError: not UTF-8, an unclosed quote, a row whose number of fields is not the number of
            columns, no rows, or parts that do not belong together.
        OSError: a file that cannot be read.
    """
    parts = [_part(file, known, columns) for file in files]
    if len({part.header for part in parts}) > 1:
        named, plain = (next(p for p in parts if p.header is header) for header in (True, False))
        raise UserError(
            f"{plain.file} has no header, and {named.file} has one: begin every part of a split "
            f"with its columns' names ({', '.join(named.table.column_names)}), or none"
        )
    return joined([(part.file, part.table) for part in parts])


def _part(file: Path, known: set[str], columns: Sequence[str]) -> _Part:
    kind = file.suffix.lower()
    rows = _rows(file, DIALECTS[kind])
    first = next(rows, None)
    if first is None:
        raise UserError(f"{file} is empty")
    _, top = first
    header = bool(known & set(top))
    if not header and len(top) != len(columns):
        expected = f"must have the columns {', '.join(columns)}"
        raise UserError(
            f"{file}: the first row has {len(top)} columns and names none of "
            f"{', '.join(sorted(known))}; a file without a header "
            f"{expected if columns else 'will not do for this task'}"
            f"; the row is {', '.join(top)[:100]}"
        )
    names = tuple(top if header else columns)
    check_names(file, names)
    found = [] if header else [tuple(top)]
    for line, row in rows:
        if len(row) != len(names):
            raise UserError(
                f"{file}, line {line}: {len(row)} fields for the {len(names)} columns "
                f"{', '.join(names)}; {QUOTING[kind]}"
            )
        found.append(tuple(row))
    if not found:
        raise UserError(f"{file} has no rows below its header")
    return _Part(file, header, Table(names, found))


def _rows(file: Path, dialect: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """Each row, and the line of the file on which it begins."""
    with open(file, encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True, **dialect)
        while True:
            line = reader.line_num + 1
            try:
                with _long_fields():
                    row = next(reader, None)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{file} cannot be read as UTF-8 {file.suffix[1:]}: {error}; save it as UTF-8"
                ) from error
            except csv.Error as error:
                raise UserError(
                    f"{file}, line {line}: cannot be read as {file.suffix[1:]}: {error}; "
                    f"{QUOTING[file.suffix.lower()]}"
                ) from error
            if row is None:
                return
            if row:
                yield line, row


@contextmanager
def _long_fields() -> Iterator[None]:
    """Raises csv's field limit, which is global to the process, and restores it."""
    before = csv.field_size_limit(LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)
