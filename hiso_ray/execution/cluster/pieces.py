"""Pieces of a round's work, and where each of them is."""

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
    """Work for one member: a method of the worker, and what it is asked about.

    Attributes:
        items: units of clients, or evaluation batches; the answer has one result for each. None
            when the answer is one result.
        more: arguments after the items.
        prefers: the member that gets it if it is free.
        tries: how often it has failed.
        memory: how one of the tries was killed for memory, in words; None if none was.
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
        """Whom it is about, to begin a sentence with."""
        what = "client" if self.method == "turns" else "evaluation batch"
        members = ", ".join(map(str, self.members))
        return f"{what}{'s' * (len(self.members) > 1)} {members}, " * bool(members)

    def apart(self) -> list[Piece]:
        """One piece an item."""
        return [replace(self, items=(item,), prefers=None) for item in self.items or ()]


@dataclass
class Sent:
    """A message on its way.

    Attributes:
        number: of the member that has it.
        since: the round that the member was believed to stand at.
        units: how much work it is: turns or batches, records to apply, and one.
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
