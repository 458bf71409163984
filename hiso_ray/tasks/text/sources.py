"""Finds a language task's rows: the files of each split in a folder, or a hub dataset.

This project reads local files itself, anew each time and each by its own header, so that the
training data depend on their contents, not on their times or on other files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiso_ray.errors import UserError
from hiso_ray.tasks.files import delimited, json_rows, parquet
from hiso_ray.tasks.files.table import Table
from hiso_ray.tasks.text.benchmark_row import Benchmark

FORMATS = (".tsv", ".csv", ".jsonl", ".json", ".parquet")


def tables(benchmark: Benchmark, data: str, known: set[str]) -> tuple[dict[str, Any], list[str]]:
    """The splits of a source by name; a path that exists is read locally, else it is a hub name.

    Args:
        known: column names; a first row that contains any of them is a header.

    Returns:
        Each split's rows (a :class:`Table`, or a ``datasets.Dataset``), and the names of files in
        a local folder that belong to no split.

    Raises:
        UserError: no data, or not readable.
    """
    if not _is_path(data):
        return _hub(benchmark, data), []
    return _local(benchmark, Path(data).expanduser(), known)


def first(names: Sequence[str], present: Sequence[str] | dict[str, Any]) -> str | None:
    """The first of some names that is present."""
    return next((name for name in names if name in present), None)


def _is_path(data: str) -> bool:
    return Path(data).exists() or data.startswith((".", "/", "~")) or _format(Path(data)) in FORMATS


def _format(file: Path) -> str:
    return file.suffix.lower()


def _hub(benchmark: Benchmark, name: str) -> dict[str, Any]:
    from datasets import load_dataset
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # the reason is in the exception
    try:
        return dict(load_dataset(name, benchmark.config if name == benchmark.data else None))
    except Exception as error:  # the hub library raises many unrelated types
        raise UserError(
            f"task.data = {name}: not a local path, and the hub did not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); a local folder with "
            "train and validation files (TSV, CSV, JSONL or Parquet) works without a hub"
        ) from error


def _local(benchmark: Benchmark, path: Path, known: set[str]) -> tuple[dict[str, Table], list[str]]:
    """One table per split; a split's name is its file name up to a "-" (train-00000-of-00002)."""
    if not path.exists():
        raise UserError(f"task.data = {path}: no such file or folder")
    there = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    files = [file for file in there if _format(file) in FORMATS]
    if not files:
        raise UserError(f"task.data = {path}: no {', '.join(FORMATS)} file there")
    splits: dict[str, list[Path]] = {}
    wanted = {name for names in benchmark.splits for name in names}
    for file in files:
        own = (name for name in (file.name, file.stem) if name in wanted)
        splits.setdefault(next(own, file.stem.split("-")[0]), []).append(file)
    if len(splits) > 1:
        found, splits = list(splits), {n: f for n, f in splits.items() if n in wanted}
        if benchmark.divided and first(benchmark.splits[0], splits) is None:
            raise UserError(
                f"task.data = {path}: no file is named for a split to train on "
                f"({' or '.join(benchmark.splits[0])}); found {', '.join(found)}"
            )
    missing = [" or ".join(names) for names in benchmark.splits if first(names, splits) is None]
    if missing and not benchmark.divided:
        raise UserError(
            f"task.data = {path}: no split {' and no '.join(missing)}; its files are "
            f"{', '.join(file.name for file in files)}"
        )
    for name, parts in splits.items():
        if len({part.suffix for part in parts}) > 1:
            raise UserError(
                f"task.data = {path}: the split {name} is there more than once "
                f"({', '.join(part.name for part in parts)}); keep one"
            )
    taken = {part for parts in splits.values() for part in parts}
    return (
        {name: _read(benchmark, parts, known) for name, parts in splits.items()},
        [file.name for file in there if file not in taken],
    )


def _read(benchmark: Benchmark, files: list[Path], known: set[str]) -> Table:
    try:
        for file in files:
            if file.stat().st_size == 0:
                raise UserError(f"{file} is empty")
        kind = _format(files[0])
        if kind in delimited.DIALECTS:
            return delimited.read(files, known, benchmark.columns)
        return parquet.read(files) if kind == ".parquet" else json_rows.read(files)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error
