"""Two control arms that learn a full diagonal and misapply it on purpose.

Both keep the distribution of HiSo's H but not which weight has which H_i: if they train as well as
HiSo, that assignment does not matter. The permutation and the random draws are made on the CPU from
the run's seed, so that every replica has the same on any device.

A sample Δ² comes from directions divided by the H in use. In HiSo each H_i divides its own samples,
which limits its growth; here another weight's H would, and the spread of H would reinforce itself.
So each sample is first rescaled to what the learned H would give: times the H in use, over the
learned one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method.curvature.diagonal import Diagonal, average
from hiso_ray.seeds import Purpose, generator

_ORDER, _DRAWS = 0, 1  # third word of the keys


def index_dtype(dimension: int) -> np.dtype:
    """The smallest integer type that can index d weights."""
    return np.dtype(np.int32 if dimension <= 2**31 else np.int64)


def _as_learned(arm: Diagonal, samples: Sequence[Tensor], where: slice) -> None:
    """Rescales samples under the H in use to samples under the learned one, in place."""
    factor = arm.used(where) / arm.h[where]
    for sample in samples:
        sample.mul_(factor)


class PermutedDiagonal(Diagonal):
    """Directions are divided by H[π] for a fixed random permutation π; H itself is learned.

    Weight i may use the H of a weight that was already absorbed, so, unlike ``Diagonal``, H is not
    updated in place but in a second vector that ``commit`` copies back.
    """

    def __init__(self, dimension: int, device: torch.device, seed: int) -> None:
        super().__init__(dimension, device)
        order = np.arange(dimension, dtype=index_dtype(dimension))
        generator(seed, Purpose.CURVATURE, _ORDER).shuffle(order)
        self.order = torch.from_numpy(order).to(device)
        self._next: Tensor | None = None

    def used(self, where: slice) -> Tensor:
        return self.h.index_select(0, self.order[where])

    def absorb(self, samples: Sequence[Tensor], where: slice, beta: float, eps: float) -> None:
        if self._next is None:
            self._next = self.h.clone()
        _as_learned(self, samples, where)
        average(self._next[where], samples, beta, eps)

    def commit(self, beta: float, eps: float) -> None:
        if self._next is not None:
            self.h.copy_(self._next)
            self._next = None


class RandomDiagonal(Diagonal):
    """H_i = exp(m + s n_i): fixed standard normal draws n_i, m and s of the learned log H.

    Attributes:
        draws: (d,) float32, n.
        log_moments: (2,) float32, m and s of H_r: mean and standard deviation (over d) of log H.
    """

    def __init__(self, dimension: int, device: torch.device, seed: int) -> None:
        super().__init__(dimension, device)
        rng = generator(seed, Purpose.CURVATURE, _DRAWS)
        self.draws = torch.from_numpy(rng.standard_normal(dimension, np.float32)).to(device)
        self.log_moments = torch.zeros(2, device=device)
        self._sums: Tensor | None = None  # (2,) float64 running sums of log H and its square

    def used(self, where: slice) -> Tensor:
        mean, spread = self.log_moments
        return torch.addcmul(mean, self.draws[where], spread).exp_()

    def absorb(self, samples: Sequence[Tensor], where: slice, beta: float, eps: float) -> None:
        _as_learned(self, samples, where)
        super().absorb(samples, where, beta, eps)
        if self._sums is None:
            self._sums = self.log_moments.new_zeros(2, dtype=torch.float64)
        log = self.h[where].double().log_()
        self._sums += torch.stack([log.sum(), log.square().sum()])

    def commit(self, beta: float, eps: float) -> None:
        if self._sums is None:
            return
        mean, square = self._sums / len(self.h)
        self.log_moments.copy_(torch.stack([mean, (square - mean**2).clamp(min=0).sqrt()]))
        self._sums = None

    def stored(self) -> dict[str, Tensor]:
        return super().stored() | {"log_moments": self.log_moments}
