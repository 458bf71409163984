"""f(x) = ½ Σ_j λ_j (x_j - b_j)²: the test task whose Hessian diag(λ) is known.

Each training example is one target b, so minibatches differ; the global optimum is their mean.
λ runs from 1 down to 0.01 evenly in logarithm; x_0 = 1 everywhere. A prediction is "correct" when
the loss above the optimum has fallen below one hundredth of its start, so accuracy is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from hiso_ray.config import Experiment, TaskConfig
from hiso_ray.messages import Score
from hiso_ray.seeds import Purpose, generator
from hiso_ray.tasks.contract import Count, Layout, Prepared

EXAMPLES = 20_000
SPREAD = 0.1


def prepare(experiment: Experiment) -> Prepared:
    dimension = _dimension(experiment.task.model)
    rng = generator(experiment.seed, Purpose.TASK_DATA)
    # Examples share few distinct targets, so that ten thousand clients need no more memory.
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
    )


def count(config: TaskConfig) -> Count:
    """How many weights there are; they are one layer."""
    dimension = _dimension(config.model)
    return Count(dimension, 0, dimension)


def _dimension(model: str) -> int:
    kind, _, size = model.partition("-")
    if kind != "diagonal" or not size.isdecimal() or int(size) < 1:
        raise ValueError(f"task.model = {model}: the quadratic takes diagonal-DIMENSION")
    return int(size)


class Quadratic:
    """The quadratic built on one device; ``Task`` says what the methods do."""

    eval_batches = 1

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        self.layout: Layout = (("x", (prepared.x0.size,)),)
        self.targets = torch.tensor(prepared.arrays["targets"], device=device)
        self.curvature = torch.tensor(prepared.arrays["curvature"], device=device)
        self._dtype = getattr(torch, config.dtype)
        self.optimum = self.targets.mean(0)
        self.start = float(self._excess(torch.tensor(prepared.x0, device=device)))

    def batch(self, examples: np.ndarray) -> Tensor:
        return self.targets[examples % len(self.targets)]

    def losses(self, weights: Tensor, batches: Sequence[Tensor]) -> np.ndarray:
        out = [
            0.5 * (self.curvature * (weights.float() - targets).square()).sum(1).mean()
            for targets in batches
        ]
        return torch.stack(out).double().cpu().numpy()

    def gradient(self, weights: Tensor, batch: Tensor) -> tuple[float, Tensor]:
        return float(self.losses(weights.to(self._dtype), [batch])[0]), self._slope(weights, batch)

    def slopes(
        self, weights: Tensor, direction: Tensor, batches: Sequence[Tensor]
    ) -> tuple[np.ndarray, np.ndarray]:
        out = [torch.dot(self._slope(weights, targets), direction) for targets in batches]
        return (
            torch.stack(out).double().cpu().numpy(),
            self.losses(weights.to(self._dtype), batches),
        )

    def hessian_vector(self, weights: Tensor, vector: Tensor, batch: Tensor) -> Tensor:
        return self.curvature * vector

    def _slope(self, weights: Tensor, targets: Tensor) -> Tensor:
        return self.curvature * (weights.to(self._dtype).float() - targets).mean(0)

    def score(self, weights: Tensor, batch: int) -> Score:
        excess = float(self._excess(weights.float()))
        return Score(excess, 1, {"accuracy": float(excess < self.start / 100)}, 1)

    def export(self, weights: Tensor, folder: Path) -> None:
        folder.mkdir(parents=True)
        save_file({"x": weights.cpu()}, folder / "model.safetensors")

    def _excess(self, x: Tensor) -> Tensor:
        return 0.5 * (self.curvature * (x - self.optimum).square()).sum()


build = Quadratic
