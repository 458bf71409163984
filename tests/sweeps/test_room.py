"""How many trials at once, and how many actors each."""

from __future__ import annotations

from typing import Any

import pytest

from hiso_ray.execution.memory import LIBRARIES
from hiso_ray.execution.placement import Node
from hiso_ray.sweeps.room import Room, find_room
from hiso_ray.sweeps.table import Sweep, Trial

GIB = 2**30
PLENTY = 1000 * GIB


def trials(seeds: int = 4, **fields: Any) -> list[Trial]:
    base = {"task.name": "digits", "federation.num_clients": 12, "federation.clients_per_round": 3}
    sweep = Sweep(name="s", base=base | fields, grid={"seed": list(range(seeds))})
    return sweep.trials()


def room(
    found: list[Trial], nodes: list[Node], concurrency: int | None = None, d: int = 1000
) -> Room:
    return find_room(found, {trial.id: (d, 0) for trial in found}, nodes, concurrency)


@pytest.mark.parametrize(
    ("seeds", "cpus", "asked", "concurrency", "actors"),
    [
        (4, 2, None, 2, 1),  # trials before actors
        (4, 4, None, 4, 1),
        (2, 9, None, 2, 4),  # what is left makes actors
        (1, 30, None, 1, 12),  # but no more than clients
        (4, 8, 1, 1, 8),
        (4, 8, 3, 3, 2),
    ],
)
def test_trials_come_before_actors(
    seeds: int, cpus: int, asked: int | None, concurrency: int, actors: int
) -> None:
    found = room(trials(seeds), [Node(cpus, 0, PLENTY)], asked)
    assert found.concurrency == concurrency
    assert {len(bundles) for bundles in found.bundles.values()} == {1 + actors}
    for head, *rest in found.bundles.values():
        assert head == {}  # the trial waits and computes nothing
        assert [bundle["CPU"] for bundle in rest] == [1.0] * actors


def test_the_serial_executor_computes_in_the_trial() -> None:
    found = trials(3, **{"resources.executor": "serial", "resources.gpus_per_client": 0.5})
    here = room(found, [Node(8, 1, PLENTY)])
    assert here.concurrency == 2  # half a GPU each
    assert list(here.bundles.values()) == [[{"CPU": 1.0, "GPU": 0.5}]] * 3


def test_gpu_shares_and_nodes_bound_the_actors() -> None:
    found = trials(2, **{"resources.gpus_per_client": 0.4, "resources.cpus_per_client": 0.5})
    here = room(found, [Node(4, 1, PLENTY), Node(4, 2, PLENTY)])
    assert here.concurrency == 2
    assert {len(bundles) - 1 for bundles in here.bundles.values()} == {3}  # 6 fit, 2 per GPU


def test_max_actors_and_packing_are_kept() -> None:
    at_most = room(trials(1, **{"resources.max_actors": 3}), [Node(30, 0, PLENTY)])
    assert [len(b) for b in at_most.bundles.values()] == [4]
    packed = room(trials(4, **{"resources.clients_per_actor": 4}), [Node(7, 0, PLENTY)])
    assert packed.concurrency == 2  # 3 actors each
    assert {len(b) for b in packed.bundles.values()} == {4}


def test_memory_bounds_what_runs_at_once() -> None:
    d = 10**9
    one = room(trials(1), [Node(1, 0, PLENTY)], d=d).memory
    here = room(trials(8), [Node(8, 0, 2.5 * one)], d=d)
    assert here.concurrency == 2
    assert here.memory == 2 * one
    assert one > 8 * d + LIBRARIES
    # Ray must not put them all where there are CPUs enough.
    bundles = next(iter(here.bundles.values()))
    assert bundles[1]["memory"] == one - LIBRARIES
    uneven = room(trials(8), [Node(16, 0, 1.2 * one), Node(2, 0, 10 * one)], d=d)
    assert uneven.concurrency == 3


@pytest.mark.parametrize(
    ("fields", "cpus", "message"),
    [
        (
            {"resources.cpus_per_client": 4},
            2,
            "trial seed=0 cannot be placed.*lower cpus_per_client",
        ),
        ({"resources.gpus_per_client": 1}, 2, "cannot be placed.*0 GPUs"),
        ({"resources.clients_per_actor": 1}, 8, "needs 12 actors for 12 clients, but 8 fit"),
        (
            {"resources.clients_per_actor": 1, "resources.max_actors": 4},
            16,
            "needs 12 actors for 12 clients, but 4 fit",
        ),
        ({"resources.gpus_per_client": "auto"}, 2, "give a number"),
    ],
)
def test_what_cannot_be_placed_is_named(fields: dict[str, Any], cpus: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        room(trials(2, **fields), [Node(cpus, 0, PLENTY)])


def test_more_at_once_than_there_are_trials_leaves_actors_to_each() -> None:
    found = room(trials(2), [Node(8, 0, PLENTY)], 8)
    assert found.concurrency == 2
    assert {len(bundles) - 1 for bundles in found.bundles.values()} == {4}


def test_concurrency_that_cannot_fit_is_said() -> None:
    message = "--concurrency 3.*seed=0.*needs 4 actors of 1 CPU.*holds 8.*at most --concurrency 2"
    with pytest.raises(ValueError, match=message):
        room(trials(4, **{"resources.clients_per_actor": 3}), [Node(8, 0, PLENTY)], 3)
