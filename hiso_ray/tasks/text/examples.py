"""The training and evaluation examples of a benchmark, from any of its sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hiso_ray.config import TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.seeds import Purpose, generator
from hiso_ray.tasks.files.table import Table
from hiso_ray.tasks.text import reviews
from hiso_ray.tasks.text.benchmark_row import Benchmark, Classification
from hiso_ray.tasks.text.prompts import Examples, examples_of, known_columns
from hiso_ray.tasks.text.sources import first, tables

HELD_OUT = 0.2  # of a source with only one split


def read(
    benchmark: Benchmark, config: TaskConfig, run_seed: int, column: str | None = None
) -> tuple[Examples, Examples, tuple[str, ...]]:
    """Training and evaluation examples, and notes for the user.

    A source with a single split is divided 80:20, stratified, by the run seed. Then the first
    ``train_examples`` and ``eval_examples`` are taken.

    Args:
        column: of the training split, stored as :attr:`Examples.groups`.

    Raises:
        UserError: no data, too few examples, a missing column, an unknown label, or no rows.
    """
    data = config.data
    unread: list[str] = []
    if data == "generated":
        found = {name: _generated(name) for name in ("train", "validation")}
    else:
        found, unread = tables(benchmark, data, known_columns(benchmark))
    limits = (
        benchmark.train_examples if config.train_examples == "auto" else config.train_examples,
        benchmark.eval_examples if config.eval_examples == "auto" else config.eval_examples,
    )
    train_name, eval_name = (first(names, found) for names in benchmark.splits)
    if train_name and eval_name:
        head = _head(found[train_name], limits[0])
        train = examples_of(benchmark, head, f"{data} ({train_name})", column)
        head = _head(found[eval_name], limits[1])
        held = examples_of(benchmark, head, f"{data} ({eval_name})", None)
        notes: tuple[str, ...] = ()
    elif len(found) == 1 and benchmark.divided:
        ((name, table),) = found.items()
        whole = examples_of(benchmark, table, f"{data} ({name})", column)
        parts = _divide(whole, run_seed)
        notes = (
            f"{data} has the split {name} only: {len(parts[1])} of its {len(whole)} rows are held "
            f"out for evaluation{_not_read(unread)}",
            *_alone(benchmark, whole),
        )
        train, held = (_take(e, range(len(e))[:n]) for e, n in zip(parts, limits, strict=True))
    else:
        wanted = " and ".join("/".join(names) for names in benchmark.splits)
        alone = ", or one alone to divide" if benchmark.divided else ""
        raise UserError(
            f"task.data = {data}: needs splits {wanted}{alone}; found {', '.join(found)}"
        )
    for name, taken in (("train_examples", train), ("eval_examples", held)):
        asked = getattr(config, name)
        if asked != "auto" and asked > len(taken):
            raise UserError(f"task.{name} = {asked}: {data} has {len(taken)}")
    return train, held, notes


def _head(table: Any, rows: int | None) -> Any:
    """The first rows; the others are not read."""
    return table if rows is None else table.select(range(min(rows, len(table))))


def _generated(split: str) -> Table:
    rows = reviews.reviews(split)
    names = tuple(rows[0])
    return Table(names, [tuple(row[name] for name in names) for row in rows])


def _not_read(files: Sequence[str]) -> str:
    if not files:
        return ""
    some = ", ".join(files[:5]) + (", …" if len(files) > 5 else "")
    return f"; files of no split that is looked for are not read: {some}"


def _alone(benchmark: Benchmark, whole: Examples) -> list[str]:
    """A note about classes with a single row, which cannot be divided."""
    if not isinstance(benchmark, Classification):
        return []
    counts = np.bincount(whole.labels, minlength=len(benchmark.names))
    names = [name for name, n in zip(benchmark.names, counts, strict=True) if n == 1]
    if not names:
        return []
    return [f"one row only of {', '.join(names)}: it is trained on, and none evaluated"]


def _divide(examples: Examples, run_seed: int) -> tuple[Examples, Examples]:
    rng = generator(run_seed, Purpose.HOLD_OUT)
    held = np.zeros(len(examples), bool)
    for label in np.unique(examples.labels):
        members = rng.permutation(np.flatnonzero(examples.labels == label))
        held[members[: min(len(members) - 1, max(1, round(HELD_OUT * len(members))))]] = True
    if not held.any():
        raise UserError("too few rows to hold some out for evaluation: give a train and a "
                         "validation file")  # fmt: skip
    return _take(examples, np.flatnonzero(~held).tolist()), _take(
        examples, np.flatnonzero(held).tolist()
    )


def _take(examples: Examples, index: Sequence[int]) -> Examples:
    def some(values: list[Any]) -> list[Any]:
        return [values[i] for i in index] if values else []

    return replace(
        examples,
        prompts=some(examples.prompts),
        contexts=some(examples.contexts),
        labels=examples.labels[list(index)],
        references=some(examples.references),
        groups=some(examples.groups),
    )
