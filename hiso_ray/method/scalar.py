"""HiSo and its family (arXiv 2506.02370): local steps to τ×P scalars, and the record's update.

The round, in the paper's letters (REFERENCE: HiSo, algorithm 1; DeComFL is the same with H = 1)::

    client i, step k:   z_p = H_r^{-1/2} u(s_{r,k}, p)                 p = 1..P
                        g_p = [F_i(x + μ z_p) - F_i(x)] / μ
                        x  <- x - η Δ_k,   Δ_k = (1/P) Σ_p g_p z_p
    everyone, record:   the same steps with ḡ = the cohort's mean, then
                        H_{r+1} = β H_r + (1-β)(Δ² + ε)

H_r is frozen within a round. A client's local x is thrown away; only g travels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method.curvature import Curvature
from hiso_ray.method.direction import Directions
from hiso_ray.method.probe import difference, perturb

# weights (d,), minibatches -> one float64 loss per minibatch
Losses = Callable[[Tensor, Sequence[Any]], np.ndarray]


@dataclass
class State:
    """x_r and H_r. Only :func:`apply_record` changes them.

    Attributes:
        x: (d,) float32 master weights.
        curvature: H_r.
        update_norm: ‖Δ‖ of the last local step applied, for the metrics.
    """

    x: Tensor
    curvature: Curvature
    update_norm: float = 0.0


@dataclass(frozen=True)
class Probe:
    """How a client measures: P directions, radius μ, one- or two-sided."""

    num_perturbations: int
    mu: float
    central: bool = False

    def scalars(
        self,
        losses: Losses,
        x: Tensor,
        batches: Sequence[Any],
        seed: int,
        state: State,
        directions: Directions,
        buffer: Tensor,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Measures every minibatch along every direction of one local step, all of them from x.

        Each perturbed weight vector is built once and every minibatch is scored on it.

        Returns:
            g: (len(batches), P) float32.
            loss: (len(batches),) float64, F(x), or for central differences the mean over p of
                [F(x+μz) + F(x-μz)] / 2.
        """

        def at(mu: float, p: int) -> np.ndarray:
            u = directions.chunks(seed, p)
            return losses(perturb(buffer, x, u, state.curvature, mu), batches)

        g = np.empty((len(batches), self.num_perturbations), np.float32)
        if self.central:
            middle = np.zeros(len(batches))
            for p in range(self.num_perturbations):
                plus, minus = at(self.mu, p), at(-self.mu, p)
                g[:, p] = difference(plus, minus, 2 * self.mu)
                middle += (plus + minus) / 2
            return g, middle / self.num_perturbations
        base = losses(x if buffer.dtype == x.dtype else buffer.copy_(x), batches)
        for p in range(self.num_perturbations):
            g[:, p] = difference(at(self.mu, p), base, self.mu)
        return g, base


def deltas(
    g: np.ndarray, seed: int, state: State, directions: Directions
) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of Δ = (1/P) Σ_p g_p H^{-1/2} u_p; H^{-1/2} is applied once, to the sum.

    Args:
        g: (P,) float32.
    """
    streams = [directions.chunks(seed, p) for p in range(len(g))]
    for chunks in zip(*streams, strict=True):
        where, first = chunks[0]
        total = first * float(g[0])
        for scalar, (_, u) in zip(g[1:], chunks[1:], strict=True):
            total.add_(u, alpha=float(scalar))
        yield where, state.curvature.whiten(total, where).div_(len(g))


def step_out_of_place(
    out: Tensor, x: Tensor, g: np.ndarray, seed: int, lr: float, state: State, dirs: Directions
) -> Tensor:
    """out = x - η Δ: a client's local step; ``out`` may be ``x`` when ``x`` is the client's own."""
    for where, delta in deltas(g, seed, state, dirs):
        torch.add(x[where], delta, alpha=-lr, out=out[where])
    return out


def apply_record(
    state: State,
    directions: Directions,
    seeds: Sequence[int],
    scalars: np.ndarray,
    *,
    lr: float,
    beta: float,
    eps: float,
    learn_from_all: bool,
) -> None:
    """(x_r, H_r) -> (x_{r+1}, H_{r+1}): reads and writes x and H once, whatever τ and P are.

    Args:
        seeds: τ step seeds s_{r,k}.
        scalars: (τ, P) float32, ḡ.
        learn_from_all: one H update per local step, in order, instead of the last step's only.
    """
    norm = 0.0
    steps = [deltas(g, seed, state, directions) for g, seed in zip(scalars, seeds, strict=True)]
    for chunks in zip(*steps, strict=True):
        where = chunks[0][0]
        moved = [delta for _, delta in chunks]
        for delta in moved:
            state.x[where].add_(delta, alpha=-lr)
        state.curvature.absorb(moved if learn_from_all else moved[-1:], where, beta, eps)
        norm += float(torch.dot(moved[-1], moved[-1]))
    state.curvature.commit(beta, eps)
    state.update_norm = norm**0.5
