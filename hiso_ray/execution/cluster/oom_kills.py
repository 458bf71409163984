"""How many processes the kernel has killed for memory, by its own count."""

from __future__ import annotations

from pathlib import Path

MACHINE = Path("/proc/vmstat")
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def counter() -> Path:
    """The file that counts them: of this process's cgroup (version 2), to which the actors of the
    same node belong, else of the whole machine, whoever's they were."""
    if OWN_CGROUP.exists():
        for line in OWN_CGROUP.read_text().splitlines():
            if line.startswith("0::"):
                events = CGROUPS / line[3:].lstrip("/") / "memory.events"
                if events.exists():
                    return events
    return MACHINE


class OomKills:
    """Tells whether the kernel has killed one process more than was known.

    The count says how many, not which: a process that is found dead is taken for one of those that
    were killed since the last mark but one. Marks are for that: what was killed long before is
    somebody else's.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = counter() if path is None else path
        self._explained = self._marked = self._count()

    def mark(self) -> None:
        """What was killed before the last mark is nobody's of ours."""
        self._explained = max(self._explained, self._marked)
        self._marked = self._count()

    def took_one(self) -> bool:
        """Whether there is a kill that no death has been explained with; it is taken for this
        one."""
        if self._count() <= self._explained:
            return False
        self._explained += 1
        return True

    def _count(self) -> int:
        """0 where the system does not count, so that it never rises."""
        if not self._path.exists():
            return 0
        for line in self._path.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
        return 0
