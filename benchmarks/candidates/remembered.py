"""Estimates of the gradient from this round's scalars and earlier ones, which everyone has."""

from __future__ import annotations

import torch
from torch import Tensor

from candidates.federation import Cohort
from candidates.state import Estimate, State, own_scalars, shared_scalars, side_by_side


def scalar_h(retention: float = 0.95, eps: float = 1e-8, count: int = 5) -> Estimate:
    """HiSo's scalar arm (arXiv 2506.02370): one h for all weights, H_0 = 1, in probe and update."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        h = state.kept.setdefault("h", torch.ones(len(state.x), 1))
        z = cohort.shared(count) / h[..., None].sqrt()
        g = shared_scalars(cohort, state.x, z).mean(-1)
        delta = torch.einsum("rp,rpd->rd", g, z) / count
        state.kept["h"] = retention * h + (1 - retention) * (delta.square().mean(1)[:, None] + eps)
        return delta

    return estimate


def residual(retention: float, of: str = "shared", count: int = 5) -> Estimate:
    """Regression over all past pairs by least mean squares: v is the believed gradient, and a
    scalar corrects what it did not foresee, v += Σ (g - u·v) u / (n + d). Before that v shrinks
    by ``retention``."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        v = retention * state.kept.get("v", torch.zeros_like(state.x))
        if of == "shared":
            u = cohort.shared(count)
            g = shared_scalars(cohort, state.x, u).mean(-1)
        else:
            u = cohort.own(count)
            g, u = side_by_side(own_scalars(cohort, state.x, u), u)
        state.kept["v"] = v + (g - v @ u.T) @ u / (len(u) + u.shape[1])
        return state.kept["v"]

    return estimate


def recycled(rounds: int, count: int = 5) -> Estimate:
    """Ridge regression over the pairs of the last k rounds: v = Uᵀ (U Uᵀ + d I)⁻¹ g."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.shared(count)
        past = state.kept.setdefault("pairs", [])
        past.append((u, shared_scalars(cohort, state.x, u).mean(-1)))
        del past[:-rounds]
        us, gs = torch.cat([pair[0] for pair in past]), torch.cat([pair[1] for pair in past], 1)
        gram = us @ us.T + us.shape[1] * torch.eye(len(us))
        return torch.linalg.solve(gram, gs.T).T @ us

    return estimate


def guided(retention: float = 0.95, count: int = 4) -> Estimate:
    """One probe along the mean of past estimates, ``count`` along random directions: the component
    along the mean is known exactly, the rest as before (after arXiv 1806.10230)."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.shared(count)
        v = state.kept.get("guide", (u[:1].expand_as(state.x), 1.0))[0]
        unit = v / v.norm(dim=1, keepdim=True).clamp_min(1e-30)
        length = u.shape[1] ** 0.5
        probes = torch.cat([u.expand(len(v), -1, -1), unit[:, None] * length], 1)
        g = shared_scalars(cohort, state.x, probes).mean(-1)
        along = g[:, -1:] / length
        found = (g[:, :-1] - along * (unit @ u.T)) @ u / count + along * unit
        state.mean("guide", found, retention)
        return found

    return estimate


def control_variates(of: str = "shared", count: int = 5) -> Estimate:
    """Everyone believes a gradient v_i of each client, from its earlier scalars by least mean
    squares. A client's scalar counts by what v_i did not foresee, plus what the mean of all v
    foresees: SCAFFOLD's correction (arXiv 1910.06378) from scalars only."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        (rates, d), clients = state.x.shape, torch.from_numpy(cohort.clients)
        v = state.kept.setdefault("v", torch.zeros(rates, len(cohort.federation.sizes), d))
        if of == "shared":
            u = cohort.shared(count).expand(len(clients), -1, -1)
            g = shared_scalars(cohort, state.x, u[0])
            cohort.record += len(clients) * (count + 1) - count  # each client's own scalars
        else:
            u = cohort.own(count)
            g = own_scalars(cohort, state.x, u)
        everyone = v.mean(1)
        surprise = g - torch.einsum("rmd,mpd->rpm", v[:, clients], u)
        v[:, clients] += torch.einsum("rpm,mpd->rmd", surprise, u) / (count + d)
        return everyone + torch.einsum("rpm,mpd->rd", surprise, u) / (len(clients) * count)

    return estimate
