"""Scalars and directions -> an estimate of the gradient, (rates, d).

All are of the form Σ w g u. What differs: who probes along which directions, and how the scalars
are weighted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from candidates.federation import Cohort

MU = 1e-3


@dataclass
class State:
    """Everything that every replica holds.

    Attributes:
        x: (rates, d) float32.
        lr: (rates,) float64, the grid.
        rounds: planned, for schedules.
        moved: (rates, d), the last step x_r - x_{r-1}.
        undo: (rates,) whether this round takes the last step back instead of making one.
        kept: what a candidate remembers.
    """

    x: Tensor
    lr: Tensor
    rounds: int
    round: int = 0
    moved: Tensor | None = None
    undo: Tensor | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    def mean(self, name: str, value: Tensor, retention: float) -> Tensor:
        """The exponential mean of a value over rounds, its bias corrected."""
        total, weight = self.kept.get(name, (torch.zeros_like(value), 0.0))
        total = retention * total + (1 - retention) * value
        weight = retention * weight + (1 - retention)
        self.kept[name] = total, weight
        return total / weight


Estimate = Callable[[Cohort, State], Tensor]


def shared_scalars(cohort: Cohort, x: Tensor, u: Tensor, mu: float | Tensor = MU) -> Tensor:
    """(rates, P, m) forward differences of every client along (P, d) or (rates, P, d)."""
    base = cohort.base(x)
    after = cohort.losses(x[:, None] + mu * u)
    return ((after - base[:, None]) / mu).float()


def own_scalars(cohort: Cohort, x: Tensor, u: Tensor) -> Tensor:
    """(rates, P, m) forward differences of each client along its own (m, P, d)."""
    base = cohort.base(x)
    after = cohort.losses_of_each(x[:, None, None] + MU * u)
    return ((after - base[:, None]) / MU).float()


def shared(count: int = 5) -> Estimate:
    """DeComFL (arXiv 2405.15861): the cohort's mean scalar along each of P shared directions."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.shared(count)
        g = shared_scalars(cohort, state.x, u).mean(-1)
        cohort.up, cohort.record = count, count
        return g @ u / count

    return estimate


def antithetic(count: int = 5) -> Estimate:
    """Central differences: both sides of each direction."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.shared(count)
        losses = cohort.losses(state.x[:, None] + MU * torch.cat([u, -u])).mean(-1)
        g = ((losses[:, :count] - losses[:, count:]) / (2 * MU)).float()
        cohort.up, cohort.record = count, count
        return g @ u / count

    return estimate


def orthogonal(count: int = 5) -> Estimate:
    """Shared directions made orthogonal to each other, of length √d."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.shared(count)
        u = torch.linalg.qr(u.T).Q.T * u.shape[1] ** 0.5
        g = shared_scalars(cohort, state.x, u).mean(-1)
        cohort.up, cohort.record = count, count
        return g @ u / count

    return estimate


def own(count: int = 5, centred: bool = False) -> Estimate:
    """``method.directions: per_client``: the mean over all m·P directions."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.own(count)
        g = own_scalars(cohort, state.x, u)
        cohort.up, cohort.record = count, len(u) * (count + 1)  # 1: the client's id
        n = u.shape[0] * u.shape[1]
        return g.transpose(1, 2).flatten(1) @ u.flatten(0, 1) / n

    return estimate


def groups(number: int, count: int = 5) -> Estimate:
    """The cohort in groups, each with P shared directions of its own."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        of, total = cohort.own(count), torch.zeros_like(state.x)
        members = torch.arange(len(of)).chunk(number)
        u = torch.cat([of[some[0]].expand(len(some), -1, -1) for some in members])
        g = own_scalars(cohort, state.x, u)
        for some in members:
            total += g[:, :, some].mean(-1) @ of[some[0]] / count * (len(some) / len(of))
        cohort.up, cohort.record = count, number * count
        return total

    return estimate


def scalar_h(
    retention: float = 0.95,
    corrected: bool = False,
    eps: float = 1e-8,
    count: int = 5,
    of: str = "shared",
) -> Estimate:
    """HiSo's scalar arm (arXiv 2506.02370): one h for all weights, in probe and update.

    Args:
        corrected: the mean of Δ² is divided by what of it has been seen, in place of H_0 = 1.
    """

    def estimate(cohort: Cohort, state: State) -> Tensor:
        h = state.kept.setdefault("h", torch.ones(len(state.x), 1, 1))
        if of == "shared":
            u = cohort.shared(count)
            z = u / h.sqrt()
            after = cohort.losses(state.x[:, None] + MU * z)
            g = ((after - cohort.base(state.x)[:, None]) / MU).float().mean(-1)
            cohort.up, cohort.record = count, count
            delta = (g @ u) / h[:, :, 0].sqrt() / count
        else:
            u = cohort.own(count)
            after = cohort.losses_of_each(state.x[:, None, None] + MU * u / h.sqrt()[..., None])
            g = ((after - cohort.base(state.x)[:, None]) / MU).float()
            cohort.up, cohort.record = count, len(u) * (count + 1)
            flat = g.transpose(1, 2).flatten(1) @ u.flatten(0, 1)
            delta = flat / h[:, :, 0].sqrt() / (u.shape[0] * u.shape[1])
        square = (delta.square().mean(1) + eps)[:, None, None]
        if corrected:
            state.kept["h"] = state.mean("h mean", square, retention)
        else:
            state.kept["h"] = retention * h + (1 - retention) * square
        return delta

    return estimate


