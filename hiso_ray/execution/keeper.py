"""Writes periodic snapshots; stops after the first failure."""

from __future__ import annotations

from hiso_ray.config import Experiment
from hiso_ray.errors import TurnFailed
from hiso_ray.execution.contract import Executor, OnNote
from hiso_ray.execution.history import History
from hiso_ray.messages import Snapshot


class Keeper:
    """Requests a snapshot every ``resources.snapshot_every`` rounds and, for methods that send
    weights, after the last round; after a failure the run continues without snapshots."""

    def __init__(self, experiment: Experiment, executor: Executor, on_note: OnNote) -> None:
        self._every, self._last = experiment.resources.snapshot_every, experiment.federation.rounds
        self._executor, self._on_note = executor, on_note

    def after_round(self, history: History) -> None:
        ends = history.server is not None and history.round == self._last
        if self._every == 0 or (history.round % self._every and not ends):
            return
        written = self._write(history)
        if isinstance(written, Snapshot):
            history.start_from(written)
            return
        self._every = 0
        lost = (
            "actors that restart replay every round, and all records stay in memory"
            if history.server is None
            else "resume runs every round again"
        )
        self._on_note(f"no snapshot ({written}), and no more will be tried: {lost}")

    def _write(self, history: History) -> Snapshot | str:
        if history.server is not None:
            return history.server.write(history.folder, history.check)
        try:
            written = self._executor.snapshot(history)
        except TurnFailed as error:
            return str(error).splitlines()[0]
        if isinstance(written, Snapshot) and not written.path.exists():
            return f"{written.path} was written where the driver cannot see it"
        return written
