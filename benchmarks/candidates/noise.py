"""What limits a step: curvature, and how far clients' gradients are from everyone's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from candidates.federation import Cohort, Federation
from candidates.run import Candidate
from candidates.state import State
from hiso_ray.tasks.contract import Task

COHORTS, VECTORS, ITERATIONS = 40, 60, 30
AFTER = 10_000  # rounds: cohorts and minibatches that no step has seen


def along(federation: Federation, candidate: Candidate, rounds: Sequence[int]) -> pd.DataFrame:
    """A row for each of some rounds on the path of a candidate with one constant rate.

    Returns:
        loss of all training examples, square of its gradient, trace and largest eigenvalue of its
        Hessian; mean squares of the gradients of clients' and of cohorts' minibatches, for plain
        and for calibrated losses; and the square of the mean gradient of the latter.
    """
    state = State(federation.x0[None], torch.tensor(candidate.grid).double(), max(rounds))
    losses, rows = federation.losses(candidate.calibrated), []
    for r in range(max(rounds) + 1):
        if r in rounds:
            rows.append({"round": r} | _landscape(federation, state.x[0]))
        cohort = Cohort(federation, losses, r)
        state.x = state.x - candidate.grid[0] * candidate.estimate(cohort, state)
    return pd.DataFrame(rows).set_index("round")


def _landscape(federation: Federation, x: Tensor) -> dict[str, float]:
    task, rng = federation.task, torch.Generator().manual_seed(0)
    batch = task.batch(np.arange(len(federation.prepared.labels)))
    loss, gradient = task.gradient(x, batch)
    signs = torch.randint(0, 2, (VECTORS, len(x)), generator=rng) * 2.0 - 1
    trace = torch.stack([v @ task.hessian_vector(x, v, batch) for v in signs]).mean()
    v = torch.randn(len(x), generator=rng)
    for _ in range(ITERATIONS):
        v = task.hessian_vector(x, v / v.norm(), batch)
    found = {"loss": loss, "‖∇f‖²": float(gradient.square().sum()), "tr H": float(trace)}
    found["λ max"] = float(v.norm())
    for name, of in {"plain": task, "calibrated": federation.calibrated}.items():
        found |= {f"{name} {what}": value for what, value in _spread(federation, of, x).items()}
    return found


def _spread(federation: Federation, task: Task, x: Tensor) -> dict[str, float]:
    """Squares of gradients of a task's losses."""
    losses = federation.losses(calibrated=False)
    clients, cohorts = [], []
    for r in range(AFTER, AFTER + COHORTS):
        minibatches = Cohort(federation, losses, r).minibatches
        own = torch.stack([task.gradient(x, task.batch(each))[1] for each in minibatches])
        clients.append(own.square().sum(1).mean())
        cohorts.append(own.mean(0))
    of_cohorts = torch.stack(cohorts)
    return {
        "‖∇f_i‖²": float(torch.stack(clients).mean()),
        "‖∇f_cohort‖²": float(of_cohorts.square().sum(1).mean()),
        "‖∇f‖²": float(of_cohorts.mean(0).square().sum()),
    }
