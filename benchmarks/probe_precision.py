"""The error of a client's scalars in reduced precision: g in bf16 and fp16 against fp32.

    python benchmarks/probe_precision.py DATA MODEL [MODEL ...] [--task sst2]

One minibatch, P directions, each μ; forward differences from float32 master weights. A row gives
the median over directions of |g - g32| / |g32|, and the correlation of g with g32. "weights" rounds
only the perturbed weights and computes in float32: the loss from storing x + μz in that type.
"forward" also computes in it, as ``task.dtype`` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray import Experiment, tasks
from hiso_ray.method.curvature import Identity
from hiso_ray.method.direction import Directions
from hiso_ray.method.naming import Naming
from hiso_ray.method.perturbed import Losses, Weights
from hiso_ray.method.probe import Probe
from hiso_ray.tasks.contract import Task

MUS = (1e-4, 1e-3, 1e-2)
DTYPES = ("bfloat16", "float16")
DIRECTIONS, BATCHES = 20, 2


class Rounded:
    """A float32 task at weights that were already rounded."""

    several = None

    def __init__(self, task: Task) -> None:
        self.task, self.slopes = task, task.slopes

    def losses(self, weights: Weights, batches: Sequence[Any]) -> np.ndarray:
        assert isinstance(weights, Tensor)  # a whole vector, in the buffer
        return self.task.losses(weights.float(), batches)


def scalars(task: Task, x: Tensor, mu: float, dtype: torch.dtype, asked: Losses) -> np.ndarray:
    """(batches, P) float32 g, from perturbed weights stored in a dtype.

    Args:
        task: makes the minibatches.
        asked: computes their losses.
    """
    batches = [task.batch(np.arange(16 * i, 16 * i + 16)) for i in range(BATCHES)]
    names = Naming(DIRECTIONS).of(7, client=0)
    buffer = torch.empty(1, x.numel(), dtype=dtype)
    directions = Directions(x.numel(), torch.device("cpu"), 0)
    g, _ = Probe(mu).scalars(asked, x, batches, names, Identity(), directions, buffer)
    return g


def rows(model: str, data: str, task_name: str) -> Iterator[tuple[str, ...]]:
    """Cells of the table for one model."""
    device = torch.device("cpu")
    fields = {"task.name": task_name, "task.model": model, "task.data": data}
    e = tasks.resolve(Experiment().changed(**fields))
    prepared = tasks.prepare(e)
    exact = tasks.build(e, prepared, device)
    rounded = {
        dtype: tasks.build(e.changed(**{"task.dtype": dtype}), prepared, device) for dtype in DTYPES
    }
    x = torch.tensor(prepared.x0)
    for mu in MUS:
        truth = scalars(exact, x, mu, torch.float32, exact)
        for name in DTYPES:
            cells = [Path(model).name, f"{x.numel():,}", f"{mu:g}", name]
            for task, asked in ((exact, Rounded(exact)), (rounded[name], rounded[name])):
                g = scalars(task, x, mu, getattr(torch, name), asked)
                error = np.median(np.abs(g - truth) / np.abs(truth))
                cells += [f"{error:.1%}", f"{np.corrcoef(g.ravel(), truth.ravel())[0, 1]:.3f}"]
            yield tuple(cells)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("data")
    arguments.add_argument("models", nargs="+", metavar="model")
    arguments.add_argument("--task", default="sst2")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(
        "| model | d | μ | dtype | weights: median error | correlation "
        "| forward: median error | correlation |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for model in given.models:
        for cells in rows(model, given.data, given.task):
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
