"""One H_i per weight: learned (HiSo, arXiv 2506.02370), learned for k rounds, or measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FLOOR = 0.01  # lower bound on the oracle's H, whose mean is 1 before it is applied


class Diagonal:
    """H_i for every weight, H_0 = 1.

    A chunk of H is updated as it is absorbed, so H is read and written once a round.

    Attributes:
        h: (d,) float32, the learned H.
    """

    def __init__(self, dimension: int, device: torch.device) -> None:
        self.h = torch.ones(dimension, device=device)

    def used(self, where: slice) -> Tensor:
        """The H that divides the directions, on one chunk; read only."""
        return self.h[where]

    @property
    def learns(self) -> bool:
        """Whether the round's samples change H."""
        return True

    def whiten(self, u: Tensor, where: slice) -> Tensor:
        root = inverse_root(self.used(where))
        return root.mul_(u) if u.dim() == 1 else root * u

    def color(self, u: Tensor, where: slice) -> Tensor:
        return inverse_root(self.used(where)).reciprocal_().mul_(u)

    def absorb(self, samples: Sequence[Tensor], where: slice, beta: float, eps: float) -> None:
        if self.learns:
            average(self.h[where], samples, beta, eps)

    def commit(self, beta: float, eps: float) -> None:
        return None

    def values(self) -> Tensor | None:
        return self.used(slice(0, len(self.h)))

    def stored(self) -> dict[str, Tensor]:
        return {"h": self.h}


def inverse_root(h: Tensor) -> Tensor:
    """1/√h as a square root and a division, each rounded by IEEE 754: the same bits everywhere.

    torch.rsqrt does this on CPUs, where torch.sqrt is MKL's and rounds differently; on GPUs it is
    an approximation.
    """
    return torch.rsqrt(h) if h.device.type == "cpu" else torch.sqrt(h).reciprocal_()


def average(h: Tensor, samples: Sequence[Tensor], beta: float, eps: float) -> None:
    """h <- β h + (1-β)(sample + ε) in place, once per sample; overwrites the samples."""
    for sample in samples:
        h.mul_(beta).add_(sample.add_(eps), alpha=1 - beta)


class FrozenDiagonal(Diagonal):
    """Learns for the first k rounds that reach ``commit``, then keeps that H.

    Attributes:
        rounds: (1,) float32, rounds committed so far. Always on the CPU, so that reading it
            never waits for a GPU.
    """

    def __init__(self, dimension: int, device: torch.device, rounds: int) -> None:
        super().__init__(dimension, device)
        self._last = rounds
        self.rounds = torch.zeros(1)

    @property
    def learns(self) -> bool:
        return self.rounds.item() < self._last

    def commit(self, beta: float, eps: float) -> None:
        if self.learns:  # a float32 counts exactly only up to 2^24
            self.rounds.add_(1)

    def stored(self) -> dict[str, Tensor]:
        return super().stored() | {"rounds": self.rounds}


class OracleDiagonal(Diagonal):
    """H is set by :meth:`measure`, and 1 before that; it does not learn from rounds."""

    @property
    def learns(self) -> bool:
        return False

    def set_hessian(self, diagonal: Tensor) -> None:
        """H <- max(|diagonal| / mean|diagonal|, 0.01), or 1 if the diagonal is all zero.

        The oracle gives the shape of H; its scale is left to the learning rate: after division by
        the mean, rates that suit H = 1 suit this H too. Weights with zero curvature would get H = 0
        and infinite directions: the floor bounds H^{-1/2} by ten times that of average curvature.

        Args:
            diagonal: (d,), diag(∇²f) or an estimate of it.

        Raises:
            ValueError: the diagonal differs in size from H or is not finite.
        """
        if diagonal.shape != self.h.shape:
            raise ValueError(
                f"a diagonal of shape {tuple(diagonal.shape)} was measured for H of shape "
                f"{tuple(self.h.shape)}; measure all trainable weights as one flat vector"
            )
        size = diagonal.detach().abs()
        mean = float(size.mean(dtype=torch.float64))
        if not mean < float("inf"):
            raise ValueError(
                "the measured diagonal of the Hessian is not finite: the loss has overflowed at "
                "these weights; lower method.lr"
            )
        self.h.copy_(size.div_(mean).clamp_(min=FLOOR) if mean > 0 else torch.ones_like(self.h))
