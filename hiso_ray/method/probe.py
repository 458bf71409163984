"""Weights + direction -> losses -> one scalar, without ever writing to the weights.

A probe builds x + μ z in a buffer of its own. Perturbing in place and subtracting again would
drift: after 50 probes 5e-8 relative in fp32, 3e-3 in bf16.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method.curvature import Curvature


def perturb(
    out: Tensor, x: Tensor, u: Iterator[tuple[slice, Tensor]], curvature: Curvature, mu: float
) -> Tensor:
    """out = x + μ H^{-1/2} u, in one pass.

    Args:
        out: (d,) buffer of the forward passes' dtype; rounded once, from a float32 sum.
        x: (d,) float32, read only.
        u: the chunks of one direction.
        mu: μ; negative for the other side of a central difference.
    """
    for where, chunk in u:
        z = curvature.whiten(chunk, where)
        if out.dtype == torch.float32:
            torch.add(x[where], z, alpha=mu, out=out[where])
        else:
            out[where] = torch.add(x[where], z, alpha=mu)
    return out


def difference(after: np.ndarray, before: np.ndarray, distance: float) -> np.ndarray:
    """g = [F(after) - F(before)] / distance, rounded to the float32 that is sent.

    Forward: F(x + μz), F(x), μ. Central: F(x + μz), F(x - μz), 2μ. Losses come as float64.
    """
    return ((after - before) / distance).astype(np.float32)
