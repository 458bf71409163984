"""Members that were killed for memory, and what the user is told of them."""

from __future__ import annotations

from collections.abc import Sequence

from hiso_ray.config import Experiment
from hiso_ray.execution.cluster.death import Deaths, Killed, words
from hiso_ray.execution.cluster.members import Member

GOES_ON = "`hiso-ray resume` goes on, with other `--resources` if they are given"


class Casualties:
    """Finds out whether members died for memory, and remembers why they are away."""

    def __init__(self, experiment: Experiment, members: Sequence[Member], deaths: Deaths) -> None:
        self._experiment, self._members, self._deaths = experiment, members, deaths
        self._words: dict[int, str] = {}  # by member: how it was last killed for memory

    def mark(self) -> None:
        """See ``Deaths.mark``."""
        self._deaths.mark()

    def why(self, number: int, stage: str, kind: str, error: str) -> tuple[str, str]:
        """The kind of fault that a member's death was, and its words: those given, unless it was
        killed for memory."""
        process = self._members[number].process
        assert process is not None  # whoever was asked had started
        killed = self._deaths.of(process)
        if killed is None:
            self.forget(number)
            return kind, error + self._deaths.unseen(process)
        return "memory", self.remember(number, killed, stage)

    def remember(self, number: int, killed: Killed, stage: str) -> str:
        """The words of a death for memory."""
        nodes = [member.process and member.process.node for member in self._members]
        beside = nodes.count(killed.node) if killed.node is not None else 0
        self._words[number] = words(self._experiment, killed, len(nodes), beside, stage)
        return self._words[number]

    def forget(self, number: int) -> None:
        """The member is back, or away for something else."""
        self._words.pop(number, None)

    def again(self, numbers: Sequence[int]) -> bool:
        """Whether each of these members, all away, was killed for memory ``resources.tries`` times
        before it had started: waiting for them is of no use."""
        for number in numbers:
            killed = self._members[number].killed(self._deaths)
            if len(killed) < self._experiment.resources.tries:
                return False
            self.remember(number, killed[-1], "restart")
        return True

    def first(self) -> str:
        """A line to begin with where members are away for memory."""
        away = [n for n, member in enumerate(self._members) if not member.present]
        found = [self._words[n] for n in away if n in self._words]
        return "".join(f"{line}\n" for line in found[-1:])
