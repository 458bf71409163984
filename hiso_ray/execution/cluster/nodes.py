"""Asks every node of a cluster the same question."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hiso_ray.execution.placement import Node

PAUSE = 0.5
CLOCK_TRIES = 5  # the quickest answer says most about a clock
ANSWER_SECONDS = 180.0  # for a process to start on each node, and to answer


class Reply(NamedTuple):
    """What came back from one node.

    Attributes:
        address: of the node.
        here: it is the node of this process.
        room: its resources.
        store: size of its object store [bytes].
        ahead: how far its clock is ahead of the clock here [s]; 0 if it did not answer.
        answer: what the function returned there; an exception if there is no answer.
    """

    address: str
    here: bool
    room: Node
    store: float
    ahead: float
    answer: Any


class Respondent:
    """A process on a node, without resources of its own: a busy cluster answers too. With none, Ray
    hides no GPU from it."""

    def clock(self) -> float:
        return time.time()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


def room_of(node: dict[str, Any]) -> Node:
    """The resources of a node in ``ray.nodes()``."""
    given = node["Resources"]
    return Node(given.get("CPU", 0.0), given.get("GPU", 0.0), given.get("memory", 0.0))


def ask_every_node(function: Callable[..., Any], *arguments: Any) -> list[Reply]:
    """Calls a function on all nodes at once, each with its own copy of this package; the cluster
    must have been joined. The replies are in the order of the addresses.

    Args:
        function: of a module, so that each node runs its own version of it.
    """
    nodes = sorted(
        (node for node in ray.nodes() if node["Alive"]), key=lambda n: n["NodeManagerAddress"]
    )
    actors = [_on(node) for node in nodes]
    try:
        refs = [actor.clock.remote() for actor in actors]
        ray.wait(refs, num_returns=len(refs), timeout=ANSWER_SECONDS)
        ahead = [_ahead(actor, ref) for actor, ref in zip(actors, refs, strict=True)]
        refs = [actor.call.remote(function, *arguments) for actor in actors]
        ray.wait(refs, num_returns=len(refs), timeout=ANSWER_SECONDS)
        answers = [_result(ref) for ref in refs]
    finally:
        for actor in actors:
            ray.kill(actor)
    own = ray.get_runtime_context().get_node_id()
    return [
        Reply(
            address=node["NodeManagerAddress"],
            here=node["NodeID"] == own,
            room=room_of(node),
            store=node["Resources"].get("object_store_memory", 0.0),
            ahead=clock,
            answer=answer,
        )
        for node, clock, answer in zip(nodes, ahead, answers, strict=True)
    ]


def wait_for(count: int, seconds: float) -> None:
    """Waits until the cluster has so many nodes, or time is up."""
    deadline = time.monotonic() + seconds
    while sum(node["Alive"] for node in ray.nodes()) < count and time.monotonic() < deadline:
        time.sleep(PAUSE)


def left() -> list[str]:
    """Addresses that nodes which have left the cluster had, unless another node has them now."""
    nodes = ray.nodes()
    there = {node["NodeManagerAddress"] for node in nodes if node["Alive"]}
    return sorted({node["NodeManagerAddress"] for node in nodes} - there)


def _on(node: dict[str, Any]) -> Any:
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": there}
    return ray.remote(**options)(Respondent).remote()


def _ahead(actor: Any, started: ray.ObjectRef) -> float:
    """How far the actor's clock is ahead [s], to half the time that the quickest answer took."""
    if isinstance(_result(started), Exception):
        return 0.0
    found = []
    for _ in range(CLOCK_TRIES):
        before = time.time()
        there = _result(actor.clock.remote(), ANSWER_SECONDS)
        after = time.time()
        if isinstance(there, Exception):
            return 0.0
        found.append((after - before, there - (before + after) / 2))
    return min(found)[1]


def _result(ref: ray.ObjectRef, seconds: float = 0.0) -> Any:
    """The value of a reference, or Ray's error in its place."""
    try:
        return ray.get(ref, timeout=seconds)
    except RayError as error:
        return error
