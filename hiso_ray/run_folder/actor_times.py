"""``actors.csv``: how long each client actor took for its turns, since the last start on Ray."""

from __future__ import annotations

import csv
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hiso_ray.run_folder import files


class ActorTime(NamedTuple):
    """
    Attributes:
        turns: clients' turns that it has answered for.
        seconds: from its messages to their answers, with the records it had to catch up on.
    """

    actor: int
    turns: int
    seconds: float

    @property
    def per_turn(self) -> float:
        return self.seconds / self.turns


class ActorTimes:
    """Adds up the times of a run's client actors."""

    def __init__(self) -> None:
        self._of: dict[int, ActorTime] = {}

    def add(self, actor: int, turns: int, seconds: float) -> None:
        before = self._of.get(actor, ActorTime(actor, 0, 0.0))
        self._of[actor] = ActorTime(actor, before.turns + turns, before.seconds + seconds)

    def write(self, folder: Path) -> None:
        """Writes the table as far as it can be written: only ``show`` and ``watch`` read it."""
        if not self._of:
            return
        rows = (self._of[actor] for actor in sorted(self._of))
        with suppress(OSError), open(folder / files.ACTORS, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([ActorTime._fields, *rows])


def read_actor_times(folder: Path) -> list[ActorTime]:
    """The rows of ``actors.csv``; empty without one, or if it is not one of ours."""
    try:
        with open(folder / files.ACTORS, newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            times = [ActorTime(int(r["actor"]), int(r["turns"]), float(r["seconds"])) for r in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [time for time in times if time.turns > 0]
