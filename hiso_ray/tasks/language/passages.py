"""Plain text, one passage a line, as a language model sees it when it is pretrained.

The loss of a passage is the mean cross-entropy of every token after the first, whatever the run's
task. Long passages lose their beginning, as prompts do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hiso_ray.config import TaskConfig
from hiso_ray.config.section import MOST
from hiso_ray.errors import UserError
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.flat.batch import Batch
from hiso_ray.tasks.language.written import WrittenTask
from hiso_ray.tasks.pretrained import pretrained
from hiso_ray.tasks.text.tokens import tokenize

CPU = torch.device("cpu")


def read(config: TaskConfig, prepared: Prepared) -> tuple[WrittenTask, Iterator[Batch]]:
    """The model of a prepared task, on a CPU, and a batch for each passage of ``sparse_text``.

    Raises:
        UserError: the file is missing, is not UTF-8, or has no passage of two tokens.
    """
    assert isinstance(config.max_length, int)
    limit = min(config.max_length, pretrained.positions(prepared.spec["model"]) or MOST)
    tokenizer, lines = pretrained.local_tokenizer(config.model), _lines(config.sparse_text)
    tokens = tokenize(lines, [(0, len(line)) for line in lines], tokenizer, limit)
    rows = [row for row in np.split(tokens.ids, tokens.offsets[1:-1]) if len(row) > 1]
    if not rows:
        raise UserError(f"task.sparse_text = {config.sparse_text}: no line has two tokens")
    arrays = _joined("train_prompt", [row[:1] for row in rows])
    arrays |= _joined("train_answer", [row[1:] for row in rows])
    task = WrittenTask(config, replace(prepared, arrays=prepared.arrays | arrays), CPU)
    pretrained.check_tokens(tokens.ids, task.module, tokenizer, config.model)
    return task, (task.batch(np.array([i])) for i in range(len(rows)))


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"task.sparse_text = {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"task.sparse_text = {path}: not UTF-8 text ({error})") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(
            f"task.sparse_text = {path}: it is empty; give plain text, one passage a line"
        )
    return lines


def _joined(name: str, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    offsets = np.cumsum([0, *map(len, rows)])
    return {f"{name}_ids": np.concatenate(rows), f"{name}_offsets": offsets}
