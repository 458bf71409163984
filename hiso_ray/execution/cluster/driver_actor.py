"""The round loop as an actor that reports its progress on request."""

from __future__ import annotations

import asyncio
from queue import Empty, SimpleQueue
from typing import Any

from hiso_ray.errors import NodesLost, TurnFailed, UserError
from hiso_ray.execution.cluster.executor import ClusterExecutor
from hiso_ray.execution.cluster.gauges import Gauges
from hiso_ray.execution.cluster.reservation import Reservation
from hiso_ray.execution.cluster.shared import Shared
from hiso_ray.execution.contract import Job
from hiso_ray.execution.driver import run_rounds
from hiso_ray.run_folder.faults import Faults
from hiso_ray.run_folder.metrics_reader import Row


class DriverActor:
    """Runs the rounds in a thread, so that it can answer calls meanwhile."""

    def __init__(self) -> None:
        self._rows: SimpleQueue[Row] = SimpleQueue()
        self._notes: SimpleQueue[str] = SimpleQueue()

    async def run(
        self, job: Job, reservation: Reservation, shared: Shared
    ) -> dict[str, Any] | Exception:
        """Returns the summary, or an exception that the caller or the user can act on."""
        gauges = Gauges(job.folder, job.experiment.task.metric)

        def on_row(row: Row) -> None:
            gauges.show(row)
            self._rows.put(row)

        def rounds() -> dict[str, Any]:
            faults = Faults(job.folder, self._notes.put)
            executor = ClusterExecutor(job.experiment, reservation, shared, faults)
            return run_rounds(job, executor, on_row, self._notes.put)

        try:
            return await asyncio.to_thread(rounds)
        except (UserError, TurnFailed, NodesLost, OSError) as error:
            return error

    async def news(self) -> tuple[list[Row], list[str]]:
        """The rows and notes since the last call."""
        return _drain(self._rows), _drain(self._notes)


def _drain(queue: SimpleQueue[Any]) -> list[Any]:
    found = []
    while True:
        try:
            found.append(queue.get_nowait())
        except Empty:
            return found
