"""A client's turn in the first-order methods: local SGD from x_r to a delta of d floats.

With η the client's lr and x_{i,0} = x_r, local step k = 0..τ-1 of client i is::

    g  =  ∇F_i(x_{i,k}) + λ x_{i,k} + ρ (x_{i,k} - x_r)
    b <-  momentum · b + g                                    b = 0 at the start of every round
    x_{i,k+1} = x_{i,k} - η b

and the client sends Δ_i = x_{i,τ} - x_r. λ = ρ = momentum = 0 is FedAvg's client (McMahan et al.
2017, arXiv 1602.05629) and the client of every FedOpt method (Reddi et al. 2021, arXiv 2003.00295,
algorithm 2); ρ > 0 is FedProx (Li et al. 2020, arXiv 1812.06127, equation 2: the client minimises
F_i(x) + (ρ/2) ‖x - x_r‖²). What the server does with the mean of Δ_i is in ``server``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method.direction import CHUNK

Gradient = Callable[[Tensor, int], tuple[float, Tensor]]
"""(weights (d,) float32, read only; local step) -> the loss there, and ∇F_i (d,) float32."""


def local_sgd(
    gradient: Gradient,
    start: Tensor,
    *,
    steps: int,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    prox: float = 0.0,
) -> tuple[Tensor, np.ndarray]:
    """τ local steps of one client.

    Holds d floats, and d more with momentum, beside the gradient. Neither ``start`` nor a gradient
    is written to, so all clients may start from one x_r and a gradient may come in a reused
    buffer. Non-finite values are not checked here; they show in what is returned.

    Args:
        gradient: the client's own; it knows the minibatch of each local step.
        start: (d,) float32, x_r.
        steps: τ.
        lr: η of the client.
        momentum: as in ``torch.optim.SGD``, without dampening, not Nesterov's.
        weight_decay: λ, coupled: added to the gradient, as in ``torch.optim.SGD``.
        prox: ρ, FedProx's μ; it has no effect before the second local step.

    Returns:
        Δ_i = x_{i,τ} - x_r, (d,) float32, newly allocated; and the (τ,) float64 losses
        F_i(x_{i,k}), without the λ and ρ terms.
    """
    local = start.detach().clone()
    velocity = torch.zeros_like(local) if momentum else None
    losses = np.empty(steps)
    for k in range(steps):
        losses[k], slope = gradient(local.detach(), k)
        for where in _slices(local):
            x, move = local[where], slope[where]
            if weight_decay:
                move = move.add(x, alpha=weight_decay)
            if prox:
                move = move.add(x - start[where], alpha=prox)
            if velocity is not None:
                move = velocity[where].mul_(momentum).add_(move)
            x.add_(move, alpha=-lr)
    return local.sub_(start), losses


def _slices(vector: Tensor) -> list[slice]:
    """Slices small enough that a step's temporaries take negligible memory."""
    step = CHUNK[vector.device.type]
    return [slice(i, i + step) for i in range(0, len(vector), step)]
