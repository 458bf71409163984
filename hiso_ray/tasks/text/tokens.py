"""Turns text into token ids, cached by content: the next run with the same text reads a file.

Sequences are concatenated in one array, which all processes of a node share. A prompt that is too
long loses the beginning of its *context* (the passage, the article), then the beginning of the
rest, so the text after the context is cut last; leading special tokens are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hiso_ray import progress
from hiso_ray.run_folder.whole_files import whole
from hiso_ray.tasks.pretrained.cache import cache

VERSION = 4  # of the truncation and of the file format
ANCHORS = ("x", "\n", ":")  # texts before a continuation


@dataclass(frozen=True)
class Tokens:
    """Concatenated sequences of token ids.

    Attributes:
        ids: (total,) int32.
        offsets: (n + 1,) int64, where each sequence begins, and the end.
        cut: (n,) bool, whether the text was truncated.
    """

    ids: np.ndarray
    offsets: np.ndarray
    cut: np.ndarray

    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


def tokenize(
    texts: Sequence[str],
    contexts: Sequence[tuple[int, int]] | None,
    tokenizer: Any,
    limit: int,
) -> Tokens:
    """Tokens of every text, at most ``limit`` each, from the cache if possible.

    Args:
        contexts: character range (begin, end) of each text that is cut first; None for answers,
            which get no special tokens and lose their end.
        tokenizer: a fast tokenizer.
    """
    path = cache() / "tokens" / f"{_key(texts, contexts, tokenizer, limit)}.safetensors"
    found = _read(path)
    if found is None:
        rows = list(_rows(texts, contexts, tokenizer, limit))
        sizes = [len(ids) for ids, _ in rows]
        found = Tokens(
            np.array([i for ids, _ in rows for i in ids], np.int32),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.array([cut for _, cut in rows], bool),
        )
        _write(path, found)
    return found


def continuations(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Token ids of each text as the continuation of another, without special tokens.

    Some tokenizers prepend a space (▁) to every text, even one that begins with a space: with
    those, a text is tokenized after a short anchor, whose tokens are then removed.
    """
    alone: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)[
        "input_ids"
    ]
    if _after("x", " x", tokenizer) in (None, [], _ids(" x", tokenizer)):
        return alone  # the tokenizer prepends nothing
    return [
        next((f for f in (_after(a, text, tokenizer) for a in ANCHORS) if f is not None), ids)
        for text, ids in zip(texts, alone, strict=True)
    ]


def _ids(text: str, tokenizer: Any) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _after(anchor: str, text: str, tokenizer: Any) -> list[int] | None:
    """Tokens of ``text`` after ``anchor``; None where the two share a token."""
    before, both = _ids(anchor, tokenizer), _ids(anchor + text, tokenizer)
    return both[len(before) :] if both[: len(before)] == before else None


def _rows(
    texts: Sequence[str], contexts: Sequence[tuple[int, int]] | None, tokenizer: Any, limit: int
) -> Any:
    for first in progress.parts("tokenizing", range(0, len(texts), 1000)):
        some = list(texts[first : first + 1000])
        if contexts is None:
            for ids in continuations(some, tokenizer):
                yield ids[:limit], len(ids) > limit
            continue
        found = tokenizer(
            some, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
        )
        for i, ids in enumerate(found["input_ids"]):
            order = _cut_order(
                found["offset_mapping"][i],
                found["special_tokens_mask"][i],
                contexts[first + i],
            )
            end = _end(found["special_tokens_mask"][i])
            lost = set(order[: max(0, end - limit)])
            yield [t for k, t in enumerate(ids[:end]) if k not in lost], end > limit


def _end(special: Sequence[int]) -> int:
    """End of a prompt without final special tokens: its answer follows, not the end of the text."""
    return max((k + 1 for k, s in enumerate(special) if not s), default=len(special))


def _cut_order(
    spans: Sequence[tuple[int, int]], special: Sequence[int], context: tuple[int, int]
) -> list[int]:
    """Positions in the order in which they are cut: those of the context, then the others.

    A token belongs to the context if it ends in it: the space before a word is often part of the
    word's token, and a newline of the token of the full stop before it.
    """
    begin, end = context
    inside = [k for k, (_, b) in enumerate(spans) if not special[k] and begin < b <= end]
    others = [k for k, (_, b) in enumerate(spans) if not special[k] and not begin < b <= end]
    return inside + others


def _key(
    texts: Sequence[str], contexts: Sequence[tuple[int, int]] | None, tokenizer: Any, limit: int
) -> str:
    sha = hashlib.sha256()
    sha.update(tokenizer.backend_tokenizer.to_str().encode())
    sha.update(json.dumps([VERSION, limit, list(texts), contexts]).encode())
    return sha.hexdigest()


def _read(path: Path) -> Tokens | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return Tokens(**load_file(path))
    except (OSError, SafetensorError, TypeError):
        return None  # missing, damaged, or another format: recreated


def _write(path: Path, tokens: Tokens) -> None:
    """Writes the file atomically; ignores a cache that cannot be written."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as new:
            save_file(vars(tokens), new)
