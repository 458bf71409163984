"""What can go wrong, by who can do something about it.

Anything else that is raised is a fault of the program, and its traceback is shown.
"""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user can change; its text says what."""


class NonFiniteLoss(UserError):
    """A number of the training has left the finite: a loss, a scalar, an update, or H."""


class TurnFailed(Exception):
    """Something that was asked of a worker (or the driver) failed for good; its text says for which
    client, and where."""


class NodesLost(Exception):
    """Nodes have left, and the cluster has no other place for the actors that were there."""


class Behind(Exception):
    """A replica cannot get to the round asked for with what it was given.

    Attributes:
        round: where it stands.
        unreadable: why it could not read the snapshot it was pointed at; None when that was not it.
    """

    def __init__(self, round_: int, unreadable: str | None = None) -> None:
        super().__init__(round_, unreadable)
        self.round, self.unreadable = round_, unreadable
