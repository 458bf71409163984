"""Exceptions, grouped by who can act on them.

Any other exception is a bug, and its traceback is shown.
"""

from __future__ import annotations


class UserError(ValueError):
    """An error that the user can fix; its text says what to change."""


class NonFiniteLoss(UserError):
    """Training produced a non-finite number: in a loss, a scalar, an update, or H."""


class TurnFailed(Exception):
    """A request to a worker (or the driver) failed permanently; the text names the client and the
    place."""


class NodesLost(Exception):
    """Nodes left the cluster, and the remaining ones have no room for their actors."""


class Behind(Exception):
    """A replica cannot reach the requested round with the records and snapshot it was given.

    Attributes:
        round: the replica's current round.
        unreadable: why the snapshot could not be read; None if that was not the cause.
    """

    def __init__(self, round_: int, unreadable: str | None = None) -> None:
        super().__init__(round_, unreadable)
        self.round, self.unreadable = round_, unreadable
