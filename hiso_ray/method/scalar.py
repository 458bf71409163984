"""HiSo and its family (arXiv 2506.02370): the local step, and the update from a record.

The round, in the paper's letters (REFERENCE: HiSo, algorithm 1; DeComFL is the same with H = 1)::

    client i, step k:   z_p = H_r^{-1/2} u_p                           p = 1..P
                        g_p = [F_i(x + μ z_p) - F_i(x)] / μ
                        x  <- x - η Δ_k,   Δ_k = (1/P) Σ_p g_p z_p
    everyone, record:   the same steps with the record's scalars, then
                        H_{r+1} = β H_r + (1-β)(Δ² + ε)

H_r is frozen within a round. A client's local x is discarded; only g is sent. Methods of the
family differ only in what a record's step holds:

- shared directions: P scalars ḡ, the cohort's mean;
- directions per client: m·P scalars, all of them, and Δ is the mean over all m·P directions;
- second differences c (HiZOO, arXiv 2402.15173): H learns from ½|c| H u² in place of Δ²;
- momentum ϱ: v <- ϱ v + Σ_k Δ_k and x <- x - η v, once a round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hiso_ray.config.buffers import STREAMS
from hiso_ray.method.curvature import Curvature, Diagonal, Identity, is_plain
from hiso_ray.method.direction import Directions
from hiso_ray.method.naming import Name


@dataclass
class State:
    """x_r and H_r. Only :func:`apply_record` changes them.

    Attributes:
        x: (d,) float32 master weights.
        curvature: H_r.
        scaled: where directions are scaled by H^{-1/2}.
        velocity: (d,) float32 v_r; None without momentum.
        update_norm: ‖Δ‖ of the last local step applied, for the metrics.
    """

    x: Tensor
    curvature: Curvature
    scaled: Literal["both", "probe", "update"] = "both"
    velocity: Tensor | None = None
    update_norm: float = 0.0

    @property
    def in_probe(self) -> Curvature:
        """What scales directions in a probe."""
        return Identity() if self.scaled == "update" else self.curvature

    @property
    def in_update(self) -> Curvature:
        """What scales directions in an update."""
        return Identity() if self.scaled == "probe" else self.curvature


@dataclass(frozen=True)
class Step:
    """One local step of a record.

    Attributes:
        names: of the n directions.
        g: (n,) float32 scalars.
        second: (n,) float32 second differences; None where the method has none.
    """

    names: Sequence[Name]
    g: np.ndarray
    second: np.ndarray | None = None


@dataclass(frozen=True)
class Rule:
    """The hyper-parameters of a record.

    Attributes:
        lr, beta, eps: η, β and ε.
        learn_from_all: one H update per local step, in order, instead of the last step's only.
        momentum: ϱ.
    """

    lr: float
    beta: float
    eps: float
    learn_from_all: bool = False
    momentum: float = 0.0


def deltas(
    g: np.ndarray, names: Sequence[Name], state: State, directions: Directions
) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of Δ = (1/n) Σ_p g_p H^{-1/2} u_p; H^{-1/2} is applied once, to the sum.

    Args:
        g: (n,) float32.
    """
    # A tensor, since GPUs multiply by the reciprocal of a plain number, which gives other bits.
    count = torch.full((), len(g), dtype=torch.float32, device=directions.device)
    for where, total in _weighted(g, names, directions, square=False):
        yield where, state.in_update.whiten(total, where).div_(count)


def _seconds(step: Step, state: State, directions: Directions) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of (1/n) Σ_p ½|c_p| (H^{1/2} u_p)²: HiZOO's estimate of the Hessian's diagonal."""
    assert step.second is not None
    h = state.in_probe
    for where, total in _weighted(np.abs(step.second), step.names, directions, square=True):
        yield where, h.color(h.color(total, where), where).mul_(0.5 / len(step.names))


def _weighted(
    weights: np.ndarray, names: Sequence[Name], directions: Directions, square: bool
) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of Σ_p w_p u_p (or u_p²), added in order; the caller may overwrite them.

    More than ``STREAMS`` directions are added one after the other to a vector of d elements.
    """

    def add(total: Tensor | None, weight: float, u: Tensor) -> Tensor:
        u = u.square() if square else u
        return u * weight if total is None else total.add_(u, alpha=weight)

    if len(names) <= STREAMS:
        for chunks in zip(*(directions.chunks(name) for name in names), strict=True):
            total = None
            for weight, (_, u) in zip(weights, chunks, strict=True):
                total = add(total, float(weight), u)
            assert total is not None
            yield chunks[0][0], total
        return
    whole = torch.zeros(directions.dimension, device=directions.device)
    slices: list[slice] = []
    for weight, name in zip(weights, names, strict=True):
        slices.clear()
        for where, u in directions.chunks(name):
            add(whole[where], float(weight), u)
            slices.append(where)
    for where in slices:
        yield where, whole[where]


