"""What every replica holds, and the scalars that a round adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from candidates.federation import Cohort


@dataclass
class State:
    """x_r and what a candidate remembers, for all rates of its grid.

    Attributes:
        x: (rates, d) float32.
        lr: (rates,) float64, the grid.
        rounds: planned, for schedules.
        moved: (rates, d), the last step x_r - x_{r-1}.
        undo: (rates,) whether this round takes the last step back instead of making one.
        kept: what a candidate remembers.
    """

    x: Tensor
    lr: Tensor
    rounds: int
    round: int = 0
    moved: Tensor | None = None
    undo: Tensor | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    def mean(self, name: str, value: Tensor, retention: float) -> Tensor:
        """The exponential mean of a value over rounds, its bias corrected."""
        total, weight = self.kept.get(name, (torch.zeros_like(value), 0.0))
        total = retention * total + (1 - retention) * value
        weight = retention * weight + (1 - retention)
        self.kept[name] = total, weight
        return total / weight


Estimate = Callable[[Cohort, State], Tensor]
"""(rates, d) estimate of the gradient."""


def shared_scalars(cohort: Cohort, x: Tensor, u: Tensor) -> Tensor:
    """(rates, P, m) forward differences of every client along (P, d) or (rates, P, d). Clients
    send P scalars, everyone receives their P means."""
    after = cohort.losses(x[:, None] + cohort.mu * u)
    cohort.up += u.shape[-2]
    cohort.record += u.shape[-2]
    return ((after - cohort.base(x)[:, None]) / cohort.mu).float()


def own_scalars(cohort: Cohort, x: Tensor, u: Tensor, record: int | None = None) -> Tensor:
    """(rates, P, m) forward differences of each client along its own (m, P, d) or
    (rates, m, P, d).

    Args:
        record: scalars that everyone receives; by default all, and the clients' ids.
    """
    m, count = u.shape[-3:-1]
    after = cohort.losses_of_each(x[:, None, None] + cohort.mu * u)
    cohort.up += count
    cohort.record += m * (count + 1) if record is None else record
    return ((after - cohort.base(x)[:, None]) / cohort.mu).float()


def side_by_side(g: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """(rates, P, m) and (m, P, d) as (rates, m·P) and (m·P, d)."""
    return g.transpose(1, 2).flatten(1), u.flatten(0, 1)
