"""Minibatches of several clients as one batch, and the mean loss of each client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

IGNORED = -100  # label that the loss ignores, torch's default


class Batch(NamedTuple):
    """Concatenated minibatches of some clients, on the task's device.

    Attributes:
        inputs: the module's inputs.
        labels: (terms,) int64 classes.
        sizes: number of loss terms of each client: its examples, or the tokens of its answers.
        offsets: (terms, classes) float32 to add to the logits in the loss (``tasks.calibration``);
            None if the loss is plain.
    """

    inputs: Any
    labels: Tensor
    sizes: tuple[int, ...]
    offsets: Tensor | None = None


def cross_entropy(logits: Tensor, labels: Tensor, offsets: Tensor | None = None) -> Tensor:
    """(terms,) float32 for logits of any dtype: half precision would round differences away.

    Args:
        offsets: as in :class:`Batch`.
    """
    logits = logits.float() if offsets is None else logits.float() + offsets
    return nn.functional.cross_entropy(logits, labels, reduction="none")


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
    """Index that turns concatenated minibatches into one row per client.

    Args:
        sizes: number of examples of each client.

    Returns:
        (clients, longest) int64 indices of each client's examples, and a mask of the real ones; the
        padding repeats the client's last example.
    """
    counts = torch.tensor(sizes)[:, None]
    column = torch.arange(max(sizes))
    index = (counts.cumsum(0) - counts) + torch.minimum(column, counts - 1)
    return index.to(device), (column < counts).to(device)


def own_means(terms: Tensor, real: Tensor) -> Tensor:
    """(clients, k) means of (clients, k, longest) terms, over the real ones only."""
    return torch.where(real[:, None], terms, 0).sum(-1) / real.sum(-1, keepdim=True)
