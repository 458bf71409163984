"""How long an actor may take to answer before it counts as hung."""

from __future__ import annotations

FIRST_ANSWER = 3600.0  # to a kind of message that has not been answered yet [s]
AT_LEAST = 60.0  # [s]
SLACK = 20.0  # times the slowest answer so far


class Patience:
    """Sets the deadlines of messages from the times of earlier answers.

    Args:
        given: seconds that every message may take, or "auto".
    """

    def __init__(self, given: float | str) -> None:
        self._given = None if given == "auto" else float(given)
        self._slowest: dict[str, float] = {}  # seconds per unit of work, by method

    def allowed(self, method: str, units: int, slow: bool = False) -> float:
        """Seconds that a message may take.

        Args:
            units: turns, batches and records to apply.
            slow: the times of other answers do not predict this one's.
        """
        if self._given is not None:
            return self._given
        if slow or method not in self._slowest:
            return FIRST_ANSWER
        return AT_LEAST + SLACK * self._slowest[method] * units

    def learn(self, method: str, units: int, seconds: float) -> None:
        """Records the time of an answer."""
        self._slowest[method] = max(self._slowest.get(method, 0.0), seconds / units)
