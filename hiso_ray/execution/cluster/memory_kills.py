"""Tracks members that were killed for memory and explains their deaths to the user."""

from __future__ import annotations

from collections.abc import Sequence

from hiso_ray.config import Experiment
from hiso_ray.execution.cluster.cause_of_death import Deaths, Killed, words
from hiso_ray.execution.cluster.members import Member

GOES_ON = "`hiso-ray resume` goes on, with other `--resources` if they are given"


class Casualties:
    """Finds out whether members were killed for memory; keeps the messages while they are away."""

    def __init__(self, experiment: Experiment, members: Sequence[Member], deaths: Deaths) -> None:
        self._experiment, self._members, self._deaths = experiment, members, deaths
        self._words: dict[int, str] = {}  # by member: message of its last kill for memory

    def mark(self) -> None:
        """See ``Deaths.mark``."""
        self._deaths.mark()

    def why(self, number: int, stage: str, kind: str, error: str) -> tuple[str, str]:
        """(fault kind, message) of a member's death: those given, unless it was killed for
        memory."""
        process = self._members[number].process
        assert process is not None  # only members that have started are asked
        killed = self._deaths.of(process)
        if killed is None:
            self.forget(number)
            return kind, error + self._deaths.unseen(process)
        return "memory", self.remember(number, killed, stage)

    def remember(self, number: int, killed: Killed, stage: str) -> str:
        """Returns and keeps the message for a kill for memory."""
        nodes = [member.process and member.process.node for member in self._members]
        beside = nodes.count(killed.node) if killed.node is not None else 0
        self._words[number] = words(self._experiment, killed, len(nodes), beside, stage)
        return self._words[number]

    def forget(self, number: int) -> None:
        """Drops a member's message: it is back, or away for another reason."""
        self._words.pop(number, None)

    def again(self, numbers: Sequence[int]) -> bool:
        """Whether each of these absent members was killed for memory ``resources.tries`` times
        while starting, so that waiting for them is useless."""
        for number in numbers:
            killed = self._members[number].killed(self._deaths)
            if len(killed) < self._experiment.resources.tries:
                return False
            self.remember(number, killed[-1], "restart")
        return True

    def first(self) -> str:
        """The first line of an error message if absent members were killed for memory; else ""."""
        away = [n for n, member in enumerate(self._members) if not member.present]
        found = [self._words[n] for n in away if n in self._words]
        return "".join(f"{line}\n" for line in found[-1:])
