"""Snapshots as a run goes on, and the end of them where they cannot be written."""

from __future__ import annotations

from hiso_ray.execution.contract import Executor, OnNote
from hiso_ray.execution.history import History
from hiso_ray.messages import Snapshot, TurnFailed


class Keeper:
    """Has a snapshot written every so many rounds; a run goes on without where that fails."""

    def __init__(self, every: int, executor: Executor, on_note: OnNote) -> None:
        self._every, self._executor, self._on_note = every, executor, on_note

    def after_round(self, history: History) -> None:
        if self._every == 0 or history.round % self._every:
            return
        try:
            written = (
                self._executor.snapshot(history)
                if history.server is None
                else history.server.write(history.folder, history.check)
            )
        except TurnFailed as error:
            written = str(error).splitlines()[0]
        if isinstance(written, Snapshot) and not written.path.exists():
            written = f"{written.path} was written where the driver cannot see it"
        if isinstance(written, Snapshot):
            history.start_from(written)
        else:
            self._every = 0
            self._on_note(
                f"no snapshot ({written}), and no more will be tried: actors that restart replay "
                "every round, and all records stay in memory"
            )
