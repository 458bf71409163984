"""H, the shared curvature estimate: z = H^{-1/2} u, and H <- β H + (1-β)(Δ² + ε).

REFERENCE: HiSo, arXiv 2506.02370. β (``hessian_retention``) is the share of the *old* H that is
kept; ε stands inside the average, so H never falls below it. H is float32 whatever the weights are.

Three arms share one small contract:

==========  ==========================  =====================================================
``none``    H = 1, nothing stored       DeComFL (arXiv 2405.15861)
``diagonal`` one H_i per weight, (d,)   HiSo
``scalar``  the mean of H, one float    does the diagonal do more than a single number?
==========  ==========================  =====================================================

``whiten`` sees one chunk at a time; ``absorb`` takes that chunk's Δ when the round is applied, and
``commit`` ends the round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Curvature(Protocol):
    """What an arm does; chunks are float32 on the arm's device."""

    def whiten(self, u: Tensor, where: slice) -> Tensor:
        """H^{-1/2} u on one chunk; may return ``u`` itself."""
        ...

    def absorb(self, deltas: Sequence[Tensor], where: slice, beta: float, eps: float) -> None:
        """Takes one chunk of each Δ that this round's H learns from, in order."""
        ...

    def commit(self, beta: float, eps: float) -> None:
        """Ends the round: every chunk was absorbed."""
        ...

    def values(self) -> Tensor | None:
        """The stored floats, for digests and statistics; None when there are none."""
        ...


class Identity:
    """H = 1."""

    def __init__(self, dimension: int, device: torch.device) -> None:
        return None

    def whiten(self, u: Tensor, where: slice) -> Tensor:
        return u

    def absorb(self, deltas: Sequence[Tensor], where: slice, beta: float, eps: float) -> None:
        return None

    def commit(self, beta: float, eps: float) -> None:
        return None

    def values(self) -> Tensor | None:
        return None


class Diagonal:
    """H_i for every weight, H_0 = 1."""

    def __init__(self, dimension: int, device: torch.device) -> None:
        self.h = torch.ones(dimension, device=device)

    def whiten(self, u: Tensor, where: slice) -> Tensor:
        return torch.rsqrt(self.h[where]).mul_(u)

    def absorb(self, deltas: Sequence[Tensor], where: slice, beta: float, eps: float) -> None:
        for delta in deltas:
            self.h[where].mul_(beta).add_(delta.square().add_(eps), alpha=1 - beta)

    def commit(self, beta: float, eps: float) -> None:
        return None

    def values(self) -> Tensor | None:
        return self.h


class Scalar:
    """h = mean of the H that ``Diagonal`` would hold if it always whitened with h; h_0 = 1."""

    def __init__(self, dimension: int, device: torch.device) -> None:
        self.h = torch.ones(1, device=device)
        self._dimension = dimension
        self._squares: list[float] = []

    def whiten(self, u: Tensor, where: slice) -> Tensor:
        return u * torch.rsqrt(self.h)

    def absorb(self, deltas: Sequence[Tensor], where: slice, beta: float, eps: float) -> None:
        self._squares = self._squares or [0.0] * len(deltas)
        for i, delta in enumerate(deltas):
            self._squares[i] += float(torch.dot(delta, delta))

    def commit(self, beta: float, eps: float) -> None:
        for total in self._squares:
            self.h.mul_(beta).add_((1 - beta) * (total / self._dimension + eps))
        self._squares = []

    def values(self) -> Tensor | None:
        return self.h


ARMS: dict[str, Callable[[int, torch.device], Curvature]] = {
    "none": Identity,
    "diagonal": Diagonal,
    "scalar": Scalar,
}


def initial(arm: str, dimension: int, device: torch.device) -> Curvature:
    """H_0 of an arm: ``none``, ``diagonal`` or ``scalar``."""
    return ARMS[arm](dimension, device)
