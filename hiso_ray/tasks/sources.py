"""Tables of rows, from a hub dataset or from local files, through ``datasets``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiso_ray.tasks.benchmarks import Benchmark

FORMATS = {".tsv": "csv", ".csv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def tables(benchmark: Benchmark, data: str, known: set[str]) -> dict[str, Any]:
    """The splits of a source by name; a path that exists is read locally, else it is a hub name.

    Args:
        known: column names of which a header has at least one.

    Raises:
        ValueError: nothing there, or not readable.
    """
    if not _is_path(data):
        return _hub(benchmark, data)
    return _local(benchmark, Path(data), known)


def first(names: Sequence[str], present: Sequence[str] | dict[str, Any]) -> str | None:
    """The first of some names that is there."""
    return next((name for name in names if name in present), None)


def _is_path(data: str) -> bool:
    return Path(data).exists() or data.startswith((".", "/", "~")) or Path(data).suffix in FORMATS


def _hub(benchmark: Benchmark, name: str) -> dict[str, Any]:
    from datasets import load_dataset
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # the reason is in the exception
    try:
        return dict(load_dataset(name, benchmark.config if name == benchmark.data else None))
    except Exception as error:  # the hub library raises many unrelated types
        raise ValueError(
            f"task.data = {name}: not a local path, and the hub did not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); a local folder with "
            "train and validation files (TSV, CSV, JSONL or Parquet) works without a hub"
        ) from error


def _local(benchmark: Benchmark, path: Path, known: set[str]) -> dict[str, Any]:
    """One table per split; a split's name is its file's, up to a "-" (train-00000-of-00002)."""
    path = path.expanduser()
    if not path.exists():
        raise ValueError(f"task.data = {path}: no such file or folder")
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in FORMATS)
    if not files or (path.is_file() and path.suffix not in FORMATS):
        raise ValueError(f"task.data = {path}: no {', '.join(FORMATS)} file there")
    splits: dict[str, list[Path]] = {}
    wanted = {name for names in benchmark.splits for name in names}
    for file in files:
        own = (name for name in (file.name, file.stem) if name in wanted)
        splits.setdefault(next(own, file.stem.split("-")[0]), []).append(file)
    if len(splits) > 1:
        found, splits = list(splits), {n: f for n, f in splits.items() if n in wanted}
        if not splits:
            raise ValueError(
                f"task.data = {path}: no file is named for a split ({', '.join(sorted(wanted))}); "
                f"found {', '.join(found)}"
            )
    missing = [" or ".join(names) for names in benchmark.splits if first(names, splits) is None]
    if missing and not benchmark.divided:
        raise ValueError(
            f"task.data = {path}: no split {' and no '.join(missing)}; its files are "
            f"{', '.join(file.name for file in files)}"
        )
    for name, parts in splits.items():
        if len({part.suffix for part in parts}) > 1:
            raise ValueError(
                f"task.data = {path}: the split {name} is there more than once "
                f"({', '.join(part.name for part in parts)}); keep one"
            )
    return {name: _load(benchmark, parts, known) for name, parts in splits.items()}


def _load(benchmark: Benchmark, files: list[Path], known: set[str]) -> Any:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    builder = FORMATS[files[0].suffix]
    for file in files:
        if file.stat().st_size == 0:
            raise ValueError(f"{file} is empty")
    options = _csv_options(benchmark, files[0], known) if builder == "csv" else {}
    try:
        names = [str(file) for file in files]
        return load_dataset(builder, data_files=names, split="train", **options)
    except Exception as error:  # the builders wrap parser errors in types of their own
        cause = error.__cause__ or error
        raise ValueError(f"{files[0]} cannot be read as {builder}: {cause}") from error


def _csv_options(benchmark: Benchmark, file: Path, known: set[str]) -> dict[str, Any]:
    """How to read a TSV or CSV file, decided by its first row: header or not."""
    from datasets import Features, Value

    dialect: dict[str, Any] = {"delimiter": ",", "quoting": csv.QUOTE_MINIMAL}
    if file.suffix == ".tsv":
        dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            rows = csv.reader(lines, **dialect)
            top, second = next(rows), next(rows, None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read as UTF-8 {file.suffix[1:]}: {error}") from error
    header = bool(known & set(top))
    if header and second is None:
        raise ValueError(f"{file} has no rows below its header")
    if not header and len(top) != len(benchmark.columns):
        expected = f"must have the columns {', '.join(benchmark.columns)}"
        raise ValueError(
            f"{file}: the first row has {len(top)} columns and names none of "
            f"{', '.join(sorted(known))}; a file without a header "
            f"{expected if benchmark.columns else 'will not do for this task'}"
            f"; the row is {', '.join(top)[:100]}"
        )
    columns = top if header else list(benchmark.columns)
    return dialect | {
        "header": 0 if header else None,
        "names": columns,
        "keep_default_na": False,
        "features": Features({name: Value("string") for name in columns}),
    }
