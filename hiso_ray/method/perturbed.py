"""Losses at perturbed weights, without ever writing to the weights.

A probe builds x + μ z in a separate buffer or, without one, lets the task build it slice by slice.
Perturbing in place and subtracting again would drift: after 50 probes 5e-8 relative in fp32, 3e-3
in bf16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

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
    """x + μ H^{-1/2} u, of which only the slices being written exist; see ``tasks.contract.Slices``
    and :func:`perturb`."""

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


class Several(Protocol):
    """See ``tasks.contract.Several``."""

    at_once: int

    def losses_at(self, weights: Tensor, batches: Sequence[Any]) -> np.ndarray: ...

    def losses_of_each(self, weights: Tensor, batch: Any) -> np.ndarray: ...


class Losses(Protocol):
    """What a probe needs from a task; see ``tasks.contract.Task``."""

    @property
    def several(self) -> Several | None: ...

    def losses(self, weights: Weights, batches: Sequence[Any]) -> np.ndarray: ...

    def slopes(
        self, weights: Tensor, direction: Tensor, batches: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray]: ...


class Point(NamedTuple):
    """Where a loss is measured: x + distance · z.

    Attributes:
        p: the perturbation, or None for x itself.
        distance: in units of z; negative for the other side of a central difference.
    """

    p: int | None
    distance: float


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


@dataclass(frozen=True)
class Surroundings:
    """x, shared or one per client, and the directions of one local step."""

    x: Tensor
    names: Sequence[Name]
    curvature: Curvature
    directions: Directions

    def losses(
        self, task: Losses, points: Sequence[Point], batches: Sequence[Any], buffer: Tensor | None
    ) -> np.ndarray:
        """(points, clients) float64; one pass over the weights per point. A task that takes several
        weight vectors at once evaluates them together."""
        if buffer is None:
            return np.stack([task.losses(self._slices(point), batches) for point in points])
        if task.several is None:
            row = buffer[0]  # the same tensor each time, so that the task binds it once
            return np.stack([task.losses(self._whole(point, row), batches) for point in points])
        if self.x.dim() == 2:
            return self._of_each(task.several, points, batches[0], buffer)
        found = []
        for first in range(0, len(points), len(buffer)):
            some = points[first : first + len(buffer)]
            rows = buffer[: len(some)]
            self._write_all(rows, some)
            found.append(task.several.losses_at(rows, batches))
        return np.concatenate(found)

    def _write_all(self, rows: Tensor, points: Sequence[Point]) -> None:
        """Writes the weights at several points; in one pass if x comes first and all others are at
        the same distance from it, along short directions that are all remembered."""
        base, moved = points[0], points[1:]
        alike = base.p is None and len({point.distance for point in moved}) == 1
        block = None
        if alike and is_plain(self.curvature):
            block = self.directions.block([self.names[p] for p, _ in moved if p is not None])
        if block is None:
            for row, point in zip(rows, points, strict=True):
                self.write(row, point)
            return
        z = self.curvature.whiten(block, slice(0, block.shape[1]))
        rows[0] = self.x
        if rows.dtype == torch.float32:
            torch.add(self.x, z, alpha=moved[0].distance, out=rows[1:])
        else:
            rows[1:] = torch.add(self.x, z, alpha=moved[0].distance)

    def _of_each(
        self, several: Several, points: Sequence[Point], batch: Any, buffer: Tensor
    ) -> np.ndarray:
        found = []
        at_once = len(buffer) // len(self.x)
        for first in range(0, len(points), at_once):
            some = points[first : first + at_once]
            rows = buffer[: len(self.x) * len(some)].unflatten(0, (len(self.x), len(some)))
            for own, x in zip(rows, self.x, strict=True):
                for row, point in zip(own, some, strict=True):
                    self.write(row, point, x)
            found.append(several.losses_of_each(rows, batch))
        return np.concatenate(found)

    def write(self, out: Tensor, point: Point, x: Tensor | None = None) -> Tensor:
        """The weights at a point around x."""
        x = self.x if x is None else x
        if point.p is None:
            return out.copy_(x)
        name = self.names[point.p]
        return perturb(out, x, name, self.curvature, self.directions, point.distance)

    def _whole(self, point: Point, out: Tensor) -> Tensor:
        if point.p is None and out.dtype == self.x.dtype:
            return self.x
        return self.write(out, point)

    def _slices(self, point: Point) -> Unperturbed | Perturbed:
        if point.p is None:
            return Unperturbed(self.x)
        name = self.names[point.p]
        return Perturbed(self.x, name, self.curvature, self.directions, point.distance)
