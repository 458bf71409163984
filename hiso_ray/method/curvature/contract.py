"""The interface of a curvature arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Curvature(Protocol):
    """H of one replica. Chunks are float32, 1-D and contiguous, on the arm's device.

    A round reads H with ``whiten`` and ``color``, then gives every chunk's samples to ``absorb``
    and ends with ``commit``. Until a chunk is itself absorbed, reading it gives H_r, however
    many other chunks were absorbed before.
    """

    def whiten(self, u: Tensor, where: slice) -> Tensor:
        """H^{-1/2} u on the chunk ``where`` of the flat vector; may return ``u`` itself.

        Args:
            u: (n,); for arms that are ``is_plain``, also (k, n), k directions.
        """
        ...

    def color(self, u: Tensor, where: slice) -> Tensor:
        """H^{1/2} u on one chunk; may return ``u`` itself."""
        ...

    def absorb(self, samples: Sequence[Tensor], where: slice, beta: float, eps: float) -> None:
        """H <- β H + (1-β)(sample + ε), once per sample, in order, on one chunk.

        Args:
            samples: chunks of non-negative estimates of H; may be overwritten. The same number
                for every chunk of a round.
        """
        ...

    def commit(self, beta: float, eps: float) -> None:
        """Ends the round: every chunk was absorbed."""
        ...

    def values(self) -> Tensor | None:
        """The H that divides the directions, in as few floats as the arm stores; None for H = 1."""
        ...

    def stored(self) -> dict[str, Tensor]:
        """The float32 tensors a snapshot keeps; to restore one, ``copy_`` into it in place."""
        ...
