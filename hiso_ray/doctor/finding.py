"""What a check starts from, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hiso_ray.doctor.facts import Facts
from hiso_ray.execution.placement import Node

NAMED = 3  # addresses in a line


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        remedy: what to do; empty if nothing.
    """

    check: str
    level: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Examined:
    """A node that has answered.

    Attributes:
        here: it is the node of the process that starts the run.
        store: size of Ray's object store [bytes].
        ahead: how far its clock is ahead [s].
    """

    address: str
    here: bool
    room: Node
    store: float
    ahead: float
    facts: Facts


def grouped(values: Mapping[str, str]) -> str:
    """``VALUE on ADDRESS, ADDRESS; OTHER on ADDRESS``, by the values' first addresses."""
    places: dict[str, list[str]] = {}
    for address, value in values.items():
        places.setdefault(value, []).append(address)
    return "; ".join(
        f"{value} on {', '.join(where[:NAMED])}"
        + (f" and {len(where) - NAMED} more" if len(where) > NAMED else "")
        for value, where in places.items()
    )
