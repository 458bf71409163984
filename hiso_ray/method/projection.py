"""Ferret: K scalars of a client's change, block by block (Shu et al. 2025, arXiv 2409.06277).

A client has taken τ steps of SGD from x_r to x_i (``first_order``). The weights are cut into
blocks; block b, of d_b weights, has n_b directions u of mean 0 and variance 1, Σ_b n_b = K::

    client i, block b:   g_k = <x_r - x_i, u_k>                       k = 1..n_b
    everyone, record:    x <- x - η_s (1/n_b) Σ_k ḡ_k u_k

so that the step is η_s times the mean of x_r - x_i in expectation. Blocks and scaling are those of
the authors' code (github.com/allen4747/Ferret): consecutive tensors make up a block while they have
at most 0.9 times as many weights as the median tensor, and for directions v = u/√d_b its update,
(d_b/n_b) <x_r - x_i, v> v, is this one. Its own v are normals cut off at ±1/√d_b, which have
‖v‖² ≈ 1/3 instead of 1: a server's rate of 10 there is one of 10/3 here. It differs otherwise:

- Each client there has n_b = max(2, ⌊K ‖δ_b‖ / max_c ‖δ_c‖⌋) of K directions, by the norms of its
  own change δ, at random, and sends between 2 and K scalars for each block. Here n_b is the same
  for all clients, so that everyone sends K scalars and rules can compare them: 2, and a share of
  the rest by the norms of the last round's mean change, which the record tells (E ḡ² = ‖δ̄_b‖²).
- The directions there are drawn once, so that all rounds move in one subspace; here, each round.
- Terms there are clipped to norm 10 and left out if not finite; here overflow stops the run.

Where K is too small for two directions a block, all weights are one block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method.curvature import Identity
from hiso_ray.method.direction import Directions, Generator
from hiso_ray.method.layout import Layout
from hiso_ray.method.naming import Name
from hiso_ray.method.philox import Distribution
from hiso_ray.method.scalar import Rule, State, Step, apply_record

LEAST = 2  # directions of a block
SHARE_OF_MEDIAN = 0.9


class Blocks:
    """The blocks of the weights, and what decides how many directions each has.

    Directions are streamed, as everywhere: memory does not grow with K. Names are (seed, b, k).

    Args:
        projections: K.
        budget_bytes: memory for remembered directions, of all blocks together.

    Attributes:
        sizes: d_b.
        norms: (blocks,) float32 on the CPU, ‖δ̄_b‖ by the last record; before the first all are 1.
    """

    def __init__(
        self,
        layout: Layout,
        projections: int,
        device: torch.device,
        budget_bytes: int,
        generator: Generator = "philox",
        distribution: Distribution = "gaussian",
    ) -> None:
        self.projections = projections
        self.sizes = block_sizes(layout, most=projections // LEAST)
        self.norms = torch.ones(len(self.sizes))
        d = sum(self.sizes)
        self._directions = [
            Directions(size, device, budget_bytes * size // d, generator, distribution)
            for size in self.sizes
        ]

    def counts(self) -> list[int]:
        """n_b of the next round, in the order of the blocks."""
        norms = self.norms.double().numpy()
        ends = np.cumsum(norms if norms.any() else np.ones_like(norms))
        spare = self.projections - LEAST * len(norms)
        shared = np.floor(spare * (ends / ends[-1])).astype(int)
        return [LEAST + int(share) for share in np.diff(shared, prepend=0)]

    def project(self, change: Tensor, seed: int) -> np.ndarray:
        """The scalars of a client's change, block by block.

        Args:
            change: (d,) float32, x_r - x_i.
            seed: of the round.

        Returns:
            (K,) float32.
        """
        return np.array(
            [
                _dot(change[where], directions, name)
                for where, directions, names in self._of(seed)
                for name in names
            ],
            np.float32,
        )

    def apply(
        self, state: State, seed: int, scalars: np.ndarray, lr: float, momentum: float = 0.0
    ) -> None:
        """x_r -> x_{r+1}, by a record's scalars; H is 1. Forgets the round's directions.

        Args:
            scalars: (K,) float32 ḡ.
            lr: η_s.
            momentum: ϱ; see ``scalar``.
        """
        rule = Rule(lr, beta=0.0, eps=0.0, momentum=momentum)
        square, norms, at = 0.0, [], 0
        for where, directions, names in self._of(seed):
            g = scalars[at : (at := at + len(names))]
            velocity = None if state.velocity is None else state.velocity[where]
            block = State(state.x[where], Identity(), velocity=velocity)
            apply_record(block, directions, [Step(names, g)], rule)
            directions.forget()
            square += block.update_norm**2
            norms.append(math.sqrt(math.fsum(np.square(g, dtype=np.float64)) / len(g)))
        state.update_norm = math.sqrt(square)
        self.norms.copy_(torch.tensor(norms))

    def _of(self, seed: int) -> Iterator[tuple[slice, Directions, list[Name]]]:
        """Each block of a round: its weights, its directions, and their names."""
        start = 0
        for b, (directions, count) in enumerate(zip(self._directions, self.counts(), strict=True)):
            stop = start + directions.dimension
            yield slice(start, stop), directions, [(seed, b, k) for k in range(count)]
            start = stop


def block_sizes(layout: Layout, most: int) -> list[int]:
    """Weights of each block, in the order of the flat vector.

    Args:
        most: blocks; if there would be more, all weights are one.
    """
    tensors = [math.prod(shape) for _, shape in layout]
    limit, sizes = int(SHARE_OF_MEDIAN * np.median(tensors)), tensors[:1]
    for size in tensors[1:]:
        if sizes[-1] + size <= limit:
            sizes[-1] += size
        else:
            sizes.append(size)
    return sizes if len(sizes) <= most else [sum(sizes)]


def _dot(vector: Tensor, directions: Directions, name: Name) -> float:
    return sum(float(torch.dot(vector[where], u)) for where, u in directions.chunks(name))
