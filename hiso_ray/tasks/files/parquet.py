"""Parquet files, read as Python values with pyarrow alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiso_ray.errors import UserError
from hiso_ray.tasks.files.table import Table, check_names, joined


def read(files: Sequence[Path]) -> Table:
    """The rows of a split's files.

    Raises:
        UserError: not Parquet, damaged, duplicate column names, or parts whose columns differ.
        OSError: a file that cannot be read.
    """
    return joined([(file, _part(file)) for file in files])


def _part(file: Path) -> Table:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    with open(file, "rb") as content:  # pyarrow would look for partitions in a path
        try:
            found = ParquetFile(content).read()
            columns = [column.to_pylist() for column in found.columns]
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise UserError(f"{file} cannot be read as parquet: {error}") from error
    check_names(file, found.column_names)
    return Table(tuple(found.column_names), list(zip(*columns, strict=True)))
