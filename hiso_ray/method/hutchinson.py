"""diag(∇²f) from Hessian-vector products, by probing with random signs.

Hutchinson's estimator of the trace (1989) read entry by entry (Bekas, Kokiopoulou and Saad 2007):
for v with independent entries ±1, E[v ⊙ ∇²f v] = diag(∇²f), because E[v_i v_j] = 0 for i ≠ j. One
sample of entry i has the variance Σ_{j≠i} (∇²f)_ij²: none when the Hessian is diagonal.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HessianVector = Callable[[Tensor], Tensor]
"""v -> ∇²f v, both (d,) float32."""


def diagonal(
    hessian_vector: HessianVector, dimension: int, samples: int, rng: torch.Generator
) -> Tensor:
    """The mean of v ⊙ ∇²f v over random signs v, an unbiased estimate of diag(∇²f).

    Args:
        dimension: d.
        samples: how many v, at least 1; one Hessian-vector product each.
        rng: on the device of the products; it decides every v.

    Returns:
        (d,) float32; entries may be negative, where f is not convex or by chance.
    """
    assert samples >= 1
    total = torch.zeros(dimension, device=rng.device)
    for _ in range(samples):
        signs = torch.randint(0, 2, (dimension,), generator=rng, device=rng.device)
        v = signs.mul_(2).sub_(1).float()
        total.addcmul_(v, hessian_vector(v))
    return total.div_(samples)
