"""Rows of text with class labels, from a hub dataset or from local files, through ``datasets``."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hiso_ray.seeds import Purpose, generator
from hiso_ray.tasks.benchmarks import Benchmark

FORMATS = {".tsv": "csv", ".csv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
HELD_OUT = 0.2  # of a source that has one split only


@dataclass(frozen=True)
class Rows:
    """Prompts (without the answer) and class indices, in file order."""

    prompts: list[str]
    labels: np.ndarray


def read(benchmark: Benchmark, data: str, run_seed: int) -> tuple[Rows, Rows, tuple[str, ...]]:
    """Training rows, evaluation rows, and notes for the user.

    A path that exists is read locally, anything else is a hub name. A source with a single split
    is divided 80:20, stratified, by the run seed.

    Raises:
        ValueError: nothing there, a missing column, an unknown label, or no rows.
    """
    tables = _local(benchmark, Path(data)) if _is_path(data) else _hub(benchmark, data)
    train_name, eval_name = (_first(names, tables) for names in benchmark.splits)
    if train_name and eval_name:
        train = _rows(benchmark, tables[train_name], f"{data} ({train_name})")
        return train, _rows(benchmark, tables[eval_name], f"{data} ({eval_name})"), ()
    if len(tables) != 1:
        wanted = " and ".join("/".join(names) for names in benchmark.splits)
        raise ValueError(
            f"task.data = {data}: needs splits {wanted}, or one alone to divide; "
            f"found {', '.join(tables)}"
        )
    ((name, table),) = tables.items()
    train, held_out = _divide(_rows(benchmark, table, f"{data} ({name})"), run_seed)
    note = (
        f"{data} has the split {name} only: {len(held_out.labels)} of its "
        f"{len(held_out.labels) + len(train.labels)} rows are held out for evaluation"
    )
    return train, held_out, (note,)


def _is_path(data: str) -> bool:
    return Path(data).exists() or data.startswith((".", "/", "~")) or Path(data).suffix in FORMATS


def _first(names: Sequence[str], tables: dict[str, Any]) -> str | None:
    return next((name for name in names if name in tables), None)


def _hub(benchmark: Benchmark, name: str) -> dict[str, Any]:
    from datasets import load_dataset

    try:
        return dict(load_dataset(name, benchmark.config if name == benchmark.data else None))
    except Exception as error:  # the hub library raises many unrelated types
        raise ValueError(
            f"task.data = {name}: not a local path, and the hub did not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); a local folder with "
            "train and validation files (TSV, CSV, JSONL or Parquet) works without a hub"
        ) from error


def _local(benchmark: Benchmark, path: Path) -> dict[str, Any]:
    """One table per split; a split's name is its file's, up to a "-" (train-00000-of-00002)."""
    path = path.expanduser()
    if not path.exists():
        raise ValueError(f"task.data = {path}: no such file or folder")
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in FORMATS)
    if not files or (path.is_file() and path.suffix not in FORMATS):
        raise ValueError(f"task.data = {path}: no {', '.join(FORMATS)} file there")
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(file.stem.split("-")[0], []).append(file)
    if len(splits) > 1:
        wanted = {name for names in benchmark.splits for name in names}
        found, splits = list(splits), {n: f for n, f in splits.items() if n in wanted}
        if not splits:
            raise ValueError(
                f"task.data = {path}: no file is named for a split ({', '.join(sorted(wanted))}); "
                f"found {', '.join(found)}"
            )
    for name, parts in splits.items():
        if len({part.suffix for part in parts}) > 1:
            raise ValueError(
                f"task.data = {path}: the split {name} is there more than once "
                f"({', '.join(part.name for part in parts)}); keep one"
            )
    return {name: _load(benchmark, parts) for name, parts in splits.items()}


def _load(benchmark: Benchmark, files: list[Path]) -> Any:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    builder = FORMATS[files[0].suffix]
    for file in files:
        if file.stat().st_size == 0:
            raise ValueError(f"{file} is empty")
    options = _csv_options(benchmark, files[0]) if builder == "csv" else {}
    try:
        names = [str(file) for file in files]
        return load_dataset(builder, data_files=names, split="train", **options)
    except Exception as error:  # the builders wrap parser errors in types of their own
        cause = error.__cause__ or error
        raise ValueError(f"{files[0]} cannot be read as {builder}: {cause}") from error


def _csv_options(benchmark: Benchmark, file: Path) -> dict[str, Any]:
    """How to read a TSV or CSV file, decided by its first row: header or not."""
    from datasets import Features, Value

    dialect: dict[str, Any] = {"delimiter": ",", "quoting": csv.QUOTE_MINIMAL}
    if file.suffix == ".tsv":
        dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            rows = csv.reader(lines, **dialect)
            first, second = next(rows), next(rows, None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read as UTF-8 {file.suffix[1:]}: {error}") from error
    known = _known_columns(benchmark)
    header = bool(known & set(first))
    if header and second is None:
        raise ValueError(f"{file} has no rows below its header")
    if not header and len(first) != len(benchmark.columns):
        raise ValueError(
            f"{file}: the first row has {len(first)} columns and names none of "
            f"{', '.join(sorted(known))}; a file without a header must have the columns "
            f"{', '.join(benchmark.columns)}"
        )
    columns = first if header else list(benchmark.columns)
    return dialect | {
        "header": 0 if header else None,
        "names": columns,
        "keep_default_na": False,
        "features": Features({name: Value("string") for name in columns}),
    }


def _known_columns(benchmark: Benchmark) -> set[str]:
    formats = [f for alternatives in benchmark.fields.values() for f in alternatives]
    return set(benchmark.labels) | {c for f in formats for c in _columns_of(f)}


def _columns_of(format_: str) -> list[str]:
    return re.findall(r"{([^}]+)}", format_)


def _rows(benchmark: Benchmark, table: Any, source: str) -> Rows:
    have = list(table.column_names)
    if len(table) == 0:
        raise ValueError(f"{source} has no rows")
    fields = {}
    for field, alternatives in benchmark.fields.items():
        fitting = [f for f in alternatives if set(_columns_of(f)) <= set(have)]
        if not fitting:
            wanted = " or ".join("+".join(_columns_of(f)) for f in alternatives)
            raise ValueError(f"{source}: no column {wanted}; it has {', '.join(have)}")
        fields[field] = fitting[0]
    label_column = _first(list(benchmark.labels), dict.fromkeys(have))
    if label_column is None:
        raise ValueError(
            f"{source}: no column {' or '.join(benchmark.labels)}; it has {', '.join(have)}"
        )
    values = benchmark.labels[label_column]
    prompts, labels = [], []
    for number, row in enumerate(table, start=1):
        label = str(row[label_column])
        if label not in values:
            hint = "; if this row is a header, it names none of the columns needed" * (number == 1)
            raise ValueError(
                f"{source}, row {number}: unknown label {label!r} in column {label_column}; "
                f"allowed: {', '.join(values)}{hint}"
            )
        missing = [c for f in fields.values() for c in _columns_of(f) if row[c] is None]
        if missing:
            raise ValueError(f"{source}, row {number}: column {missing[0]} is empty (null)")
        labels.append(values.index(label))
        prompts.append(benchmark.prompt.format(**{k: f.format(**row) for k, f in fields.items()}))
    return Rows(prompts, np.array(labels, np.int64))


def _divide(rows: Rows, run_seed: int) -> tuple[Rows, Rows]:
    rng = generator(run_seed, Purpose.HOLD_OUT)
    held = np.zeros(len(rows.labels), bool)
    for label in np.unique(rows.labels):
        members = rng.permutation(np.flatnonzero(rows.labels == label))
        held[members[: max(1, round(HELD_OUT * len(members)))]] = True
    if held.all():
        raise ValueError("too few rows to hold some out for evaluation: give a train and a "
                         "validation file")  # fmt: skip
    parts = []
    for chosen in (~held, held):
        index = np.flatnonzero(chosen)
        parts.append(Rows([rows.prompts[i] for i in index], rows.labels[index]))
    return parts[0], parts[1]
