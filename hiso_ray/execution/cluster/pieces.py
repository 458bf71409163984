"""Pieces of a round's work and their state."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from hiso_ray.execution.history import History
from hiso_ray.server.work_units import Unit

Item = int | Unit


@dataclass
class Piece:
    """Work for one member: a method of the worker and its arguments.

    Attributes:
        items: work units, or evaluation batches; the answer has one result for each. None if the
            answer is a single result.
        more: arguments after the items.
        prefers: the member that gets it if it is free.
        tries: how often it has failed.
        memory: message of the last try that was killed for memory; None if none was.
    """

    method: str
    items: tuple[Item, ...] | None = None
    more: tuple[Any, ...] = ()
    prefers: int | None = None
    tries: int = 0
    memory: str | None = None

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.more if self.items is None else (self.items, *self.more)

    @property
    def members(self) -> tuple[int, ...]:
        """The clients or evaluation batches themselves."""
        items = self.items or ()
        return tuple(n for item in items for n in (item if isinstance(item, tuple) else (item,)))

    @property
    def whom(self) -> str:
        """Names its clients or batches, as the beginning of a sentence."""
        if not self.members:
            return ""
        what = "client" if self.method == "turns" else "evaluation batch"
        plural = "s" if len(self.members) > 1 else ""
        return f"{what}{plural} {', '.join(map(str, self.members))}, "

    def apart(self) -> list[Piece]:
        """Splits it into one piece per item."""
        return [replace(self, items=(item,), prefers=None) for item in self.items or ()]


@dataclass
class Sent:
    """A message on its way.

    Attributes:
        number: of the member that has it.
        since: the round that the member was believed to be at.
        units: amount of work: turns or batches, plus records to apply, plus one.
        slow: it will measure the oracle of H before it answers.
    """

    piece: Piece
    number: int
    since: int
    at: float
    deadline: float
    units: int
    slow: bool = False


@dataclass
class Call:
    """One call of ``Fleet.ask``: what is to be sent, what is on its way, what came back."""

    history: History
    waiting: deque[Piece]
    pending: dict[ray.ObjectRef, Sent] = field(default_factory=dict)
    answers: dict[Item | None, Any] = field(default_factory=dict)
