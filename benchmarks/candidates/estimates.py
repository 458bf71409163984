"""Estimates of the gradient from one round's scalars: who probes along which directions, and how
their scalars are weighted."""

from __future__ import annotations

import torch
from torch import Tensor

from candidates.federation import Cohort
from candidates.state import Estimate, State, own_scalars, shared_scalars, side_by_side


def shared(count: int = 5) -> Estimate:
    """DeComFL (arXiv 2405.15861): the cohort's mean scalar along each of P shared directions."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.shared(count)
        return shared_scalars(cohort, state.x, u).mean(-1) @ u / count

    return estimate


def own(count: int = 5) -> Estimate:
    """``method.directions: per_client``: the mean over all m·P directions."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.own(count)
        g, rows = side_by_side(own_scalars(cohort, state.x, u), u)
        return g @ rows / len(rows)

    return estimate


def groups(number: int, count: int = 5) -> Estimate:
    """The cohort in groups, each with P shared directions of its own."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        of = cohort.own(count)
        members = torch.arange(len(of)).chunk(number)
        u = torch.cat([of[some[0]].expand(len(some), -1, -1) for some in members])
        g = own_scalars(cohort, state.x, u, record=number * count)
        return side_by_side(g, u)[0] @ u.flatten(0, 1) / (len(of) * count)

    return estimate


def central(count: int = 5) -> Estimate:
    """Both sides of each direction: 2P forward passes in place of P + 1."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.shared(count)
        losses = cohort.losses(state.x[:, None] + cohort.mu * torch.cat([u, -u])).mean(-1)
        g = (losses[:, :count] - losses[:, count:]) / (2 * cohort.mu)
        cohort.up += count
        cohort.record += count
        return g.float() @ u / count

    return estimate


def orthogonal(count: int = 5) -> Estimate:
    """Shared directions made orthogonal to each other, of length √d."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        u = cohort.shared(count)
        u = torch.linalg.qr(u.T).Q.T * u.shape[1] ** 0.5
        return shared_scalars(cohort, state.x, u).mean(-1) @ u / count

    return estimate


def changing(first: int, last: int) -> Estimate:
    """P changes linearly from ``first`` to ``last``."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        share = state.round / max(1, state.rounds - 1)
        return shared(round(first + (last - first) * share))(cohort, state)

    return estimate


def weighted_by_labels(ridge: float = 0.1, count: int = 5) -> Estimate:
    """Clients' scalars weighted so that the cohort's mix of labels is nearest to everyone's: least
    squares on label histograms, with a ridge towards equal weights."""

    def estimate(cohort: Cohort, state: State) -> Tensor:
        counts = torch.from_numpy(cohort.federation.counts).float()
        wanted, mix = counts.sum(0) / counts.sum(), counts[cohort.clients]
        mix = mix / mix.sum(1, keepdim=True)
        m = len(mix)
        equal = torch.full((m,), 1 / m)
        gram = mix @ mix.T + ridge * torch.eye(m)
        weights = (equal + torch.linalg.solve(gram, mix @ (wanted - equal @ mix))).clamp_min(0)
        u = cohort.shared(count)
        return shared_scalars(cohort, state.x, u) @ (weights / weights.sum()) @ u / count

    return estimate
