"""Small data files for tests, and what a task reads from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiso_ray.config import TaskConfig
from hiso_ray.tasks.text import examples
from hiso_ray.tasks.text.benchmarks import BENCHMARKS
from hiso_ray.tasks.text.prompts import Examples

ROWS = [("a fine film", "1"), ("a dull film", "0"), ("so warm", "1"), ("too cold", "0")]


def read(data: Path, name: str = "sst2") -> tuple[Examples, Examples, tuple[str, ...]]:
    return examples.read(BENCHMARKS[name], TaskConfig(name=name, data=str(data)), 0)


def write(file: Path, rows: Sequence[Sequence[Any]], header: str = "text,label") -> Path:
    """Comma-separated lines, tab-separated or JSON, by the name of the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    names = header.split(",") if header else []
    if file.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    else:
        between = "," if file.suffix.lower() == ".csv" else "\t"
        lines = [between.join(map(str, row)) for row in ([names] if names else []) + list(rows)]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file
