"""How long an actor may take to answer before it counts as hung."""

from __future__ import annotations

FIRST_ANSWER = 3600.0  # of the whole fleet, when nothing is known yet [s]
AT_LEAST = 60.0  # [s]
SLACK = 20.0  # times the slowest answer so far


class Patience:
    """Deadlines of messages, from what answers took so far.

    Args:
        given: seconds that every message may take, or "auto".
    """

    def __init__(self, given: float | str) -> None:
        self._given = None if given == "auto" else float(given)
        self._slowest: float | None = None  # seconds per unit of work

    def allowed(self, units: int) -> float:
        """Seconds that a message with so many turns, batches and records to apply may take."""
        if self._given is not None:
            return self._given
        if self._slowest is None:
            return FIRST_ANSWER
        return AT_LEAST + SLACK * self._slowest * units

    def learn(self, units: int, seconds: float) -> None:
        """An answer came after so many seconds."""
        self._slowest = max(self._slowest or 0.0, seconds / units)
