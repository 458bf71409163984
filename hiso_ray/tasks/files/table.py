"""Rows of local files in memory, whatever the files' format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiso_ray.errors import UserError


@dataclass(frozen=True)
class Table:
    """The part of the interface of ``datasets.Dataset``, the type of hub data, that tasks use.

    Attributes:
        column_names: unique.
        rows: each row's values in the order of ``column_names``; None for a missing value.
    """

    column_names: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(self.column_names, row, strict=True)) for row in self.rows)

    def select(self, index: Sequence[int]) -> Table:
        return Table(self.column_names, [self.rows[i] for i in index])


def doubles(names: Sequence[str]) -> list[str]:
    """The ``repr`` of every name that occurs more than once."""
    return [repr(name) for name, times in Counter(names).items() if times > 1]


def check_names(file: Path, names: Sequence[str]) -> None:
    """
    Raises:
        UserError: two columns have the same name.
    """
    if twice := doubles(names):
        raise UserError(
            f"{file}: more than one column is named {', '.join(twice)}; rename or remove all but "
            "one"
        )


def joined(parts: Sequence[tuple[Path, Table]]) -> Table:
    """Joins a split's part files into one table, matching columns by name, in the first's order.

    Raises:
        UserError: parts whose columns differ.
    """
    (first, begun), *others = parts
    names, rows = begun.column_names, list(begun.rows)
    for file, table in others:
        if set(table.column_names) != set(names):
            raise UserError(
                f"{file} has the columns {', '.join(table.column_names)}, and {first} has "
                f"{', '.join(names)}: the parts of a split need the same ones, in any order"
            )
        place = [table.column_names.index(name) for name in names]
        rows += [tuple(row[i] for i in place) for row in table.rows]
    return Table(names, rows)