def residual(gain: float, retention: float, count: int = 5, of: str = "shared") -> Estimate:
    """Regression over all past pairs, by least mean squares: v is the believed gradient, and a
    scalar corrects it by what it did not foresee, v += gain Σ (g - u·v) u / (n + d); before, v
    shrinks by ``retention``."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        v = state.kept.get("v")
        v = torch.zeros_like(state.x) if v is None else retention * v
        if of == "shared":
            u = cohort.shared(count)
            g = shared_scalars(cohort, state.x, u).mean(-1)
            cohort.up, cohort.record = count, count
        else:
            u = cohort.own(count)
            g = own_scalars(cohort, state.x, u).transpose(1, 2).flatten(1)
            cohort.up, cohort.record = count, len(u) * (count + 1)
            u = u.flatten(0, 1)
        surprise = g - v @ u.T
        state.kept["v"] = v + gain * surprise @ u / (len(u) + u.shape[1])
        return state.kept["v"]

    return estimate


def recycled(rounds: int, ridge: float = 1.0, count: int = 5) -> Estimate:
    """Ridge regression over the pairs of the last k rounds: v = Uᵀ (U Uᵀ + ridge·d I)⁻¹ g."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.shared(count)
        g = shared_scalars(cohort, state.x, u).mean(-1)
        cohort.up, cohort.record = count, count
        past = state.kept.setdefault("pairs", [])
        past.append((u, g))
        del past[:-rounds]
        us, gs = torch.cat([p[0] for p in past]), torch.cat([p[1] for p in past], 1)
        gram = us @ us.T + ridge * us.shape[1] * torch.eye(len(us))
        return torch.linalg.solve(gram, gs.T).T @ us

    return estimate


def guided(count: int = 4, retention: float = 0.95) -> Estimate:
    """One probe along the mean of past estimates, ``count`` along random directions: the
    component along the mean is known exactly, the others as before (guided evolution strategies,
    arXiv 1806.10230, with the two parts measured apart)."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.shared(count)
        v = state.kept.get("v")
        if v is None:
            v = u[:1].expand(len(state.x), -1)
        unit = v / v.norm(dim=1, keepdim=True).clamp_min(1e-30)
        d = u.shape[1]
        all_u = torch.cat([u.expand(len(state.x), -1, -1), unit[:, None] * d**0.5], 1)
        g = shared_scalars(cohort, state.x, all_u).mean(-1)
        cohort.up, cohort.record = count + 1, count + 1
        along = g[:, -1:] / d**0.5  # ∇f · unit
        rest = g[:, :-1] - along * (unit @ u.T)
        est = rest @ u / count + along * unit
        state.kept["v"] = state.mean("guide", est, retention)
        return est

    return estimate


def early(first: int, last: int) -> Estimate:
    """More perturbations early, fewer late: P falls linearly from ``first`` to ``last``."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        share = state.round / max(1, state.rounds - 1)
        return shared(round(first + (last - first) * share))(cohort, state)

    return estimate


def weighted_by_label(count: int = 5, strength: float = 1.0) -> Estimate:
    """Weights of the clients' scalars that make the cohort's mix of labels nearest to everyone's:
    least squares on the label histograms, with a ridge towards equal weights."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        it = cohort.federation
        labels = len(it.prepared.label_names)
        mix = torch.from_numpy(it.partition.label_counts(it.prepared.labels, labels)).float()
        wanted = mix.sum(0) / mix.sum()
        mix = mix[torch.from_numpy(cohort.clients)]
        mix = mix / mix.sum(1, keepdim=True)
        m = len(mix)
        equal = torch.full((m,), 1 / m)
        gram = mix @ mix.T * strength + torch.eye(m) * 0.1
        w = equal + torch.linalg.solve(gram, strength * mix @ (wanted - equal @ mix))
        w = w.clamp_min(0) / w.clamp_min(0).sum()
        u = cohort.shared(count)
        g = shared_scalars(cohort, state.x, u) @ w
        cohort.up, cohort.record = count, count
        return g @ u / count

    return estimate


def control_variates(gain: float, count: int = 5, of: str = "shared") -> Estimate:
    """Everyone believes a gradient v_i of each client, from its earlier scalars (least mean
    squares); a client's scalar counts by what v_i did not foresee, plus what the mean of all v
    foresees (SCAFFOLD's correction with scalars only)."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        who = torch.from_numpy(cohort.clients)
        rates, d = state.x.shape
        v = state.kept.setdefault("v", torch.zeros(rates, len(cohort.federation.sizes), d))
        if of == "shared":
            u = cohort.shared(count).expand(len(who), -1, -1)
            g = shared_scalars(cohort, state.x, u[0])
        else:
            u = cohort.own(count)
            g = own_scalars(cohort, state.x, u)
        cohort.up, cohort.record = count, len(who) * (count + 1)
        everyone = v.mean(1)
        foreseen = torch.einsum("rmd,mpd->rpm", v[:, who], u)
        surprise = g - foreseen
        n = len(who) * count
        correction = torch.einsum("rpm,mpd->rd", surprise, u) / n
        v[:, who] += gain * torch.einsum("rpm,mpd->rmd", surprise, u) / (count + d)
        return everyone + correction

    return estimate
