"""Losses at perturbed weights -> the scalars that a client sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method.curvature import Curvature
from hiso_ray.method.direction import Directions
from hiso_ray.method.naming import Name
from hiso_ray.method.perturbed import Losses, Point, Surroundings, perturb


def difference(after: np.ndarray, before: np.ndarray, distance: float) -> np.ndarray:
    """g = [F(after) - F(before)] / distance, rounded to the float32 that is sent.

    Forward: F(x + μz), F(x), μ. Central: F(x + μz), F(x - μz), 2μ. Losses come as float64.
    """
    return ((after - before) / distance).astype(np.float32)


@dataclass(frozen=True)
class Probe:
    """How a client measures its scalars.

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

    def points_of(self, perturbations: int) -> int:
        """How many points a step has."""
        return len(self.points([1.0] * perturbations))

    def points(self, scale: Sequence[float]) -> list[Point]:
        """Where the losses of one step are measured, in order: x if it is needed, then one or
        both sides of each direction.

        Args:
            scale: (P,) what each direction is multiplied by.
        """
        sides = (1.0,) if self.kind == "forward" else (1.0, -1.0)
        moved = [Point(p, side * self.mu * by) for p, by in enumerate(scale) for side in sides]
        return [Point(None, 0.0), *moved] if self.kind == "forward" or self.second else moved

    def scalars(
        self,
        task: Losses,
        x: Tensor,
        batches: Sequence[Any],
        names: Sequence[Name],
        curvature: Curvature,
        directions: Directions,
        buffer: Tensor | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Measures every client along every direction of one local step.

        Args:
            x: (d,) weights of all clients; or (clients, d), each client's own, for tasks that take
                several weight vectors at once.
            batches: minibatches of one or more clients each; a single one of all clients if each
                has its own x.
            curvature: what scales directions in probes.
            buffer: (k, d) in the dtype of the forward passes, for perturbed weights, which are
                built once for all minibatches, as many at once as the task takes; None makes the
                task build them slice by slice for each batch.

        Returns:
            g: (clients, P) float32, what multiplies H^{-1/2} u in the update; with ``second``
                (clients, 2P), the c after the g.
            loss: (clients,) float64, F(x), or for plain central differences the mean over p of
                [F(x+μz) + F(x-μz)] / 2.
        """
        scale = [self.scale(directions, name) for name in names]
        where = Surroundings(x, names, curvature, directions)
        if self.kind == "exact":
            return _exact(task, where, batches, scale)
        found = where.losses(task, self.points(scale), batches, buffer)
        if self.kind == "forward":
            base, after = found[0], found[1:]
            return (difference(after, base, self.mu) * _column(scale)).T, base
        base, sides = (found[0], found[1:]) if self.second else (None, found)
        plus, minus = sides[::2], sides[1::2]
        g = difference(plus, minus, 2 * self.mu) * _column(scale)
        if base is None:
            return g.T, sides.mean(0)
        c = difference(plus + minus, 2 * base, self.mu**2)
        return np.concatenate([g, c]).T, base

    def scale(self, directions: Directions, name: Name) -> float:
        """What a direction is multiplied by."""
        return directions.dimension**0.5 / directions.norm(name) if self.sphere else 1.0


def _exact(
    task: Losses, where: Surroundings, batches: Sequence[Any], scale: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    slopes, base = [], np.empty(0)
    for p in range(len(scale)):
        z = torch.zeros_like(where.x)
        perturb(z, z, where.names[p], where.curvature, where.directions, 1.0)
        slope, base = task.slopes(where.x, z, batches)
        slopes.append(slope)
    return (np.stack(slopes).astype(np.float32) * _column(scale) ** 2).T, base


def _column(scale: Sequence[float]) -> np.ndarray:
    return np.array(scale, np.float32)[:, None]