def step_out_of_place(
    out: Tensor,
    x: Tensor,
    g: np.ndarray,
    names: Sequence[Name],
    lr: float,
    state: State,
    directions: Directions,
) -> Tensor:
    """out = x - η Δ: a client's local step; ``out`` may be ``x`` if that is the local x."""
    if directions.fused and is_plain(state.in_update):
        from hiso_ray.method import fused

        h, of = state.in_update.values(), directions.distribution
        fused.apply(out, x, h, [names], g[None], of, lr=lr, whiten=h is not None)
        return out
    for where, delta in deltas(g, names, state, directions):
        torch.add(x[where], delta, alpha=-lr, out=out[where])
    return out


def apply_record(state: State, directions: Directions, steps: Sequence[Step], rule: Rule) -> None:
    """(x_r, H_r) -> (x_{r+1}, H_{r+1}): reads and writes x and H once, whatever τ and P are;
    second differences take an extra pass.

    Args:
        steps: τ local steps, in order.
    """
    if directions.fused and _fits_one_kernel(state, steps):
        return _apply_fused(state, directions, steps, rule)
    learns = steps if rule.learn_from_all else steps[-1:]
    by_seconds = all(step.second is not None for step in learns)
    if by_seconds:
        _learn_from_seconds(state, directions, learns, rule)
    norm = 0.0
    moves = [deltas(step.g, step.names, state, directions) for step in steps]
    for chunks in zip(*moves, strict=True):
        where, moved = chunks[0][0], [delta for _, delta in chunks]
        _move(state, where, moved, rule)
        norm += float(torch.dot(moved[-1], moved[-1]))
        if not by_seconds:
            samples = [delta.square_() for delta in moved[-len(learns) :]]
            state.curvature.absorb(samples, where, rule.beta, rule.eps)
    if not by_seconds:
        state.curvature.commit(rule.beta, rule.eps)
    state.update_norm = norm**0.5


def _learn_from_seconds(
    state: State, directions: Directions, learns: Sequence[Step], rule: Rule
) -> None:
    """Updates HiZOO's H before x moves: its authors' code scales the probe by the old H and the
    step by the new one."""
    for chunks in zip(*(_seconds(step, state, directions) for step in learns), strict=True):
        samples = [sample for _, sample in chunks]
        state.curvature.absorb(samples, chunks[0][0], rule.beta, rule.eps)
    state.curvature.commit(rule.beta, rule.eps)


def _fits_one_kernel(state: State, steps: Sequence[Step]) -> bool:
    plain = is_plain(state.curvature) and state.velocity is None
    return plain and all(step.second is None for step in steps)


def _apply_fused(state: State, directions: Directions, steps: Sequence[Step], rule: Rule) -> None:
    from hiso_ray.method import fused

    learning = isinstance(state.curvature, Diagonal) and state.curvature.learns
    square = fused.apply(
        state.x,
        state.x,
        state.curvature.values(),
        [step.names for step in steps],
        np.stack([step.g for step in steps]),
        directions.distribution,
        lr=rule.lr,
        whiten=not isinstance(state.in_update, Identity),
        learn=("all" if rule.learn_from_all else "last") if learning else "none",
        beta=rule.beta,
        eps=rule.eps,
    )
    state.update_norm = float(square) ** 0.5
    state.curvature.commit(rule.beta, rule.eps)


def _move(state: State, where: slice, moved: Sequence[Tensor], rule: Rule) -> None:
    x = state.x[where]
    if state.velocity is None:
        for delta in moved:
            x.add_(delta, alpha=-rule.lr)
        return
    velocity = state.velocity[where].mul_(rule.momentum)
    for delta in moved:
        velocity.add_(delta)
    x.add_(velocity, alpha=-rule.lr)
