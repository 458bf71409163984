"""The same rounds on Ray: a driver actor without weights, client actors with one replica each.

The only file that imports ray. Who talks to whom::

    caller        starts or joins a cluster, reserves a placement group, puts x_0 and the data into
                  the object store once, starts the driver actor, reads news until it is done
    driver actor  runs ``driver.run_rounds`` in a thread and answers ``news`` meanwhile; owns the
                  client actors and sends each of them one message per round
    client actor  a ``Worker``: catches up from records, takes a list of turns, answers scalars

A client actor that dies is restarted by Ray, which also sends it the message again. It stands at
x_0 then and says so (``Behind``), gets all records, and computes the same scalars. Messages are
serialized here, so that their size is counted and not guessed.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.execution.driver import Evaluation, OnNote, OnRow, run_rounds, total
from hiso_ray.execution.placement import Placement, place
from hiso_ray.ledger import LedgerError, Record
from hiso_ray.messages import Behind, Description, NonFiniteLoss, Score, Turn
from hiso_ray.metrics import Row

if "RAY_ADDRESS" not in os.environ:
    # A cluster started here is for this machine alone: its servers listen on loopback only.
    # (The variable's name tells where Ray needs it; its effect is the same on Linux.)
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "PYTHON worker processes have been started")

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

TRIES = 4  # of one message, each on a freshly started actor
START_TOGETHER = 4  # actors importing torch at the same time
RESERVE_SECONDS = 60.0
POLL_SECONDS = 0.2


class ClientActor:
    """A worker behind one method, so that one place counts, retries and reports."""

    def __init__(self, experiment: Experiment, prepared: Any, partition: Any) -> None:
        import torch

        from hiso_ray.execution.worker import Worker, threads_for

        torch.set_num_threads(threads_for(experiment))
        self.worker = Worker(experiment, prepared, partition)

    def describe(self) -> Description:
        return self.worker.describe()

    def call(self, message: bytes) -> bytes:
        """(method of the worker, records, arguments) -> its result, or an expected exception."""
        method, records, arguments = pickle.loads(message)
        try:
            return pickle.dumps(getattr(self.worker, method)(records, *arguments))
        except (Behind, NonFiniteLoss) as answer:
            return pickle.dumps(answer)


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
        self.faults = 0
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
                    "max_restarts": -1,
                    "max_task_retries": TRIES - 1,
                    "scheduling_strategy": PlacementGroupSchedulingStrategy(
                        placement_group=group, placement_group_bundle_index=index
                    ),
                }
                actor = ray.remote(**options)(actor_class).remote(experiment, *shared)
                self._handles.append(actor)
            descriptions += ray.get([self._handles[i].describe.remote() for i in batch])
        self.description = descriptions[0]
        different = [d for d in descriptions if d != self.description]
        if different:
            raise ValueError(
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
            message = pickle.dumps((method, records[self._known[actor] :], arguments))
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
        self.faults += 1
        row = {
            "time": time.time(),
            "round": round_,
            "stage": stage,
            "actor": actor,
            "error": error.splitlines()[0],
        }
        with open(self._faults_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


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
        except (NonFiniteLoss, LedgerError, ValueError, OSError) as error:
            return error

    async def news(self, rows: int, notes: int) -> tuple[list[Row], list[str]]:
        """The rows and notes so far that the caller, who has this many, has not seen."""
        return self._rows[rows:], self._notes[notes:]


def run_on_ray(
    experiment: Experiment,
    folder: Path,
    identity: dict[str, str],
    prepared: Any,
    partition: Any,
    on_row: OnRow,
    on_note: OnNote,
) -> dict[str, Any]:
    """Runs or continues the federation in ``folder`` on a Ray cluster; returns the summary.

    Raises:
        ValueError: the cluster cannot hold the actors asked for (says what is missing).
        NonFiniteLoss: from a client, with its round and step.
    """
    with _cluster(), _reservation(experiment, on_note) as (placement, group):
        shared = [ray.put(prepared), ray.put(partition)]
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        driver = ray.remote(num_cpus=0, scheduling_strategy=here)(DriverActor).remote()
        try:
            result = driver.run.remote(experiment, folder, identity, placement, group, shared)
            seen_rows = seen_notes = 0
            finished: list[Any] = []
            while not finished:
                finished, _ = ray.wait([result], timeout=POLL_SECONDS)
                rows, notes = ray.get(driver.news.remote(seen_rows, seen_notes))
                seen_rows += len(rows)
                seen_notes += len(notes)
                for note in notes:
                    on_note(note)
                for row in rows:
                    on_row(row)
            summary = ray.get(result)
        finally:
            ray.kill(driver)  # its client actors go with it
        if isinstance(summary, Exception):
            raise summary
        return summary


@contextmanager
def _cluster() -> Iterator[None]:
    """The cluster this process is in or is pointed at; else a local one, for as long as it runs."""
    if ray.is_initialized():
        yield
        return
    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level="ERROR", log_to_driver=False)
    else:
        ray.init(
            address="local",
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _reservation(
    experiment: Experiment, on_note: OnNote
) -> Iterator[tuple[Placement, PlacementGroup]]:
    """All the actors' resources at once, or an error that says what is missing."""
    resources = experiment.resources
    have = ray.cluster_resources()
    placement = place(experiment, have.get("CPU", 0.0), have.get("GPU", 0.0))
    on_note(placement.line)
    bundle = {"CPU": resources.cpus_per_client}
    if resources.gpus_per_client:
        bundle["GPU"] = resources.gpus_per_client
    group = placement_group([bundle] * placement.actors, strategy="PACK")
    try:
        try:
            ray.get(group.ready(), timeout=RESERVE_SECONDS)
        except GetTimeoutError:
            free = ray.available_resources()
            raise ValueError(
                f"{placement.actors} actors of {bundle} did not become available within "
                f"{RESERVE_SECONDS:g} s; free now: {free.get('CPU', 0):g} of "
                f"{have.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} of {have.get('GPU', 0):g} "
                "GPUs. Wait for the other work on the cluster, or lower resources.max_actors"
            ) from None
        yield placement, group
    finally:
        remove_placement_group(group)
