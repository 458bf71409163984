"""The reference executor: runs every client of every round one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.errors import Behind
from hiso_ray.execution.contract import Evaluation
from hiso_ray.execution.history import History
from hiso_ray.execution.worker import Worker
from hiso_ray.federation.partition import Partition
from hiso_ray.messages import Snapshot, Turn
from hiso_ray.run_folder.outcomes import joined
from hiso_ray.server.work_units import work_units
from hiso_ray.tasks.contract import Prepared


class SerialExecutor:
    """One worker and a for-loop; see ``contract.Executor``."""

    actors = 1
    message_bytes = 0

    def __init__(
        self,
        experiment: Experiment,
        prepared: Prepared,
        partition: Partition,
        on_note: Callable[[str], None],
    ) -> None:
        self.worker = Worker(experiment, prepared, partition)
        self._experiment, self._x0 = experiment, prepared.x0
        self.description = self.worker.describe()
        self._on_note = on_note

    def x0(self) -> np.ndarray:
        return self._x0

    def turns(self, history: History, clients: np.ndarray, seeds: Sequence[int]) -> list[Turn]:
        units = work_units(self._experiment, clients.tolist())
        return [turn for turns in self._at(history).turns(units, seeds) for turn in turns]

    def evaluate(self, history: History) -> Evaluation:
        worker = self._at(history)
        scores = worker.scores(range(self.description.eval_batches))
        return Evaluation(joined(scores), worker.statistics())

    def digest(self, history: History) -> str:
        return self._at(history).digest()

    def diagnose(self, history: History) -> dict[str, Any]:
        return self._at(history).diagnose()

    def snapshot(self, history: History) -> Snapshot | str:
        return self._at(history).snapshot(history.folder, history.check)

    def _at(self, history: History) -> Worker:
        try:
            self.worker.catch_up(history.missed(self.worker.round))
        except Behind as behind:
            self._on_note(f"no snapshot ({behind.unreadable}): starting from x_0")
            self.worker.catch_up(history.missed(behind.round, blind=True))
        return self.worker
