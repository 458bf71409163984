"""H = 1: directions as they are drawn (DeComFL, arXiv 2405.15861)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Identity:
    """Nothing stored, nothing learned."""

    def whiten(self, u: Tensor, where: slice) -> Tensor:
        return u

    def color(self, u: Tensor, where: slice) -> Tensor:
        return u

    def absorb(self, samples: Sequence[Tensor], where: slice, beta: float, eps: float) -> None:
        return None

    def commit(self, beta: float, eps: float) -> None:
        return None

    def values(self) -> Tensor | None:
        return None

    def stored(self) -> dict[str, Tensor]:
        return {}
