from __future__ import annotations

from typing import Any

import pytest

from hiso_ray import Experiment
from hiso_ray.config.curvatures import CURVATURES
from hiso_ray.execution.memory import LIBRARIES, actor_bytes
from hiso_ray.execution.placement import Node, place, share_for


def placed(cpus: float, gpus: float, clients: int = 8, **resources: Any) -> Any:
    dotted = {f"resources.{name}": value for name, value in resources.items()}
    e = Experiment().changed(
        **{"federation.num_clients": clients, "federation.clients_per_round": 1, **dotted}
    )
    return place(e, [Node(cpus, gpus, 2**36)], 1000)


@pytest.mark.parametrize(
    ("cpus", "gpus", "resources", "actors", "one_each"),
    [
        (8, 0, {}, 8, True),
        (100, 0, {}, 8, True),
        (7, 0, {}, 7, False),
        (2, 0, {"cpus_per_client": 0.25}, 8, True),
        (2, 0, {"cpus_per_client": 0.5}, 4, False),
        (8, 0, {"max_actors": 3}, 3, False),
        (8, 0, {"clients_per_actor": 4}, 2, False),
        (64, 1, {"gpus_per_client": 0.25}, 4, False),
        (64, 2, {"gpus_per_client": 0.4}, 4, False),  # fractions do not span GPUs
        (64, 4, {"gpus_per_client": 0.1}, 8, True),
        (64, 0.5, {"gpus_per_client": 0.25}, 2, False),  # a bundle with half a GPU
        (64, 4, {"gpus_per_client": "auto"}, 8, True),  # not measured yet: as on CPUs
        (64, 5, {"gpus_per_client": 2}, 2, False),
    ],
)
def test_one_each_where_they_fit_else_packed(
    cpus: float, gpus: float, resources: dict[str, Any], actors: int, one_each: bool
) -> None:
    found = placed(cpus, gpus, **resources)
    assert (found.actors, found.one_each) == (actors, one_each)


def test_the_line_says_it() -> None:
    assert (
        placed(64, 4, clients=512, gpus_per_client=0.25).line
        == "512 clients on 16 actors, 32 per actor, 1 CPU and 0.25 GPU each"
    )


@pytest.mark.parametrize(
    ("cpus", "gpus", "resources", "words"),
    [
        (2, 0, {"cpus_per_client": 3}, "cpus_per_client = 3, but the cluster has 2 CPUs"),
        (0, 0, {}, "no node of the cluster has CPUs yet"),
        (2, 0, {"gpus_per_client": 0.5}, "gpus_per_client = 0.5, but the cluster has 0 GPUs"),
        (64, 1, {"gpus_per_client": 2}, "gpus_per_client = 2, but the cluster has 1 GPUs"),
        (2, 0, {"clients_per_actor": 2}, "needs 4 actors for 8 clients, but 2 fit: .* at least 4"),
    ],
)
def test_what_does_not_fit_is_said(
    cpus: float, gpus: float, resources: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        placed(cpus, gpus, **resources)


def federation(**resources: Any) -> Experiment:
    dotted = {f"resources.{name}": value for name, value in resources.items()}
    return Experiment().changed(**dotted)


def test_an_actor_lives_on_one_node() -> None:
    two = [Node(3, 3, 2**36)] * 2
    assert place(federation(cpus_per_client=2), two, 1000).actors == 2
    assert place(federation(gpus_per_client=2), two, 1000).actors == 2
    head_and_worker = [Node(60, 0, 2**36), Node(4, 8, 2**36)]
    assert place(federation(gpus_per_client=1), head_and_worker, 1000).actors == 4
    with pytest.raises(ValueError, match="the largest node has 3 CPUs"):
        place(federation(cpus_per_client=4), two, 1000)
    with pytest.raises(ValueError, match="no node holds 1 CPUs and 1 GPUs together"):
        place(federation(gpus_per_client=1), [Node(60, 0, 2**36), Node(0, 8, 2**36)], 1000)


def test_memory_bounds_the_actors() -> None:
    d = 125_000_000
    need = actor_bytes(federation(), d)
    assert need == 12 * d + 400 * 2**20
    assert place(federation(), [Node(64, 0, 5.5 * need)], d).actors == 5
    with pytest.raises(ValueError, match=r"an actor needs about 1.8 GiB .* has 1.0 GiB"):
        place(federation(), [Node(64, 0, 2**30)], d)


@pytest.mark.parametrize(
    ("dotted", "d", "frozen", "floats"),
    [
        ({"method.name": "decomfl"}, 10**9, 0, 2),  # x and the buffer
        ({"method.name": "hiso"}, 10**9, 0, 3),  # and H
        ({"method.curvature": "scalar"}, 10**9, 0, 2),
        ({"method.curvature": "row"}, 10**9, 0, 2),
        ({"method.curvature": "oracle"}, 10**9, 0, 3),
        ({"method.curvature": "random"}, 10**9, 0, 4),  # and its draws
        ({"method.curvature": "permuted"}, 10**9, 0, 5),  # and the order, and the next H
        ({"method.momentum": 0.9}, 10**9, 0, 4),
        ({"method.averaging": 0.9}, 10**9, 0, 4),
        ({"method.name": "fedzo"}, 10**9, 0, 4),  # x, the buffer, a client's x, the sum
        ({"method.name": "fedavg"}, 10**9, 0, 5),  # and a gradient
        (
            {"method.name": "fedavg", "method.momentum": 0.9, "federation.local_steps": 2},
            10**9,
            0,
            6,
        ),
        ({"federation.local_steps": 2}, 10**9, 0, 4),  # and a client's local x
        ({"task.dtype": "bfloat16"}, 10**9, 0, 2.5),  # half a buffer
        ({}, 10**6, 10**9, 8e-3),  # frozen float32 weights are shared; 5 directions are kept
        ({"resources.gpus_per_client": 1}, 10**6, 10**9, 1.008),
        ({"task.dtype": "bfloat16"}, 10**6, 10**9, 0.0075),  # shared
        ({"task.dtype": "bfloat16", "resources.gpus_per_client": 1}, 10**6, 10**9, 0.5075),
        ({"task.sparse_fraction": 0.001}, 10**6, 10**9 - 10**6, 1.008),  # the dense copy
    ],
)
def test_what_an_actor_holds(dotted: dict[str, Any], d: int, frozen: int, floats: float) -> None:
    need = actor_bytes(Experiment().changed(**dotted), d, frozen)
    assert need == pytest.approx(4e9 * floats + LIBRARIES, rel=1e-6)


def test_what_h_takes_is_what_its_arms_say() -> None:
    from hiso_ray.method.curvature import ARMS, stored_floats

    d, layout = 10**6, (("x", (1000, 1000)),)
    assert set(CURVATURES) == set(ARMS)
    for arm in ARMS:
        assert stored_floats(arm, layout) // d == CURVATURES[arm].vectors, arm


@pytest.mark.parametrize(
    ("held", "total", "share"),
    [(10, 100, 0.1111), (9, 100, 0.1), (30, 100, 0.3333), (50, 100, 1.0), (99, 100, 1.0)],
)
def test_a_measured_turn_and_a_tenth_more_fill_a_gpu(held: int, total: int, share: float) -> None:
    assert share_for(held, total) == share
    assert int(1 / share + 1e-9) * held * 1.1 <= total or share == 1
