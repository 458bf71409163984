"""HiSo as in the paper, one client at a time on whole vectors: the tests' reference.

Nothing is shared, streamed or remembered here. ``client`` and ``scalar`` must give the same
numbers; tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hiso_ray.method.philox import stream_id
from hiso_ray.method.philox.reference import normals

# (client, local step, weights (d,)) -> loss on the client's minibatch of that step
ClientLoss = Callable[[int, int, Tensor], float]


def direction(step_seed: int, perturbation: int, dimension: int) -> Tensor:
    """u ~ N(0, I_d), drawn in one piece."""
    return torch.from_numpy(normals(stream_id((step_seed, perturbation)), 0, dimension))


def one_round(
    loss: ClientLoss,
    x: Tensor,
    h: Tensor,
    cohort: Sequence[int],
    seeds: Sequence[int],
    *,
    lr: float,
    mu: float,
    perturbations: int,
    central: bool,
    beta: float,
    eps: float,
    curvature: str,
    learn_from_all: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One round of algorithm 1 (REFERENCE: arXiv 2506.02370).

    Args:
        x: (d,) float32, x_r.
        h: (d,) float32, H_r; for the scalar arm all elements are equal.

    Returns:
        x_{r+1}, H_{r+1}, and ḡ as a (τ, P) float32 tensor.
    """
    z = [[direction(s, p, len(x)) / h.sqrt() for p in range(perturbations)] for s in seeds]

    def update(g: Tensor, k: int) -> Tensor:
        return torch.stack([g[p] * z[k][p] for p in range(perturbations)]).sum(0) / perturbations

    everyone = []
    for client in cohort:
        local = x.clone()
        scalars = torch.empty(len(seeds), perturbations)
        for k in range(len(seeds)):
            for p in range(perturbations):
                after = loss(client, k, local + mu * z[k][p])
                if central:
                    scalars[k, p] = (after - loss(client, k, local - mu * z[k][p])) / (2 * mu)
                else:
                    scalars[k, p] = (after - loss(client, k, local)) / mu
            local = local - lr * update(scalars[k], k)
        everyone.append(scalars)

    mean = torch.stack(everyone).double().mean(0).float()
    moved = [update(mean[k], k) for k in range(len(seeds))]
    for delta in moved:
        x = x - lr * delta
    for delta in moved if learn_from_all else moved[-1:]:
        square = delta**2
        if curvature == "scalar":
            square = square.mean().expand_as(h)
        if curvature != "none":
            h = beta * h + (1 - beta) * (square + eps)
    return x, h, mean
