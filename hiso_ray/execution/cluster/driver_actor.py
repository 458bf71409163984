"""The round loop as an actor that can be asked how far it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup

from hiso_ray.config import Experiment
from hiso_ray.execution.cluster.executor import ClusterExecutor
from hiso_ray.execution.driver import run_rounds
from hiso_ray.execution.placement import Placement
from hiso_ray.ledger import LedgerError
from hiso_ray.messages import UserError
from hiso_ray.metrics import Row


class DriverActor:
    """Runs the rounds in a thread, so that it can answer while they run."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._notes: list[str] = []

    async def run(
        self,
        experiment: Experiment,
        folder: Path,
        identity: dict[str, str],
        placement: Placement,
        group: PlacementGroup,
        shared: list[ray.ObjectRef],
    ) -> dict[str, Any] | Exception:
        """The summary, or the exception that a user can do something about."""

        def rounds() -> dict[str, Any]:
            executor = ClusterExecutor(
                experiment, placement, group, shared, folder / "faults.jsonl"
            )
            return run_rounds(
                experiment, folder, identity, executor, self._rows.append, self._notes.append
            )

        try:
            return await asyncio.to_thread(rounds)
        except (UserError, LedgerError, OSError) as error:
            return error

    async def news(self, rows: int, notes: int) -> tuple[list[Row], list[str]]:
        """The rows and notes so far that the caller, who has this many, has not seen."""
        return self._rows[rows:], self._notes[notes:]
