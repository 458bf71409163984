"""Weights + direction -> losses -> scalars, without ever writing to the weights.

A probe builds x + μ z in a buffer of its own, or where there is none has the task write it down a
slice at a time. Perturbing in place and subtracting again would drift: after 50 probes 5e-8
relative in fp32, 3e-3 in bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method.curvature import Curvature, is_plain
from hiso_ray.method.direction import Directions
from hiso_ray.method.naming import Name


@dataclass(frozen=True)
class Unperturbed:
    """x itself, in the dtype of the forward passes; see ``tasks.contract.Slices``.

    Attributes:
        whole: x, (d,) float32.
    """

    whole: Tensor

    def write(self, out: Tensor, start: int) -> Tensor:
        return out.copy_(self.whole[start : start + len(out)])


@dataclass(frozen=True)
class Perturbed:
    """x + μ H^{-1/2} u, of which no more exists than what is written down; see
    ``tasks.contract.Slices`` and :func:`perturb`."""

    x: Tensor
    name: Name
    curvature: Curvature
    directions: Directions
    mu: float

    @property
    def whole(self) -> None:
        return None

    def write(self, out: Tensor, start: int) -> Tensor:
        return perturb(out, self.x, self.name, self.curvature, self.directions, self.mu, start)


Weights = Tensor | Unperturbed | Perturbed
# weights (d,), minibatches -> one float64 loss per minibatch
Losses = Callable[[Weights, Sequence[Any]], np.ndarray]
# weights (d,), direction (d,), minibatches -> exact directional derivatives, and losses
Slopes = Callable[[Tensor, Tensor, Sequence[Any]], tuple[np.ndarray, np.ndarray]]


def perturb(
    out: Tensor,
    x: Tensor,
    name: Name,
    curvature: Curvature,
    directions: Directions,
    mu: float,
    start: int = 0,
) -> Tensor:
    """out = x + μ H^{-1/2} u from element ``start`` on, in one pass.

    Args:
        out: (n,) buffer of the forward passes' dtype; rounded once, from a float32 sum.
        x: (d,) float32, read only.
        name: of the direction u.
        mu: μ; negative for the other side of a central difference.
    """
    if directions.fused and is_plain(curvature):
        from hiso_ray.method import fused

        h = curvature.values()
        return fused.probe(out, x, h, name, mu, directions.distribution, start)
    for where, u in directions.chunks(name, slice(start, start + len(out))):
        z, here = curvature.whiten(u, where), slice(where.start - start, where.stop - start)
        if out.dtype == torch.float32:
            torch.add(x[where], z, alpha=mu, out=out[here])
        else:
            out[here] = torch.add(x[where], z, alpha=mu)
    return out


def unperturbed(x: Tensor, buffer: Tensor | None) -> Tensor | Unperturbed:
    """x in the dtype of the forward passes; valid until the buffer is written to again."""
    if buffer is None:
        return Unperturbed(x)
    return x if buffer.dtype == x.dtype else buffer.copy_(x)


def difference(after: np.ndarray, before: np.ndarray, distance: float) -> np.ndarray:
    """g = [F(after) - F(before)] / distance, rounded to the float32 that is sent.

    Forward: F(x + μz), F(x), μ. Central: F(x + μz), F(x - μz), 2μ. Losses come as float64.
    """
    return ((after - before) / distance).astype(np.float32)


@dataclass(frozen=True)
class Probe:
    """How a client measures.

    Attributes:
        mu: radius μ.
        kind: forward, central or exact (forward-mode differentiation; no radius).
        second: with central differences, also c = [F(x+μz) + F(x−μz) − 2F(x)] / μ² ≈ zᵀ∇²F z
            (HiZOO, arXiv 2402.15173).
        sphere: directions are scaled to length √d, uniform on the sphere: FedZO's (arXiv
            2201.09531) v = z/√d with its radius √d·μ.
    """

    mu: float
    kind: Literal["forward", "central", "exact"] = "forward"
    second: bool = False
    sphere: bool = False

    def scalars(
        self,
        losses: Losses,
        slopes: Slopes,
        x: Tensor,
        batches: Sequence[Any],
        names: Sequence[Name],
        curvature: Curvature,
        directions: Directions,
        buffer: Tensor | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Measures every minibatch along every direction of one local step, all of them from x.

        Args:
            curvature: what scales directions in probes.
            buffer: (d,) in the dtype of the forward passes, where each perturbed weight vector is
                built once for all minibatches; None has the task build it slice by slice, for each.

        Returns:
            g: (len(batches), P) float32, what multiplies H^{-1/2} u in the update; with ``second``
                (len(batches), 2P), the c after the g.
            loss: (len(batches),) float64, F(x), or for plain central differences the mean over p of
                [F(x+μz) + F(x-μz)] / 2.
        """
        count = len(names)
        scale = [self.scale(directions, name) for name in names]

        def at(mu: float, p: int) -> np.ndarray:
            there = Perturbed(x, names[p], curvature, directions, mu * scale[p])
            return losses(there if buffer is None else there.write(buffer, 0), batches)

        g = np.empty((len(batches), count * (1 + self.second)), np.float32)
        if self.kind == "exact":
            base = np.empty(len(batches))
            for p in range(count):
                z = torch.zeros_like(x)
                perturb(z, z, names[p], curvature, directions, 1.0)
                slope, base = slopes(x, z, batches)
                g[:, p] = slope * scale[p] ** 2
            return g, base
        if self.kind == "central" and not self.second:
            middle = np.zeros(len(batches))
            for p in range(count):
                plus, minus = at(self.mu, p), at(-self.mu, p)
                g[:, p] = difference(plus, minus, 2 * self.mu) * scale[p]
                middle += (plus + minus) / 2
            return g, middle / count
        base = losses(unperturbed(x, buffer), batches)
        for p in range(count):
            if self.second:
                plus, minus = at(self.mu, p), at(-self.mu, p)
                g[:, p] = difference(plus, minus, 2 * self.mu)
                g[:, count + p] = difference(plus + minus, 2 * base, self.mu**2)
            else:
                g[:, p] = difference(at(self.mu, p), base, self.mu) * scale[p]
        return g, base

    def scale(self, directions: Directions, name: Name) -> float:
        """What a direction is multiplied by."""
        return directions.dimension**0.5 / directions.norm(name) if self.sphere else 1.0
