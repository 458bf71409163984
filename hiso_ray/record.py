"""The record of a round: the scalars, and what else a replica needs to apply them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Fields that most methods do not use: a record with these values omits them from its line.
UNUSED: dict[str, Any] = {"second": (), "momentum": 0.0, "update_sha256": None}


@dataclass(frozen=True)
class Record:
    """What one round adds: enough to move any replica from x_r, H_r to x_{r+1}, H_{r+1}.

    Attributes:
        round: r, counted from 0.
        cohort: the clients whose scalars entered the mean, ascending; together with ``dropped``
            and ``late`` the m clients that were sampled.
        seeds: τ 64-bit step seeds s_{r,k}; one for methods that project.
        scalars: τ×P aggregated finite differences ḡ_{k,p}, or with directions per client τ×m·P,
            client by client, or for methods that project 1×K projections of the change; each is
            exactly a float32. Empty if the round changes nothing (no client answered, or too few
            for the aggregation), and for methods that send weights.
        lr, mu: η and μ of this round; for methods that project, the server's rate η_s.
        hessian_retention, hessian_eps: β and ε of this round.
        train_loss: mean loss of the cohort at the points it probed, before the update; None if no
            client answered.
        dropped: sampled clients that dropped out during their turn, ascending.
        late: sampled clients that would have answered after the deadline, ascending.
        seconds: duration of the round on the virtual clock; 0 without one [s].
        second: second differences c, shaped as ``scalars``; empty for methods without them.
        momentum: ϱ of this round.
        update_sha256: for methods that send weights, over the float32 bytes of the mean update
            (d,), which a rerun of the round must reproduce.
    """

    round: int
    cohort: tuple[int, ...]
    seeds: tuple[int, ...]
    scalars: tuple[tuple[float, ...], ...]
    lr: float
    mu: float
    hessian_retention: float
    hessian_eps: float
    train_loss: float | None
    dropped: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    seconds: float = 0.0
    second: tuple[tuple[float, ...], ...] = ()
    momentum: float = 0.0
    update_sha256: str | None = None

    @property
    def moves(self) -> bool:
        """Whether the round changes the model."""
        return bool(self.scalars) or self.update_sha256 is not None

    def content(self) -> dict[str, Any]:
        """The fields for JSON, without those that are unused in this round."""
        return {n: v for n, v in vars(self).items() if n not in UNUSED or v != UNUSED[n]}

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Record:
        """The inverse of :meth:`content`, after a pass through JSON."""
        for name in ("cohort", "seeds", "dropped", "late"):
            content[name] = tuple(content[name])
        for name in ("scalars", "second"):
            content[name] = tuple(tuple(step) for step in content.get(name, ()))
        return cls(**content)
