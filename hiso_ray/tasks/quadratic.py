"""f(x) = ½ Σ_j λ_j (x_j - b_j)²: the test task whose Hessian diag(λ) is known.

Each training example is one target b, so minibatches differ; the global optimum is their mean.
λ falls from 1 to 0.01 in logarithmic steps; x_0 = 1 everywhere. Accuracy is 1 once the loss above
the optimum is below one hundredth of its initial value, else 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from hiso_ray.config import Experiment, TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.messages import Score
from hiso_ray.method.layout import Layout
from hiso_ray.seeds import Purpose, generator
from hiso_ray.tasks.contract import Count, Prepared
from hiso_ray.tasks.exported import Exported
from hiso_ray.tasks.flat.batch import apart, client_means, own_means
from hiso_ray.tasks.images.stacked import AT_ONCE

EXAMPLES = 20_000
SPREAD = 0.1
STACKED = 1 << 20  # squares held at once: as many as fit in a CPU's cache


def prepare(experiment: Experiment) -> Prepared:
    dimension = _dimension(experiment.task.model)
    rng = generator(experiment.seed, Purpose.TASK_DATA)
    # Examples share few distinct targets, so that memory does not grow with the number of clients.
    targets = rng.normal(0.0, SPREAD, size=(min(EXAMPLES, 256), dimension)).astype(np.float32)
    return Prepared(
        spec={"layout": [["x", [dimension]]]},
        arrays={
            "targets": targets,
            "curvature": np.geomspace(1.0, 0.01, dimension, dtype=np.float32),
        },
        x0=np.ones(dimension, np.float32),
        labels=np.zeros(EXAMPLES, np.int64),
        label_names=("all",),
        activation=dimension,
    )


def count(config: TaskConfig) -> Count:
    """How many weights there are; they are one layer."""
    dimension = _dimension(config.model)
    return Count(dimension, 0, dimension, dimension)


def _dimension(model: str) -> int:
    kind, _, size = model.partition("-")
    if kind != "diagonal" or not size.isdecimal() or int(size) < 1:
        raise UserError(f"task.model = {model}: the quadratic takes diagonal-DIMENSION")
    return int(size)


class Targets(NamedTuple):
    """Concatenated minibatches of some clients.

    Attributes:
        targets: (n, d) float32.
        sizes: number of targets of each client.
    """

    targets: Tensor
    sizes: tuple[int, ...]


class Quadratic:
    """The quadratic built on one device; ``Task`` documents the methods."""

    eval_batches = 1

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        self.layout: Layout = (("x", (prepared.x0.size,)),)
        self.targets = torch.tensor(prepared.arrays["targets"], device=device)
        self.curvature = torch.tensor(prepared.arrays["curvature"], device=device)
        self._dtype = getattr(torch, config.dtype)
        self.at_once = min(AT_ONCE, STACKED // prepared.x0.size)
        self.several = self if self.at_once > 1 else None
        self.optimum = self.targets.mean(0)
        self.start = float(self._excess(torch.tensor(prepared.x0, device=device)))

    def batch(self, *clients: np.ndarray) -> Targets:
        examples = np.concatenate(clients) % len(self.targets)
        return Targets(self.targets[examples], tuple(map(len, clients)))

    def losses(self, weights: Tensor, batches: Sequence[Targets]) -> np.ndarray:
        out = []
        for targets, sizes in batches:
            terms = 0.5 * (self.curvature * (weights.float() - targets).square()).sum(1)
            out.append(client_means(terms, sizes))
        return torch.cat(out).double().cpu().numpy()

    def losses_at(self, weights: Tensor, batches: Sequence[Targets]) -> np.ndarray:
        out = [
            client_means(self.stacked_losses(weights, targets), sizes) for targets, sizes in batches
        ]
        return torch.cat(out, 1).double().cpu().numpy()

    def losses_of_each(self, weights: Tensor, batch: Targets) -> np.ndarray:
        clients, k, _ = weights.shape
        index, real = apart(batch.sizes, weights.device)
        own = batch.targets[index].repeat_interleave(k, 0)
        terms = self.stacked_losses(weights.flatten(0, 1), own).view(clients, k, -1)
        return own_means(terms, real).T.double().cpu().numpy()

    def stacked_losses(self, weights: Tensor, targets: Tensor) -> Tensor:
        """Loss of every example at k weight vectors, the same bits as one by one.

        The squares are not expanded into products, and the sum is not a matrix product either: both
        are faster for some sizes, but their rounding errors are many times larger, and division by
        μ amplifies them.

        Args:
            weights: (k, d) in the dtype of the forward passes.
            targets: (n, d) float32 shared by all weight vectors, or (k, n, d), each one's own.

        Returns:
            (k, n) float32.
        """
        if targets.dim() == 2:
            targets = targets.expand(len(weights), -1, -1)
        rows = max(1, STACKED // targets[0].numel())
        out = [
            (some.float().unsqueeze(1) - theirs).square_().mul_(self.curvature).sum(2).mul_(0.5)
            for some, theirs in zip(weights.split(rows), targets.split(rows), strict=True)
        ]
        return out[0] if len(out) == 1 else torch.cat(out)

    def gradient(self, weights: Tensor, batch: Targets) -> tuple[float, Tensor]:
        loss = float(self.losses(weights.to(self._dtype), [batch])[0])
        return loss, self._slope(weights, batch.targets)

    def slopes(
        self, weights: Tensor, direction: Tensor, batches: Sequence[Targets]
    ) -> tuple[np.ndarray, np.ndarray]:
        everyone = (own for targets, sizes in batches for own in targets.split(list(sizes)))
        out = [torch.dot(self._slope(weights, own), direction) for own in everyone]
        return (
            torch.stack(out).double().cpu().numpy(),
            self.losses(weights.to(self._dtype), batches),
        )

    def hessian_vector(self, weights: Tensor, vector: Tensor, batch: Targets) -> Tensor:
        return self.curvature * vector

    def _slope(self, weights: Tensor, targets: Tensor) -> Tensor:
        return self.curvature * (weights.to(self._dtype).float() - targets).mean(0)

    def score(self, weights: Tensor, batch: int) -> Score:
        excess = self._excess(weights.float()).cpu().numpy()[None]
        hit = (excess < self.start / 100).astype(np.float32)
        return Score(excess, np.ones(1, np.int32), {"accuracy": hit})

    def export(self, weights: Tensor, folder: Path) -> Exported:
        folder.mkdir(parents=True)
        save_file({"x": weights.cpu()}, folder / "model.safetensors")
        return Exported(
            "weight vector",
            imports="from safetensors.torch import load_file",
            load='x = load_file(f"{name}/model.safetensors")["x"]',
        )

    def _excess(self, x: Tensor) -> Tensor:
        return 0.5 * (self.curvature * (x - self.optimum).square()).sum()


build = Quadratic
