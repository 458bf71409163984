"""From an estimate of the gradient to the step: momentum, and the rate."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from candidates.estimates import MU, State
from candidates.federation import Cohort

Turn = Callable[[State, Tensor], Tensor]
Rate = Callable[[Cohort, State, Tensor], Tensor]


def plain(state: State, estimate: Tensor) -> Tensor:
    return estimate


def momentum(retention: float, corrected: bool = False, nesterov: bool = False) -> Turn:
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
        grown = min(1.0, (state.round + 1) / (share * state.rounds))
        return then(cohort, state, step) * grown

    return rate


def normalised(retention: float = 0.95) -> Rate:
    """η / the root mean square of recent estimates: Adam's denominator, one number for all."""

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        square = state.mean("square", step.square().mean(1).double(), retention)
        return state.lr / square.sqrt().clamp_min(1e-12)

    return rate


def distance_over_gradients(eps: float) -> Rate:
    """DoG (arXiv 2302.12022): max ‖x_i - x_0‖ / √Σ ‖Δ_i‖², with a first step of length
    eps (1 + ‖x_0‖). ``lr`` multiplies it; DoG itself is lr = 1."""

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        kept = state.kept
        if "x0" not in kept:
            kept["x0"] = state.x.clone()
            kept["far"] = eps * (1 + state.x.norm(dim=1).double())
            kept["sum"] = torch.zeros_like(state.lr)
        kept["far"] = torch.maximum(kept["far"], (state.x - kept["x0"]).norm(dim=1).double())
        kept["sum"] = kept["sum"] + step.square().sum(1).double()
        return state.lr * kept["far"] / kept["sum"].sqrt().clamp_min(1e-30)

    return rate


def parabola(
    retention: float = 0.95,
    safety: float = 1.0,
    every: int = 1,
    then: Rate | None = None,
    at_end: bool = False,
    growth: float = 2.0,
    cautious: bool = False,
    per_length: bool = False,
    delayed: bool = False,
    guard: float = 0.0,
) -> Rate:
    """The best rate along the last step, by a cohort that did not choose it.

    With T the last step x_r - x_{r-1}, or longer, so that it is at least as long as a probe: F at
    x_r - T, x_r and x_r + T on the fresh minibatches give slope and curvature along the step; per
    unit of rate, and averaged over rounds, their ratio is the best rate. ``lr`` is the first
    round's. Two more scalars up per client; the rate itself travels in every record.
    """

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        kept = state.kept
        if state.moved is None:
            kept["rate"] = state.lr.clone()
        elif state.round % every == 0:
            longer = MU * state.x.shape[1] ** 0.5 / state.moved.norm(dim=1).double()
            longer = longer.clamp_min(1)
            t = state.moved * longer[:, None].float()
            f0, f2 = cohort.losses(torch.stack([state.x - t, state.x + t], 1)).mean(-1).unbind(1)
            f1 = cohort.base(state.x).mean(-1)
            cohort.up += 2
            state.undo = (longer == 1) & ~(f1 <= guard * f0) if guard else None
            unit = kept["used"] * longer
            bend = (f2 - 2 * f1 + f0) / unit**2
            slope = -(f2 - f0) / (2 * unit) + (0 if at_end else 1) * bend * kept["used"]
            if per_length:
                square = (state.moved.norm(dim=1).double() / kept["used"]) ** 2
                slope, bend = slope / square, bend / square
            slope = state.mean("slope", slope, retention)
            now = bend
            bend = state.mean("bend", bend, retention)
            if cautious:
                bend = torch.maximum(bend, now)
            best = torch.where(bend > 0, safety * slope / bend, math.inf)
            before = kept["rate"]
            kept["rate"] = torch.minimum(torch.maximum(best, before / 2), before * growth)
            if delayed:
                kept["used"] = before
                return before
        kept["used"] = (
            kept["rate"]
            if state.undo is None
            else torch.where(state.undo, -kept["used"], kept["rate"])
        )
        if then is not None:
            kept["used"] = kept["used"] * then(cohort, state, step) / state.lr
        return kept["used"]

    return rate


def trace(safety: float, retention: float = 0.95, mu: float = 1e-2, count: int = 5) -> Rate:
    """η = safety · P / tr ∇²F: a step of P random directions wants the trace, which second
    differences along one more shared direction measure."""

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        u = cohort.shared(count + 1)[-1]
        points = torch.stack([state.x + mu * u, state.x - mu * u], 1)
        bend = cohort.losses(points).mean(-1).sum(1) - 2 * cohort.base(state.x).mean(-1)
        cohort.up += 1
        mean = state.mean("trace", bend / mu**2, retention)
        return state.lr * safety * count / mean.clamp_min(1e-3)

    return rate


def line_search(factors: tuple[float, ...] = (0.5, 1.0, 2.0)) -> Rate:
    """The best of a few multiples of the last rate by the cohort's own trial losses."""

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        last = state.kept.get("rate", state.lr)
        tried = last[:, None] * torch.tensor(factors, dtype=torch.float64)
        points = state.x[:, None] - tried[..., None].float() * step[:, None]
        losses = cohort.losses(points).mean(-1)
        cohort.up += len(factors)
        losses = torch.where(losses.isfinite(), losses, math.inf)
        state.kept["rate"] = tried.gather(1, losses.argmin(1, keepdim=True))[:, 0]
        return state.kept["rate"]

    return rate


def fresh_line_search(factor: float = 2.0, retention: float = 0.9) -> Rate:
    """The next cohort judges the last step: losses at half, once and ``factor`` times it; the
    rate moves towards the best by the means of the differences."""

    def rate(cohort: Cohort, state: State, step: Tensor) -> Tensor:
        last = state.kept.setdefault("rate", state.lr.clone())
        if state.moved is None:
            return last
        before = state.x - state.moved
        points = torch.stack([before + state.moved / factor, before + state.moved * factor], 1)
        shorter, longer = cohort.losses(points).mean(-1).unbind(1)
        here = cohort.base(state.x).mean(-1)
        cohort.up += 2
        spread = (longer - shorter).abs().clamp_min(1e-12)
        better_longer = state.mean("longer", (here - longer) / spread, retention)
        better_shorter = state.mean("shorter", (here - shorter) / spread, retention)
        grow = torch.where(better_longer > better_shorter.clamp_min(0), 1.1, 1.0)
        shrink = torch.where(better_shorter > better_longer.clamp_min(0), 1 / 1.1, 1.0)
        state.kept["rate"] = last * grow * shrink
        return state.kept["rate"]

    return rate
