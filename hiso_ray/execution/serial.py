"""The oracle: every client of every round, one after the other, in this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.execution.driver import Evaluation, total
from hiso_ray.execution.worker import Worker
from hiso_ray.ledger import Record
from hiso_ray.messages import Turn
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.partition import Partition


class SerialExecutor:
    """One worker and a for-loop; see ``driver.Executor``."""

    actors = 1
    message_bytes = 0

    def __init__(self, experiment: Experiment, prepared: Prepared, partition: Partition) -> None:
        self.worker = Worker(experiment, prepared, partition)
        self.description = self.worker.describe()

    def turns(
        self, records: Sequence[Record], clients: np.ndarray, seeds: Sequence[int]
    ) -> list[Turn]:
        return self._at(records).turns(clients.tolist(), seeds)

    def evaluate(self, records: Sequence[Record]) -> Evaluation:
        worker = self._at(records)
        return total(worker.scores(range(self.description.eval_batches)), worker.statistics())

    def digest(self, records: Sequence[Record]) -> str:
        return self._at(records).digest()

    def _at(self, records: Sequence[Record]) -> Worker:
        self.worker.catch_up(records, len(records))
        return self.worker
