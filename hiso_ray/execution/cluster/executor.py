"""Messages to client actors: one per actor and round, answered in any order, counted, outliving
restarts.

A client actor that dies is restarted by Ray, which also sends it the message again. It stands at
x_0 then and says so (``Behind``), gets all records, and computes the same scalars. Messages are
serialized here, so that their size is counted and not guessed.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hiso_ray.config import Experiment
from hiso_ray.execution.cluster.client_actor import ClientActor
from hiso_ray.execution.driver import Evaluation, total
from hiso_ray.execution.placement import Placement
from hiso_ray.ledger import Record
from hiso_ray.messages import Behind, Description, NonFiniteLoss, Score, Turn, UserError

TRIES = 4  # of one message, each on a freshly started actor
MAX_RESTARTS = 100  # of one actor in a run
START_SECONDS = 600.0
START_TOGETHER = 4  # actors importing torch at the same time


class ClusterExecutor:
    """Sends each round's messages, collects answers as they finish; see ``driver.Executor``."""

    def __init__(
        self,
        experiment: Experiment,
        placement: Placement,
        group: PlacementGroup,
        shared: Sequence[ray.ObjectRef],
        faults_file: Path,
        actor_class: type = ClientActor,
    ) -> None:
        self.actors, self._one_each = placement.actors, placement.one_each
        self.message_bytes = 0
        self._faults_file = faults_file
        self._known = [0] * self.actors  # records each actor is known to hold
        resources = experiment.resources
        self._handles = []
        descriptions: list[Description] = []
        for first in range(0, self.actors, START_TOGETHER):
            batch = range(first, min(first + START_TOGETHER, self.actors))
            for index in batch:
                options: dict[str, Any] = {
                    "num_cpus": resources.cpus_per_client,
                    "num_gpus": resources.gpus_per_client,
                    "max_restarts": MAX_RESTARTS,
                    "max_task_retries": TRIES - 1,
                    "scheduling_strategy": PlacementGroupSchedulingStrategy(
                        placement_group=group, placement_group_bundle_index=index
                    ),
                }
                actor = ray.remote(**options)(actor_class).remote(experiment, *shared)
                self._handles.append(actor)
            try:
                asked = [self._handles[i].describe.remote() for i in batch]
                descriptions += ray.get(asked, timeout=START_SECONDS)
            except (GetTimeoutError, RayActorError) as error:
                raise UserError(
                    f"client actors {batch.start} to {batch.stop - 1} did not start (waited up to "
                    f"{START_SECONDS:g} s): out of memory, or a node was lost? {error}"
                ) from error
        self.description = descriptions[0]
        different = [d for d in descriptions if d != self.description]
        if different:
            raise UserError(
                f"the actors would not compute the same bits: {self.description} and "
                f"{different[0]}; run on nodes of one kind"
            )

    def turns(
        self, records: Sequence[Record], clients: np.ndarray, seeds: Sequence[int]
    ) -> list[Turn]:
        lists: dict[int, list[int]] = {}
        for position, client in enumerate(clients.tolist()):
            actor = client if self._one_each else position % self.actors
            lists.setdefault(actor, []).append(client)
        work = {actor: ("turns", (some, seeds)) for actor, some in lists.items()}
        return [turn for turns in self._ask(records, work).values() for turn in turns]

    def evaluate(self, records: Sequence[Record]) -> Evaluation:
        batches = range(self.description.eval_batches)
        shards = {a: batches[a :: self.actors] for a in range(self.actors)}
        work = {a: ("scores", (list(shard),)) for a, shard in shards.items() if shard}
        scores: dict[int, Score] = {}
        for actor, answers in self._ask(records, work).items():
            scores |= zip(shards[actor], answers, strict=True)
        statistics = self._ask(records, {0: ("statistics", ())})[0]
        return total((scores[batch] for batch in batches), statistics)

    def digest(self, records: Sequence[Record]) -> str:
        return self._ask(records, {0: ("digest", ())})[0]

    def _ask(
        self, records: Sequence[Record], work: dict[int, tuple[str, tuple[Any, ...]]]
    ) -> dict[int, Any]:
        """One message to each named actor; answers by actor. Outlives restarts of actors."""
        answers: dict[int, Any] = {}
        pending: dict[ray.ObjectRef, int] = {}

        def send(actor: int) -> None:
            method, arguments = work[actor]
            missing = records[self._known[actor] :]
            message = pickle.dumps((missing, len(records), method, arguments))
            self.message_bytes += len(message)
            pending[self._handles[actor].call.remote(message)] = actor

        for actor in work:
            send(actor)
        while pending:
            (ref,), _ = ray.wait(list(pending), num_returns=1)
            actor = pending.pop(ref)
            try:
                reply = ray.get(ref)
            except RayActorError as error:
                self._note_fault(actor, len(records), work[actor][0], str(error))
                raise RuntimeError(
                    f"client actor {actor} died {TRIES} times on the same message (round "
                    f"{len(records)}, {work[actor][0]} {work[actor][1]}): {error}"
                ) from error
            self.message_bytes += len(reply)
            answer = pickle.loads(reply)
            if isinstance(answer, Behind):
                forgot = f"restarted at round {answer.round}; it had held {self._known[actor]}"
                self._note_fault(actor, len(records), work[actor][0], forgot)
                self._known[actor] = answer.round
                send(actor)
                continue
            if isinstance(answer, NonFiniteLoss):
                raise answer
            self._known[actor] = len(records)
            answers[actor] = answer
        return answers

    def _note_fault(self, actor: int, round_: int, stage: str, error: str) -> None:
        row = {
            "time": time.time(),
            "round": round_,
            "stage": stage,
            "actor": actor,
            "error": error.splitlines()[0],
        }
        with open(self._faults_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
