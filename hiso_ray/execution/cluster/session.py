"""One run on a cluster, from joining it to leaving it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hiso_ray.config import Experiment
from hiso_ray.execution.cluster.driver_actor import DriverActor
from hiso_ray.execution.driver import OnNote, OnRow
from hiso_ray.execution.placement import Node, Placement, place

RESERVE_SECONDS = 60.0
POLL_SECONDS = 0.2


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
    with (
        joined_cluster(),
        reservation(experiment, prepared.x0.size, on_note, prepared.frozen) as (placement, group),
    ):
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
def joined_cluster() -> Iterator[None]:
    """The cluster this process is in or is pointed at; else a local one, for as long as it runs."""
    if ray.is_initialized():
        yield
        return
    on_terminate = signal.getsignal(signal.SIGTERM)
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
    if threading.current_thread() is threading.main_thread():
        # Ray has put its own in its place, which ends the process with a stack trace.
        signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def reservation(
    experiment: Experiment, dimension: int, on_note: OnNote, frozen: int = 0
) -> Iterator[tuple[Placement, PlacementGroup]]:
    """All the actors' resources at once, or an error that says what is missing."""
    resources = experiment.resources
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [Node(n.get("CPU", 0.0), n.get("GPU", 0.0), n.get("memory", 0.0)) for n in alive]
    placement = place(experiment, nodes, dimension, frozen)
    on_note(placement.line)
    bundle = {"CPU": resources.cpus_per_client}
    if resources.gpus_per_client:
        bundle["GPU"] = resources.gpus_per_client
    group = placement_group([bundle] * placement.actors, strategy="PACK")
    try:
        try:
            ray.get(group.ready(), timeout=RESERVE_SECONDS)
        except GetTimeoutError:
            free, have = ray.available_resources(), ray.cluster_resources()
            raise ValueError(
                f"{placement.actors} actors of {bundle} did not become available within "
                f"{RESERVE_SECONDS:g} s; free now: {free.get('CPU', 0):g} of "
                f"{have.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} of {have.get('GPU', 0):g} "
                "GPUs. Wait for the other work on the cluster, or lower resources.max_actors"
            ) from None
        yield placement, group
    finally:
        remove_placement_group(group)
