"""Minibatches of several clients as one batch, and each client's mean of what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

IGNORED = -100  # a label that counts for nothing, as torch has it


class Batch(NamedTuple):
    """Minibatches of some clients, one after the other, on the task's device.

    Attributes:
        inputs: what the module reads.
        labels: (terms,) int64 classes.
        sizes: how many terms each client has: its examples, or the tokens of its answers.
    """

    inputs: Any
    labels: Tensor
    sizes: tuple[int, ...]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(terms,) float32, whatever the logits' dtype: half precision would round differences away."""
    return nn.functional.cross_entropy(logits.float(), labels, reduction="none")


def client_means(terms: Tensor, sizes: Sequence[int]) -> Tensor:
    """(..., clients) mean over each client's own terms.

    Args:
        terms: (..., terms), client after client.
        sizes: how many terms each client has.
    """
    if len(set(sizes)) == 1:
        return terms.unflatten(-1, (len(sizes), sizes[0])).mean(-1)
    return torch.stack([own.mean(-1) for own in terms.split(list(sizes), -1)], -1)


def apart(sizes: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Minibatches that lie one after the other, side by side.

    Args:
        sizes: examples of each client.

    Returns:
        (clients, longest) int64 index of each client's examples, and which of these are real; the
        others repeat its last.
    """
    counts = torch.tensor(sizes)[:, None]
    column = torch.arange(max(sizes))
    index = (counts.cumsum(0) - counts) + torch.minimum(column, counts - 1)
    return index.to(device), (column < counts).to(device)


def own_means(terms: Tensor, real: Tensor) -> Tensor:
    """(clients, k) means of (clients, k, longest) terms over the real ones."""
    return torch.where(real[:, None], terms, 0).sum(-1) / real.sum(-1, keepdim=True)
