"""Rates that find themselves from trial losses of the cohort. ``lr`` is the first round's."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from candidates.federation import Cohort
from candidates.state import State
from candidates.steps import Rate


def parabola(
    retention: float = 0.95,
    safety: float = 1.0,
    guard: float = 1.25,
    every: int = 1,
    then: Rate | None = None,
) -> Rate:
    """The best rate along the last step, by a cohort that did not choose it.

    T is the last step x_r - x_{r-1}, lengthened to that of a probe where it is shorter. F at
    x_r - T, x_r and x_r + T on the new cohort's minibatches gives slope and curvature along the
    step per unit of rate; the ratio of their means over rounds is the best rate at the step's
    start. It at most halves or doubles. Clients send two scalars more; the rate is in every record.

    Args:
        retention: of the means.
        safety: multiplies the ratio.
        guard: a step after which the same minibatches' loss is this many times what it was, is
            taken back; 0: never.
        every: rounds between trials.
        then: a schedule on top.
    """

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        kept = state.kept
        if state.moved is None:
            kept["rate"] = state.lr
        elif state.round % every == 0:
            try_last_step(cohort, state)
        used = kept["rate"] if then is None else kept["rate"] * then(cohort, state, step) / state.lr
        # A step that is taken back has the negative rate along the same direction.
        kept["used"] = used if state.undo is None else torch.where(state.undo, -kept["used"], used)
        return kept["used"]

    def try_last_step(cohort: Cohort, state: State) -> None:
        kept, moved = state.kept, state.moved
        assert moved is not None
        longer = (cohort.mu * moved.shape[1] ** 0.5 / moved.norm(dim=1).double()).clamp_min(1)
        t = moved * longer[:, None].float()
        before, after = cohort.losses(torch.stack([state.x - t, state.x + t], 1)).mean(-1).unbind(1)
        here = cohort.base(state.x).mean(-1)
        cohort.up += 2
        if guard:
            state.undo = (longer == 1) & ~(here <= guard * before)
        length = kept["used"] * longer
        bend = (after - 2 * here + before) / length**2
        slope = (before - after) / (2 * length) + bend * kept["used"]
        slope, bend = state.mean("slope", slope, retention), state.mean("bend", bend, retention)
        best = torch.where(bend > 0, safety * slope / bend, math.inf)
        kept["rate"] = torch.minimum(torch.maximum(best, kept["rate"] / 2), kept["rate"] * 2)

    return rate


def trace(retention: float = 0.95, mu: float = 1e-2, count: int = 5) -> Rate:
    """η = lr · P / tr ∇²F: what a step of P random directions wants, without client noise; second
    differences along one more shared direction measure the trace."""

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        u = cohort.shared(count + 1)[-1]
        both = cohort.losses(torch.stack([state.x + mu * u, state.x - mu * u], 1)).mean(-1)
        bend = (both.sum(1) - 2 * cohort.base(state.x).mean(-1)) / mu**2
        cohort.up += 1
        return state.lr * count / state.mean("trace", bend, retention).clamp_min(1e-3)

    return rate


def line_search(factors: tuple[float, ...] = (0.5, 1.0, 2.0)) -> Rate:
    """The best of a few multiples of the last rate, by the losses of the cohort whose scalars made
    the step, on the same minibatches."""

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        last = state.kept.get("rate", state.lr)
        tried = last[:, None] * torch.tensor(factors, dtype=torch.float64)
        losses = cohort.losses(state.x[:, None] - tried[..., None].float() * step[:, None]).mean(-1)
        cohort.up += len(factors)
        losses = torch.where(losses.isfinite(), losses, math.inf)
        state.kept["rate"] = tried.gather(1, losses.argmin(1, keepdim=True))[:, 0]
        return state.kept["rate"]

    return rate


def vote(retention: float = 0.9, by: float = 1.1) -> Rate:
    """The next cohort judges the last step: losses after half of it and twice it move the rate by
    10 % towards the better one, in the mean over rounds."""

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        last = state.kept.get("rate", state.lr)
        if state.moved is not None:
            points = torch.stack([state.x - state.moved / 2, state.x + state.moved], 1)
            shorter, longer = cohort.losses(points).mean(-1).unbind(1)
            here = cohort.base(state.x).mean(-1)
            cohort.up += 2
            spread = (longer - shorter).abs().clamp_min(1e-12)
            for_longer = state.mean("longer", (here - longer) / spread, retention)
            for_shorter = state.mean("shorter", (here - shorter) / spread, retention)
            last = torch.where(for_longer > for_shorter.clamp_min(0), last * by, last)
            last = torch.where(for_shorter > for_longer.clamp_min(0), last / by, last)
        state.kept["rate"] = last
        return last

    return rate
