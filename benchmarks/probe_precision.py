"""How far reduced precision moves the scalars a client sends: g in bf16 and fp16 against fp32.

    python benchmarks/probe_precision.py MODEL DATA [--task sst2]

One minibatch, P directions, each μ; forward differences from float32 master weights. A row gives
the median over directions of |g - g32| / |g32|, and the correlation of g with g32. "weights" rounds
the perturbed weights only and computes in float32: what is lost when x + μz is stored in that type.
"forward" also computes in it, as ``task.dtype`` does.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor

from hiso_ray import Experiment, tasks
from hiso_ray.method.curvature import Identity
from hiso_ray.method.direction import Directions
from hiso_ray.method.naming import Naming
from hiso_ray.method.probe import Probe
from hiso_ray.tasks.contract import Task

MUS = (1e-4, 1e-3, 1e-2)
DTYPES = ("bfloat16", "float16")
DIRECTIONS, BATCHES = 10, 2


def scalars(
    task: Task, x: Tensor, mu: float, dtype: torch.dtype, *, round_only: bool
) -> np.ndarray:
    """(batches, P) float32 g, probes stored in a dtype."""
    cpu = torch.device("cpu")
    batches = [task.batch(np.arange(16 * i, 16 * i + 16)) for i in range(BATCHES)]

    def losses(weights: Tensor, some: list) -> np.ndarray:
        return task.losses(weights.float() if round_only else weights, some)

    names = Naming(DIRECTIONS).of(7, client=0)
    buffer = torch.empty_like(x, dtype=dtype)
    directions = Directions(x.numel(), cpu, 0)
    g, _ = Probe(mu).scalars(losses, task.slopes, x, batches, names, Identity(), directions, buffer)
    return g


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model")
    arguments.add_argument("data")
    arguments.add_argument("--task", default="sst2")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    fields = {"task.name": given.task, "task.model": given.model, "task.data": given.data}
    e = tasks.resolve(Experiment().changed(**fields))
    prepared = tasks.prepare(e)
    device = torch.device("cpu")
    exact = tasks.build(e, prepared, device)
    x = torch.tensor(prepared.x0)
    print(
        "| μ | dtype | weights: median error | correlation | forward: median error | correlation |"
    )
    print("|---|---|---|---|---|---|")
    for mu in MUS:
        truth = scalars(exact, x, mu, torch.float32, round_only=False)
        for name in DTYPES:
            rounded = tasks.build(e.changed(**{"task.dtype": name}), prepared, device)
            row = [f"{mu:g}", name]
            for task, round_only in ((exact, True), (rounded, False)):
                g = scalars(task, x, mu, getattr(torch, name), round_only=round_only)
                error = np.median(np.abs(g - truth) / np.abs(truth))
                row += [f"{error:.1%}", f"{np.corrcoef(g.ravel(), truth.ravel())[0, 1]:.3f}"]
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
