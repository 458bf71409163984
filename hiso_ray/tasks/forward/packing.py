"""Sequences of any lengths end to end in one row, without padding.

A transformer's operations on single tokens do not depend on where a token lies in the row.
``position_ids`` counts positions per sequence, and ``packing`` tells attention, the only operation
that mixes tokens, where each sequence begins (``tasks.forward.attention``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Run(NamedTuple):
    """Consecutive sequences of the same length.

    Attributes:
        start: token at which the first one begins.
        sequences: number of sequences.
        length: of each.
    """

    start: int
    sequences: int
    length: int


@dataclass(frozen=True, eq=False)
class Packing:
    """Where sequences lie in a row, shortest first.

    Attributes:
        lengths: of the sequences [tokens], ascending.
        device: of the row.
        scored: (terms,) int64 indices of the scored tokens, if known.
        ends: whether exactly the last token of each sequence is scored.
        last_only: whether only each sequence's last token is a query; the others get zeros.
    """

    lengths: tuple[int, ...]
    device: torch.device
    scored: Tensor | None = None
    ends: bool = False
    last_only: bool = False

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        values, counts = np.unique(self.lengths, return_counts=True)
        starts = np.concatenate([[0], np.cumsum(values * counts)])
        return tuple(Run(*map(int, run)) for run in zip(starts, counts, values, strict=False))

    @cached_property
    @torch.inference_mode(False)  # a graph may keep it
    def starts(self) -> Tensor:
        """(sequences + 1,) int32 token at which each begins, and the end."""
        found = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        return torch.from_numpy(found).to(self.device)

    @cached_property
    @torch.inference_mode(False)  # likewise
    def places(self) -> tuple[Tensor, Tensor]:
        """Right-padded layout: the token at each of (sequences, longest) places, and the place of
        each token. The padding repeats the sequence's last token."""
        lengths, starts = np.array(self.lengths), np.cumsum((0, *self.lengths[:-1]))
        longest = int(lengths[-1])
        column = np.minimum(np.arange(longest), lengths[:, None] - 1)
        real = np.arange(longest) < lengths[:, None]
        tokens, places = starts[:, None] + column, np.flatnonzero(real)
        return torch.from_numpy(tokens).to(self.device), torch.from_numpy(places).to(self.device)

    def asked_by_last(self) -> Packing:
        return replace(self, last_only=True)


def packed(
    rows: Sequence[np.ndarray], scored: np.ndarray | None, device: torch.device
) -> dict[str, Any]:
    """Token ids of any lengths as a module's inputs.

    Args:
        scored: (sequences,) how many of the last tokens of each of ``rows`` are scored; None if
            not needed.

    Returns:
        ``input_ids`` and ``position_ids``, both (1, tokens) int64, and ``packing``, whose scored
        tokens are in the order of ``rows``.
    """
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(lengths, kind="stable")
    starts = starts_of(lengths)
    ids = np.concatenate([rows[i] for i in order]).astype(np.int64)
    positions = np.arange(len(ids)) - np.repeat(starts[order], lengths[order])
    packing = Packing(tuple(lengths[order].tolist()), device)
    if scored is not None:
        tokens = torch.from_numpy(counted(starts + lengths - scored, scored)).to(device)
        packing = replace(packing, scored=tokens, ends=bool((scored == 1).all()))
    return {
        "input_ids": torch.from_numpy(ids)[None].to(device),
        "position_ids": torch.from_numpy(positions)[None].to(device),
        "packing": packing,
    }


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """(sequences,) token at which each sequence begins in a row sorted by ascending length."""
    order = np.argsort(lengths, kind="stable")
    starts = np.empty_like(lengths)
    starts[order] = np.cumsum(lengths[order]) - lengths[order]
    return starts


def counted(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenated ranges of ``counts[i]`` integers from ``starts[i]`` on."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())
