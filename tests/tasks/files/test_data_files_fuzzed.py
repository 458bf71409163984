"""Data files of any bytes: refused in words, or read with the rows that a strict reader gives."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pandas as pd
import pytest

from hiso_ray.config import TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.tasks.text import examples
from hiso_ray.tasks.text.benchmarks import BENCHMARKS
from hiso_ray.tasks.text.prompts import known_columns
from hiso_ray.tasks.text.sources import tables

SST2 = BENCHMARKS["sst2"]
KNOWN = known_columns(SST2)
PIECES = [
    *("a", "0", "1", " ", "film", '"', '""', ",", "\t", "\n", "\r", "\r\n", "'", "\\", "\ufeff"),
    *("é", "😀", "\u2028", "\x00", "\x1c", "null", "NaN", "[", "{", "text", "label"),
]
HEADERS = [
    *[["text", "label"]] * 3, ["label", "text"], ["id", "text", "label"],
    ["text", "text"], ["x"], [],
]  # fmt: skip
ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig"] * 2 + ["utf-16", "latin-1"]
DIALECTS: dict[str, dict[str, Any]] = {
    "csv": {"delimiter": ","},
    "tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
}
Rows = list[dict[str, Any]]
T = TypeVar("T")


def some(rng: Random, most: int) -> str:
    return "".join(rng.choices(PIECES, k=rng.randint(0, most)))


def field(rng: Random, name: str) -> str:
    if rng.random() < 0.05:
        return some(rng, 4)
    return rng.choice("01") if name == "label" else "a" + some(rng, 4)


def delimited(rng: Random, kind: str) -> str:
    """Rows as a writer writes them, now and then with a field too many; or pieces of anything."""
    if rng.random() < 0.2:
        return some(rng, 30)
    header = rng.choice(HEADERS)
    rows = [header] * bool(header) + [
        [field(rng, name) for name in (header or SST2.columns)] + ["more"] * (rng.random() < 0.03)
        for _ in range(rng.randint(0, 6))
    ]
    end = rng.choice(["\n", "\r\n", "\r", "\n\n"])
    if kind == "tsv":
        return "".join("\t".join(row) + end for row in rows)
    written = io.StringIO()
    csv.writer(written, lineterminator=end).writerows(rows)
    return written.getvalue()


def value(rng: Random, name: str) -> Any:
    if rng.random() < 0.9:
        return rng.choice([0, 1, "1", 1.0]) if name == "label" else "a" + some(rng, 4)
    return anything(rng)


def anything(rng: Random, depth: int = 2) -> Any:
    plain = [some(rng, 4), rng.randint(-3, 3), rng.random(), None, True, float("nan"), 10**30]
    if depth and rng.random() < 0.2:
        return rng.choice([[anything(rng, depth - 1)], {some(rng, 1): anything(rng, depth - 1)}])
    return rng.choice(plain)


def json_lines(rng: Random) -> str:
    if rng.random() < 0.1:
        return some(rng, 30)
    names = rng.choice(HEADERS)
    rows = [{name: value(rng, name) for name in names} for _ in range(rng.randint(0, 6))]
    if rng.random() < 0.2:
        return json.dumps(rows)
    ascii_only = rng.random() < 0.5
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)


def content(rng: Random, kind: str) -> bytes:
    """A file of that kind, in some encoding, in one of three with a few bytes changed."""
    text = json_lines(rng) if kind == "jsonl" else delimited(rng, kind)
    made = bytearray(text.encode(rng.choice(ENCODINGS), errors="replace"))
    damage(made, rng, rng.choice([0, 0, 1, 3]))
    return bytes(made) if rng.random() < 0.97 else rng.randbytes(rng.randint(0, 40))


def damage(made: bytearray, rng: Random, places: int) -> None:
    for _ in range(places):
        place = rng.randint(0, len(made))
        made[place : place + rng.randint(0, 1)] = rng.randbytes(rng.randint(0, 2))


def strictly_delimited(raw: bytes, kind: str) -> Rows | None:
    """By the standard library, or None where something does not fit."""
    try:
        lines = io.StringIO(raw.decode("utf-8-sig"), newline="")
        rows = [row for row in csv.reader(lines, strict=True, **DIALECTS[kind]) if row]
    except (UnicodeDecodeError, csv.Error):
        return None
    if not rows:
        return None
    header = bool(KNOWN & set(rows[0]))
    names = rows[0] if header else list(SST2.columns)
    below = rows[1:] if header else rows
    fitting = {len(row) for row in below} == {len(names)} and len(set(names)) == len(names)
    return [dict(zip(names, row, strict=True)) for row in below] if fitting else None


def strictly_json(raw: bytes) -> Rows | None:
    def row(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    def number(name: str) -> None:
        if name != "NaN":
            raise ValueError(name)

    reader = json.JSONDecoder(object_pairs_hook=row, parse_float=str, parse_constant=number)
    try:
        text = raw.decode("utf-8-sig")
        if text.strip()[:1] == "[":
            rows = reader.decode(text.strip())
        else:
            rows = [reader.decode(line.strip()) for line in text.split("\n") if line.strip()]
        json.dumps(rows, ensure_ascii=False).encode()
    except ValueError:
        return None
    if not all(isinstance(row, dict) for row in rows):
        return None
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def check(file: Path, raw: bytes, kind: str) -> str:
    """What became of one file: refused, read, or trained on."""
    file.write_bytes(raw)
    expected = None
    if raw:
        expected = strictly_json(raw) if kind == "jsonl" else strictly_delimited(raw, kind)
    splits, said = said_of(lambda: tables(SST2, str(file), KNOWN)[0])
    if splits is None:
        assert str(file) in said
        assert expected is None
        return "refused"
    assert [list(table) for table in splits.values()] == [expected]
    config = TaskConfig(name="sst2", data=str(file))
    found, said = said_of(lambda: examples.read(SST2, config, 0))
    if found is None:
        assert str(file) in said or "too few rows" in said
        return "read"
    wanted = sorted(f"{str(row['text']).strip()} It was" for row in expected or ())
    assert sorted(found[0].prompts + found[1].prompts) == wanted
    return "trained on"


def said_of(reading: Callable[[], T]) -> tuple[T | None, str]:
    """What was read, or the words of a ``UserError``; any other error is a fault."""
    try:
        return reading(), ""
    except ValueError as error:
        if type(error) is not UserError:
            raise
        return None, str(error)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("files", [1000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_any_bytes_are_refused_in_words_or_read_exactly(
    tmp_path: Path, kind: str, files: int
) -> None:
    seen = []
    for seed in range(files):
        raw = content(Random(f"{kind} {seed}"), kind)
        try:
            seen.append(check(tmp_path / f"data.{kind}", raw, kind))
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {raw!r}") from error
    for outcome in ("refused", "read", "trained on"):
        assert seen.count(outcome) > files / 50, outcome


@pytest.mark.parametrize("files", [100, pytest.param(5_000, marks=pytest.mark.slow)])
def test_damaged_parquet_is_read_or_refused_in_words(tmp_path: Path, files: int) -> None:
    rows = {"text": [f"film {i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
    file = tmp_path / "data.parquet"
    pd.DataFrame(rows).to_parquet(file)
    whole = file.read_bytes()
    for seed in range(files):
        rng, made = Random(seed), bytearray(whole)
        damage(made, rng, rng.choice([1, 1, 2, 8]))
        file.write_bytes(made)
        read, said = said_of(lambda: tables(SST2, str(file), KNOWN))
        assert read is not None or str(file) in said, seed
