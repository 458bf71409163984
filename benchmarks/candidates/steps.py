"""From an estimate of the gradient to the step: momentum, and rates that somebody tunes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from candidates.federation import Cohort
from candidates.state import State

Turn = Callable[[State, Tensor], Tensor]
"""(rates, d) direction of the step."""
Rate = Callable[[Cohort, State, Tensor], Tensor]
"""(rates,) float64 that multiplies it."""


def plain(state: State, estimate: Tensor) -> Tensor:
    return estimate


def momentum(retention: float, corrected: bool = True, nesterov: bool = False) -> Turn:
    """v <- ϱ v + (1-ϱ) Δ; bias corrected, the first steps are as long as later ones."""

    def turn(state: State, estimate: Tensor) -> Tensor:
        v = state.mean("momentum", estimate, retention)
        if not corrected:
            v = v * state.kept["momentum"][1]
        return retention * v + (1 - retention) * estimate if nesterov else v

    return turn


def constant(cohort: Cohort, state: State, step: Tensor) -> Tensor:
    return state.lr


def linear(cohort: Cohort, state: State, step: Tensor) -> Tensor:
    return state.lr * (1 - state.round / state.rounds)


def cosine(cohort: Cohort, state: State, step: Tensor) -> Tensor:
    return state.lr * 0.5 * (1 + math.cos(math.pi * state.round / state.rounds))


def warm_up(share: float, then: Rate) -> Rate:
    """The rate grows linearly over the first ``share`` of the rounds."""

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        return then(cohort, state, step) * min(1.0, (state.round + 1) / (share * state.rounds))

    return rate


def normalised(retention: float = 0.95) -> Rate:
    """η / the root mean square of recent estimates: Adam's denominator, one number for all."""

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        square = state.mean("square", step.square().mean(1).double(), retention)
        return state.lr / square.sqrt().clamp_min(1e-12)

    return rate


def distance_over_gradients(first: float = 1e-4) -> Rate:
    """DoG (arXiv 2302.12022): max ‖x_i - x_0‖ / √Σ ‖Δ_i‖², with a first step of length
    first·(1 + ‖x_0‖). ``lr`` multiplies it; DoG itself is lr = 1."""

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        kept = state.kept
        x0 = kept.setdefault("x0", state.x.clone())
        shortest = first * (1 + x0.norm(dim=1).double())
        away = (state.x - x0).norm(dim=1).double()
        kept["far"] = torch.maximum(kept.get("far", shortest), away)
        kept["sum"] = kept.get("sum", 0) + step.square().sum(1).double()
        return state.lr * kept["far"] / kept["sum"].sqrt().clamp_min(1e-30)

    return rate
