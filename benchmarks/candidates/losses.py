"""A cohort's losses at many weight vectors, plain or calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hiso_ray.tasks.contract import Task
from hiso_ray.tasks.flat.batch import IGNORED, Batch, apart, client_means, own_means
from hiso_ray.tasks.images import stacked
from hiso_ray.tasks.images.image_sets import DIGITS
from hiso_ray.tasks.images.networks import network

SMOOTHED = 0.1  # examples added to each class of a client


class Losses(Protocol):
    """Mean losses of clients on their own minibatches."""

    def at(self, x: Tensor, clients: np.ndarray, minibatches: Sequence[np.ndarray]) -> Tensor:
        """(n, m) float64 at (n, d) weights."""
        ...

    def of_each(self, x: Tensor, clients: np.ndarray, minibatches: Sequence[np.ndarray]) -> Tensor:
        """(k, m) float64 at weights of each client's own, (m, k, d)."""
        ...


class Plain:
    """The product's own losses.

    Args:
        dtype: of its forward passes.
    """

    def __init__(self, task: Task, dtype: torch.dtype) -> None:
        self._task, self._several, self._dtype = task, task.several, dtype

    def at(self, x: Tensor, clients: np.ndarray, minibatches: Sequence[np.ndarray]) -> Tensor:
        return self._at(x, self._task.batch(*minibatches))

    def of_each(self, x: Tensor, clients: np.ndarray, minibatches: Sequence[np.ndarray]) -> Tensor:
        if self._several is not None:
            batch = self._task.batch(*minibatches)
            return torch.from_numpy(self._several.losses_of_each(x.to(self._dtype), batch))
        each = [self._at(own, self._task.batch(b)) for own, b in zip(x, minibatches, strict=True)]
        return torch.cat(each, 1)

    def _at(self, x: Tensor, batch: Batch) -> Tensor:
        x = x.to(self._dtype)
        if self._several is None:
            return torch.from_numpy(np.stack([self._task.losses(row, [batch]) for row in x]))
        parts = x.split(self._several.at_once)
        return torch.from_numpy(
            np.concatenate([self._several.losses_at(p, [batch]) for p in parts])
        )


class Calibrated:
    """Cross-entropy of a client's logits plus the log of its own label shares, on digits.

    A client that holds mostly threes is not rewarded for answering three everywhere (logit
    adjustment, arXiv 2007.07314; in federations FedLC, arXiv 2209.00189). Nothing is sent, and
    scores are of the logits alone.

    Args:
        counts: (num_clients, classes) examples of each class that each client holds.
    """

    def __init__(self, task: Task, model: str, counts: np.ndarray) -> None:
        self._task = task
        self._network = stacked.Stacked(network(model, DIGITS), DIGITS.shape)
        shares = (counts + SMOOTHED) / (counts + SMOOTHED).sum(1, keepdims=True)
        self._log_shares = torch.from_numpy(np.log(shares)).float()

    def at(self, x: Tensor, clients: np.ndarray, minibatches: Sequence[np.ndarray]) -> Tensor:
        inputs, labels, sizes = self._task.batch(*minibatches)
        shares = self._log_shares[clients].repeat_interleave(torch.tensor(sizes), 0)
        means = []
        for part in x.split(stacked.AT_ONCE):
            logits = self._network.logits(part, inputs) + shares
            means.append(client_means(stacked.losses(logits, labels), sizes))
        return torch.cat(means).double()

    def of_each(self, x: Tensor, clients: np.ndarray, minibatches: Sequence[np.ndarray]) -> Tensor:
        batch, (m, k, _) = self._task.batch(*minibatches), x.shape
        index, real = apart(batch.sizes, x.device)
        inputs = batch.inputs[index].repeat_interleave(k, 0)
        labels = torch.where(real, batch.labels[index], IGNORED).repeat_interleave(k, 0)
        shares = self._log_shares[clients].repeat_interleave(k, 0)[:, None]
        logits = self._network.logits(x.flatten(0, 1), inputs) + shares
        return own_means(stacked.losses(logits, labels).view(m, k, -1), real).T.double()
