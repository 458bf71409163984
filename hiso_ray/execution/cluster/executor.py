"""Splits a round's work into messages for the fleet and combines the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import ray

from hiso_ray.config import Experiment
from hiso_ray.execution.cluster.actor_recovery import Fleet
from hiso_ray.execution.cluster.client_actor import ClientActor
from hiso_ray.execution.cluster.pieces import Piece
from hiso_ray.execution.cluster.reservation import Reservation
from hiso_ray.execution.cluster.shared import Shared
from hiso_ray.execution.contract import Evaluation
from hiso_ray.execution.history import History
from hiso_ray.messages import Snapshot, Turn
from hiso_ray.run_folder.faults import Faults
from hiso_ray.run_folder.outcomes import joined
from hiso_ray.server.work_units import Unit, work_units


class ClusterExecutor:
    """Sends one message per actor and round, answered in any order; see ``contract.Executor``."""

    def __init__(
        self,
        experiment: Experiment,
        reservation: Reservation,
        shared: Shared,
        faults: Faults,
        actor_class: type = ClientActor,
    ) -> None:
        self.actors = reservation.placement.actors
        self._one_each = reservation.placement.one_each
        self._experiment, self._shared = experiment, shared
        self.fleet = Fleet(experiment, reservation, shared, faults, actor_class)
        self.description = self.fleet.description
        self._writer = 0  # the actor that wrote the last snapshot

    @property
    def message_bytes(self) -> int:
        return self.fleet.message_bytes

    def x0(self) -> np.ndarray:
        return ray.get(self._shared[0].x0)

    def turns(self, history: History, clients: np.ndarray, seeds: Sequence[int]) -> list[Turn]:
        present = self.fleet.present
        lists: dict[tuple[int, int | None], list[Unit]] = {}
        for position, unit in enumerate(work_units(self._experiment, clients.tolist())):
            actor = unit[0] if self._one_each else present[position % len(present)]
            # Each unit's answer is a sum of d floats: one message per unit.
            apart = position if self._experiment.sends_weights else None
            lists.setdefault((actor, apart), []).append(unit)
        work = [Piece("turns", tuple(some), (seeds,), actor) for (actor, _), some in lists.items()]
        return [turn for turns in self.fleet.ask(history, work).values() for turn in turns]

    def evaluate(self, history: History) -> Evaluation:
        batches, present = range(self.description.eval_batches), self.fleet.present
        shards = {actor: batches[i :: len(present)] for i, actor in enumerate(present)}
        work = [Piece("scores", tuple(s), (), actor) for actor, s in shards.items() if s]
        scores = self.fleet.ask(history, work)
        statistics = self.fleet.ask_one(history, "statistics")
        self.fleet.times.write(history.ledger.path.parent)
        return Evaluation(joined(scores[batch] for batch in batches), statistics)

    def digest(self, history: History) -> str:
        return self.fleet.ask_one(history, "digest")

    def diagnose(self, history: History) -> dict[str, Any]:
        return self.fleet.ask_one(history, "diagnose")

    def snapshot(self, history: History) -> Snapshot | str:
        """Asks one actor after the other, because some nodes may not see the run folder."""
        order = sorted(range(self.actors), key=lambda actor: actor != self._writer)
        answer: Snapshot | str = ""
        for actor in order:
            answer = self.fleet.ask_one(
                history, "snapshot", history.folder, history.check, of=actor
            )
            if isinstance(answer, Snapshot):
                self._writer = actor
                break
        return answer
