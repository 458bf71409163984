"""One candidate's run: all rates of its grid at once, one seed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from candidates.estimates import Estimate, State, shared
from candidates.federation import Federation
from candidates.steps import Rate, Turn, constant, plain

GRID = tuple(0.0025 * 2**i for i in range(9))


@dataclass(frozen=True)
class Candidate:
    """A method: how it estimates the gradient, turns it and sizes the step.

    Attributes:
        average: retention of the weights' exponential mean that is scored in place of x; 0: x.
        fed_back: rounds after which x continues from the mean; 0: never.
        grid: rates to try, a factor of two apart.
    """

    name: str
    estimate: Estimate = shared()
    turn: Turn = plain
    rate: Rate = constant
    average: float = 0.0
    fed_back: int = 0
    calibrated: bool = False
    grid: tuple[float, ...] = GRID


@torch.no_grad()
def run(
    federation: Federation, candidate: Candidate, rounds: int, every: int
) -> list[dict[str, Any]]:
    """A row for each rate and look: rate, round, accuracy, loss, forwards, up, down, used."""
    lr = torch.tensor(candidate.grid, dtype=torch.float64)
    state = State(federation.x0.repeat(len(lr), 1), lr, rounds)
    counted, out = federation.counted(), []
    mean = state.x
    for r in range(rounds):
        state.round = r
        cohort = federation.cohort(r, candidate.calibrated)
        step = candidate.turn(state, candidate.estimate(cohort, state))
        rate = candidate.rate(cohort, state, step)
        moved = -rate[:, None].float() * step
        if state.undo is not None:
            moved = torch.where(state.undo[:, None], -state.moved, moved)
        state.moved = moved
        state.x = state.x + state.moved
        if candidate.average:
            mean = state.mean("average", state.x, candidate.average)
            if candidate.fed_back and (r + 1) % candidate.fed_back == 0:
                state.x = mean
        else:
            mean = state.x
        counted.add(cohort.clients, cohort.forwards, cohort.up, cohort.record)
        if (r + 1) % every == 0:
            scores = federation.score(mean)
            out += [
                {
                    "candidate": candidate.name,
                    "seed": federation.experiment.seed,
                    "lr": float(lr[i]),
                    "round": r + 1,
                    "loss": float(scores[i, 0]),
                    "accuracy": float(scores[i, 1]),
                    "forwards": counted.forwards,
                    "bytes": counted.up + counted.down,
                    "used": float(rate[i]),
                }
                for i in range(len(lr))
            ]
    return out
