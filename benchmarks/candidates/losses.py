"""A cohort's losses at many weight vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hiso_ray.tasks.contract import Task
from hiso_ray.tasks.flat.batch import Batch


class Losses:
    """Mean losses of clients on their own minibatches, as the product computes them.

    Args:
        dtype: of the forward passes.
    """

    def __init__(self, task: Task, dtype: torch.dtype) -> None:
        self._task, self._several, self._dtype = task, task.several, dtype

    def at(self, x: Tensor, minibatches: Sequence[np.ndarray]) -> Tensor:
        """(n, m) float64 at (n, d) weights."""
        return self._at(x, self._task.batch(*minibatches))

    def of_each(self, x: Tensor, minibatches: Sequence[np.ndarray]) -> Tensor:
        """(k, m) float64 at weights of each client's own, (m, k, d)."""
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
