"""JSON files: one object per line, or a list of objects. Values are not converted.

A string that looks like a date or a number stays a string, and a number with a decimal point is
kept as a string, exactly as written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hiso_ray.errors import UserError
from hiso_ray.tasks.files.table import Table, doubles

Row = dict[str, Any]


def read(files: Sequence[Path]) -> Table:
    """The rows of a split's files. A column is a key that any row has; rows without it have None.

    Raises:
        UserError: not UTF-8 or not JSON, a value that is not an object, or a duplicate key; names
            the file and line.
        OSError: a file that cannot be read.
    """
    rows = [row for file in files for row in _rows(file)]
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(names, [tuple(map(row.get, names)) for row in rows])


def _rows(file: Path) -> Iterator[Row]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} cannot be read as UTF-8: {error}; save it as UTF-8") from error
    if text.lstrip().startswith("["):
        for number, value in enumerate(_parsed(text, f"{file}"), start=1):
            yield _object(value, f"{file}, row {number}")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{file}, line {number}"
            yield _object(_parsed(line, where), where)


def _parsed(text: str, where: str) -> Any:
    try:
        found = json.loads(
            text, parse_float=str, parse_constant=_constant, object_pairs_hook=_without_doubles
        )
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()  # rejects lone surrogates
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: cannot be read as JSON: {error}") from error
    return found


def _constant(name: str) -> None:
    """Reads NaN, which other libraries write for a missing number, as None; rejects infinities."""
    if name != "NaN":
        raise UserError(f"{name} is no value")


def _without_doubles(pairs: list[tuple[str, Any]]) -> Row:
    names = [name for name, _ in pairs]
    if twice := doubles(names):
        raise UserError(f"more than one value is named {', '.join(twice)}")
    return dict(pairs)


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where}: {str(value)[:40]!r} is no object of columns and values")
    return value
