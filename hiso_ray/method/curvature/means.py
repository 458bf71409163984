"""One number per block of weights: H is the mean, over the block, of what a diagonal would learn.

Blocks are the whole vector, its tensors, or their rows. The directions are divided by the block's
number too, so this is not the mean of HiSo's H: its samples come from directions scaled by the
means. No vector of d elements is ever allocated.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hiso_ray.method.curvature.diagonal import inverse_root
from hiso_ray.method.layout import Layout, dimension


class Run(NamedTuple):
    """Neighbouring blocks of equal width.

    Attributes:
        start: where the first block begins in the flat vector.
        first: index of the first block among all blocks.
        blocks: number of blocks.
        width: elements in each.
    """

    start: int
    first: int
    blocks: int
    width: int


def _runs(counts: Sequence[tuple[int, int]]) -> tuple[Run, ...]:
    """Lays (blocks, width) end to end, leaving out tensors without elements."""
    found: list[Run] = []
    start = first = 0
    for blocks, width in counts:
        if blocks * width:
            found.append(Run(start, first, blocks, width))
            start, first = start + blocks * width, first + blocks
    return tuple(found)


def whole(layout: Layout) -> tuple[Run, ...]:
    """One block."""
    return _runs([(1, dimension(layout))])


def tensors(layout: Layout) -> tuple[Run, ...]:
    """One block per tensor."""
    return _runs([(1, math.prod(shape)) for _, shape in layout])


def rows(layout: Layout) -> tuple[Run, ...]:
    """One block per index of the first dimension; a tensor of 0 or 1 dimensions is one block."""
    return _runs(
        [
            (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))
            for _, shape in layout
        ]
    )


class BlockMeans:
    """One float32 per block, H_0 = 1. H changes when the round is committed.

    Attributes:
        h: (blocks,) float32.
    """

    def __init__(self, runs: tuple[Run, ...], device: torch.device) -> None:
        self._runs, self._starts = runs, [run.start for run in runs]
        self.h = torch.ones(sum(run.blocks for run in runs), device=device)
        self._sums: Tensor | None = None  # (samples, blocks) float64, of this round so far

    def whiten(self, u: Tensor, where: slice) -> Tensor:
        out = torch.empty_like(u)
        for blocks, part, shape in self._pieces(where):
            root = inverse_root(self.h[blocks])[:, None]
            torch.mul(u[part].view(shape), root, out=out[part].view(shape))
        return out

    def color(self, u: Tensor, where: slice) -> Tensor:
        out = torch.empty_like(u)
        for blocks, part, shape in self._pieces(where):
            root = inverse_root(self.h[blocks]).reciprocal_()[:, None]
            torch.mul(u[part].view(shape), root, out=out[part].view(shape))
        return out

    def absorb(self, samples: Sequence[Tensor], where: slice, beta: float, eps: float) -> None:
        if self._sums is None:
            self._sums = self.h.new_zeros(len(samples), len(self.h), dtype=torch.float64)
        for blocks, part, shape in self._pieces(where):
            for sums, sample in zip(self._sums, samples, strict=True):
                # In float64, so that the chunk borders do not matter.
                sums[blocks] += sample[part].view(shape).sum(1, dtype=torch.float64)

    def commit(self, beta: float, eps: float) -> None:
        if self._sums is None:
            return
        for run in self._runs:
            self._sums[:, run.first : run.first + run.blocks] /= run.width
        for mean in self._sums:
            self.h.copy_(beta * self.h.double() + (1 - beta) * (mean + eps))
        self._sums = None

    def values(self) -> Tensor | None:
        return self.h

    def stored(self) -> dict[str, Tensor]:
        return {"h": self.h}

    def _pieces(self, where: slice) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
        """Cuts a chunk into runs of whole blocks and the parts of blocks at its ends.

        Yields:
            Which blocks; where they lie in the chunk; (blocks, elements of each in the chunk).
        """
        at = where.start
        i = bisect_right(self._starts, at) - 1
        while at < where.stop:
            run = self._runs[i]
            stop = min(run.start + run.blocks * run.width, where.stop)
            while at < stop:
                block, inside = divmod(at - run.start, run.width)
                count, width = (stop - at) // run.width, run.width
                if inside or not count:
                    count, width = 1, min(run.width - inside, stop - at)
                blocks = slice(run.first + block, run.first + block + count)
                begin = at - where.start
                at += count * width
                yield blocks, slice(begin, at - where.start), (count, width)
            i += 1
