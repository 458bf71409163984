"""The loss of the whole federation around x_r, estimated on one batch of its training examples:
gradient, Hessian-vector products, the Hessian's diagonal. For small models.

No client could compute this; the simulator does, for the oracle arm and for diagnostics of H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hiso_ray.method import philox
from hiso_ray.method.hutchinson import diagonal
from hiso_ray.method.naming import Name
from hiso_ray.seeds import Purpose, generator
from hiso_ray.tasks.contract import Task

BATCH = 256  # training examples that represent all


@dataclass(frozen=True)
class Landscape:
    """A task at one point, on one batch.

    Attributes:
        x: (d,) float32.
        name: prefix of the names of the random vectors that the Hessian is multiplied with.
    """

    task: Task
    x: Tensor
    batch: Any
    name: Name

    def gradient(self) -> Tensor:
        """∇f, (d,) float32."""
        return self.task.gradient(self.x, self.batch)[1]

    def hessian_vector(self, v: Tensor) -> Tensor:
        """∇²f v, (d,) float32."""
        return self.task.hessian_vector(self.x, v, self.batch)

    def hessian_diagonal(self, samples: int) -> Tensor:
        """(d,) float32 Hutchinson estimate of diag(∇²f) from ``samples`` random vectors."""
        signs = (self._draw(1 + i, "rademacher") for i in range(samples))
        return diagonal(self.hessian_vector, signs)

    def random_vector(self) -> Tensor:
        """(d,) float32, standard normal, the same on every call."""
        return self._draw(0, "gaussian")

    def _draw(self, index: int, distribution: philox.Distribution) -> Tensor:
        return philox.fill(torch.empty_like(self.x), (*self.name, index), 0, distribution)


def look(
    task: Task, x: Tensor, train_examples: int, run_seed: int, purpose: Purpose, round_: int
) -> Landscape:
    """A landscape whose batch and random vectors are drawn for this purpose and round, so
    every replica gets the same one.

    Args:
        train_examples: number in the whole federation.
    """
    size = min(BATCH, train_examples)
    chosen = generator(run_seed, purpose, round_).choice(train_examples, size, replace=False)
    name = (run_seed, int(purpose), round_, 1)  # a different key from the batch's
    return Landscape(task, x, task.batch(chosen), name)
