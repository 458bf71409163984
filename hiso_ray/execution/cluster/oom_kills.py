"""Reads the kernel's count of processes that it killed for memory."""

from __future__ import annotations

from pathlib import Path

MACHINE = Path("/proc/vmstat")
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def counter() -> Path:
    """The file with the count: of this process's cgroup (version 2), which the actors of the same
    node share; else of the whole machine, other users' processes included."""
    if OWN_CGROUP.exists():
        for line in OWN_CGROUP.read_text().splitlines():
            if line.startswith("0::"):
                events = CGROUPS / line[3:].lstrip("/") / "memory.events"
                if events.exists():
                    return events
    return MACHINE


class OomKills:
    """Tells whether the kernel has killed a process that explains a death.

    The count says how many were killed, not which: a process that is found dead is assumed to be
    one of those killed since the mark before last. Earlier kills are assumed to be unrelated.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = counter() if path is None else path
        self._explained = self._marked = self._count()

    def mark(self) -> None:
        """Sets a mark; kills before the previous mark no longer explain a death."""
        self._explained = max(self._explained, self._marked)
        self._marked = self._count()

    def took_one(self) -> bool:
        """Whether there is a kill that explains no death yet; assigns it to this death."""
        if self._count() <= self._explained:
            return False
        self._explained += 1
        return True

    def _count(self) -> int:
        """The count; always 0 if the system does not count."""
        if not self._path.exists():
            return 0
        for line in self._path.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
        return 0
