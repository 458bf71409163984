"""Turns rows of a benchmark's table into prompts and their answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

import numpy as np

from hiso_ray.errors import UserError
from hiso_ray.tasks.text.benchmark_row import Benchmark, Classification, Generation
from hiso_ray.tasks.text.sources import first


@dataclass(frozen=True)
class Examples:
    """Examples of one split, in file order.

    Attributes:
        prompts: texts without the answer.
        contexts: for each prompt, character range (begin, end) of the field that may be truncated.
        labels: (n,) int64 class indices; zeros for generation.
        references: acceptable answers of each generation example; empty for classification.
        groups: each example's value in the column that the partition groups by, if one was named.
    """

    prompts: list[str]
    contexts: list[tuple[int, int]]
    labels: np.ndarray
    references: list[list[str]]
    groups: list[str]

    def __len__(self) -> int:
        return len(self.prompts)


class _NotText(Exception):
    """A column holds something other than a string or a number."""


class _Format(Formatter):
    """``str.format`` of strings and numbers, with "!l" for lower case; missing values are empty."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        try:
            value, first = super().get_field(field_name, args, kwargs)
        except (KeyError, TypeError):
            value, first = None, field_name
        if _missing(value):
            return "", first
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise _NotText(f"{field_name} holds {value!r:.60}")
        return value, first

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        return value.lower() if conversion == "l" else super().convert_field(value, conversion)


_FORMAT = _Format()


def _columns_of(template: str) -> list[str]:
    return re.findall(r"{([^}\[!]+)[^}]*}", template)


def known_columns(benchmark: Benchmark) -> set[str]:
    """Every column that a prompt, a label or a reference may use."""
    templates = [t for alternatives in benchmark.fields.values() for t in alternatives]
    known = {column for template in templates for column in _columns_of(template)}
    if isinstance(benchmark, Classification):
        return known | set(benchmark.labels)
    assert isinstance(benchmark, Generation)
    return known | {path.split(".")[0] for path in benchmark.references}


def examples_of(benchmark: Benchmark, table: Any, source: str, column: str | None) -> Examples:
    """The examples of one split.

    Args:
        table: a ``datasets.Dataset`` or a :class:`Table`.
        source: how errors name it.
        column: stored as :attr:`Examples.groups`.

    Raises:
        UserError: a missing column, an unknown label, an empty value, or no rows.
    """
    have = list(table.column_names)
    if len(table) == 0:
        raise UserError(f"{source} has no rows")
    if column is not None and column not in have:
        raise UserError(
            f"federation.by = {column}: {source} has no such column; choose label, length, or one "
            f"of {', '.join(have)}"
        )
    templates = {}
    for field, alternatives in benchmark.fields.items():
        fitting = [t for t in alternatives if set(_columns_of(t)) <= set(have)]
        if not fitting:
            wanted = " or ".join("+".join(_columns_of(t)) for t in alternatives)
            raise UserError(f"{source}: no column {wanted}; it has {', '.join(have)}")
        templates[field] = fitting[0]
    answer = _label_reader(benchmark, have, source) if isinstance(benchmark, Classification) else (
        _reference_reader(benchmark, have, source)
    )  # fmt: skip
    optional = {field for field, alternatives in benchmark.fields.items() if "" in alternatives}
    optional |= set(benchmark.may_be_empty)
    prompts, contexts, labels, references, groups = [], [], [], [], []
    for number, row in enumerate(table, start=1):
        fields = {}
        for name, template in templates.items():
            try:
                fields[name] = _FORMAT.format(template, **row).strip()
            except _NotText as error:
                raise UserError(
                    f"{source}, row {number}: column {error}, which is neither a text nor a "
                    "number; write it as the text that the model is to read"
                ) from None
            if not fields[name] and name not in optional:
                parts = [part for _, part, _, _ in _FORMAT.parse(template) if part]
                raise UserError(
                    f"{source}, row {number}: column {' and '.join(parts)} is empty (null, no text "
                    "or white space alone); leave such rows out"
                )
        found = answer(row, number)
        labels.append(found if isinstance(found, int) else 0)
        if isinstance(found, list):
            references.append(found)
        prompt, context = _prompt(benchmark, fields)
        prompts.append(prompt)
        contexts.append(context)
        if column is not None:
            groups.append(str(row[column]))
    return Examples(prompts, contexts, np.array(labels, np.int64), references, groups)


def _prompt(benchmark: Benchmark, fields: dict[str, str]) -> tuple[str, tuple[int, int]]:
    template, context = benchmark.prompt, fields[benchmark.context]
    if benchmark.without_context is not None and not context:
        template = benchmark.without_context
    text, places = "", [0]  # the last one is the beginning of the context
    for literal, field, _, _ in _FORMAT.parse(template):
        text += literal
        if field is not None:
            if field == benchmark.context:
                places.append(len(text))
            text += fields[field]
    return text, (places[-1], places[-1] + len(context))


def _label_reader(benchmark: Classification, have: Sequence[str], source: str) -> Any:
    column = first(list(benchmark.labels), have)
    if column is None:
        raise UserError(
            f"{source}: no column {' or '.join(benchmark.labels)}; it has {', '.join(have)}"
        )
    classes = benchmark.labels[column]
    spelled = {spelling: i for i, c in enumerate(classes) for spelling in c.split("|")}

    def read_label(row: dict[str, Any], number: int) -> int:
        label = "" if _missing(row[column]) else str(row[column]).strip().lower()
        if not label:
            raise UserError(f"{source}, row {number}: no label in column {column}")
        if label not in spelled:  # 1.0: a missing value turns a column of integers into floats
            label = re.sub(r"\.0+$", "", label)
        if label not in spelled:
            header = "; if this row is a header, it names none of the columns needed"
            hint = header if number == 1 else ""
            raise UserError(
                f"{source}, row {number}: unknown label {row[column]!r} in column {column}; "
                f"allowed: {', '.join(spelled)}{hint}"
            )
        return spelled[label]

    return read_label


def _reference_reader(benchmark: Benchmark, have: Sequence[str], source: str) -> Any:
    assert isinstance(benchmark, Generation)

    def read_references(row: dict[str, Any], number: int) -> list[str]:
        for path in benchmark.references:
            value: Any = row
            for key in path.split("."):
                value = value.get(key) if isinstance(value, dict) else None
            texts = value if isinstance(value, list) else [value]
            if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
                raise UserError(
                    f"{source}, row {number}: column {path} holds a structure written as text; "
                    "keep nested columns in JSONL or Parquet"
                )
            if texts and all(_is_written(t) for t in texts):
                return [str(text).strip() for text in texts]
        raise UserError(
            f"{source}, row {number}: no reference answer in {' or '.join(benchmark.references)}; "
            f"it has {', '.join(have)}"
        )

    return read_references


def _is_written(text: Any) -> bool:
    number = isinstance(text, (int, float)) and not isinstance(text, bool) and not _missing(text)
    return number or (isinstance(text, str) and bool(text.strip()))


def _missing(value: Any) -> bool:
    """Whether a value is None, or NaN, which replaces None in a column of numbers."""
    return value is None or (isinstance(value, float) and value != value)
