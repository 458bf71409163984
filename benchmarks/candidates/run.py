"""One candidate's run: all rates of its grid at once, one seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from candidates.estimates import shared
from candidates.federation import Cohort, Federation
from candidates.state import Estimate, State
from candidates.steps import Rate, Turn, constant, plain


@dataclass(frozen=True)
class Candidate:
    """A method: how it estimates the gradient, turns it and sizes the step.

    Attributes:
        grid: rates to try.
        average: retention of the weights' exponential mean, which is scored in place of x; 0: x.
        fed_back: rounds after which x continues from that mean; 0: never.
        calibrated: whether clients' losses are, as ``method.client_loss`` has it.
    """

    name: str
    grid: tuple[float, ...]
    estimate: Estimate = field(default_factory=shared)
    turn: Turn = plain
    rate: Rate = constant
    average: float = 0.0
    fed_back: int = 0
    calibrated: bool = False


@torch.no_grad()
def run(
    federation: Federation, candidate: Candidate, rounds: int, every: int
) -> list[dict[str, Any]]:
    """One row for each rate and each look: its score, and what it has used."""
    lr = torch.tensor(candidate.grid, dtype=torch.float64)
    state = State(federation.x0.repeat(len(lr), 1), lr, rounds)
    counted, losses = federation.counted(), federation.losses(candidate.calibrated)
    rows: list[dict[str, Any]] = []
    for r in range(rounds):
        cohort = Cohort(federation, losses, r)
        state.round, state.undo = r, None
        step = candidate.turn(state, candidate.estimate(cohort, state))
        rate = candidate.rate(cohort, state, step)
        moved = -rate[:, None].float() * step
        if state.undo is not None and state.moved is not None:
            moved = torch.where(state.undo[:, None], -state.moved, moved)
        state.x, state.moved = state.x + moved, moved
        scored = state.x
        if candidate.average:
            scored = state.mean("average", state.x, candidate.average)
            if candidate.fed_back and (r + 1) % candidate.fed_back == 0:
                state.x = scored
        counted.add(cohort.clients, cohort.forwards, cohort.up, cohort.record)
        if (r + 1) % every == 0:
            used = {"forwards": counted.forwards, "bytes": counted.up + counted.down}
            for i, (loss, accuracy) in enumerate(federation.score(scored)):
                score = {"loss": loss, "accuracy": accuracy, "rate": float(rate[i])}
                rows.append({"lr": candidate.grid[i], "round": r + 1} | score | used)
    seed = federation.experiment.seed
    return [{"candidate": candidate.name, "seed": seed} | row for row in rows]
