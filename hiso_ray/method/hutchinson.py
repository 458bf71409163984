"""diag(∇²f) from Hessian-vector products, by probing with random signs.

Hutchinson's estimator of the trace (1989) read entry by entry (Bekas, Kokiopoulou and Saad 2007):
for v with independent entries ±1, E[v ⊙ ∇²f v] = diag(∇²f), because E[v_i v_j] = 0 for i ≠ j. One
sample of entry i has the variance Σ_{j≠i} (∇²f)_ij²: zero when the Hessian is diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

HessianVector = Callable[[Tensor], Tensor]
"""v -> ∇²f v, both (d,) float32."""


def diagonal(hessian_vector: HessianVector, signs: Iterable[Tensor]) -> Tensor:
    """The mean of v ⊙ ∇²f v over random signs v, an unbiased estimate of diag(∇²f).

    Args:
        signs: the v, at least one, (d,) float32 of independent ±1; one Hessian-vector product each.

    Returns:
        (d,) float32; entries may be negative, where f is not convex or by chance.
    """
    total, samples = None, 0
    for v in signs:
        total = torch.zeros_like(v) if total is None else total
        total.addcmul_(v, hessian_vector(v))
        samples += 1
    assert total is not None
    return total.div_(samples)
