"""Who shares a forward pass: fixed by configuration and cohort, and no more than rounding."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hiso_ray import Experiment, replay, run, tasks
from hiso_ray.client.turns import take_turns
from hiso_ray.config import TaskConfig
from hiso_ray.execution.worker import Worker
from hiso_ray.messages import Turn
from hiso_ray.seeds import step_seeds
from hiso_ray.server.work_units import clients_together, idle, work_units

Make = Callable[..., Experiment]
COHORT = [0, 1, 3, 4, 5, 7, 9, 11]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("dotted", "cohort", "units"),
    [
        ({}, COHORT, [(0, 1, 3, 4), (5, 7, 9, 11)]),  # auto: four
        ({"task.clients_per_forward": 1}, [2, 5], [(2,), (5,)]),
        ({"task.clients_per_forward": 3}, COHORT, [(0, 1, 3), (4, 5, 7), (9, 11)]),
        ({"task.clients_per_forward": 8}, COHORT, [tuple(COHORT)]),
        ({"task.clients_per_forward": 1000}, [2, 5], [(2, 5)]),
        ({"task.clients_per_forward": 3}, [], []),
        ({"method.directions": "per_client", "task.clients_per_forward": 3}, [2, 5], [(2,), (5,)]),
    ],
)
def test_units_by_hand(
    experiment: Make, dotted: dict[str, Any], cohort: list[int], units: list[tuple[int, ...]]
) -> None:
    assert work_units(tasks.resolve(experiment(**dotted)), cohort) == units


@pytest.mark.parametrize(
    ("batch_size", "max_length", "together"),
    [(4, 64, 4), (16, 64, 4), (16, 128, 2), (16, 256, 1), (16, 512, 1), (16, 2048, 1)],
)
def test_auto_is_four_within_a_budget_of_tokens(
    batch_size: int, max_length: int, together: int
) -> None:
    sized = {"task.batch_size": batch_size, "task.max_length": max_length, "task.name": "sst2"}
    e = tasks.resolve(Experiment().changed(**sized))
    assert e.task.clients_per_forward == together == clients_together(e)
    given = tasks.resolve(Experiment().changed(**sized, **{"task.clients_per_forward": 9}))
    assert given.task.clients_per_forward == 9


@pytest.mark.parametrize("size", [0, -1, 1.5, "all"])
def test_a_group_has_somebody(size: Any) -> None:
    with pytest.raises((ValidationError, ValueError), match="clients_per_forward"):
        TaskConfig(clients_per_forward=size)


def test_actors_that_groups_leave_idle_are_told(experiment: Make) -> None:
    e = tasks.resolve(experiment(**{"federation.clients_per_round": 8}))
    assert idle(e, 2) is None
    told = idle(e, 4)
    assert told is not None
    assert told.startswith("2 of 4 actors compute in a round: 8 clients, 4 to a forward pass; ")
    assert "task.clients_per_forward 2 would keep 4 busy" in told
    assert idle(e.changed(**{"task.clients_per_forward": 2}), 4) is None
    weights = {"method.name": "fedavg", "method.num_perturbations": 5}  # as it is
    assert idle(e.changed(**weights), 4) is None


CASES: dict[str, dict[str, Any]] = {
    "digits": {},
    "digits, one by one": {"task.model": "mlp-2048"},
    "digits, central": {"method.probe": "central"},
    "digits, exact": {"method.probe": "exact"},
    "quadratic": {"task.name": "quadratic", "task.model": "diagonal-12"},
    "language": {"task.name": "sst2"},
    "language, layers": {"task.name": "sst2", "resources.probe_weights": "layer"},
    "language, lora": {"task.name": "sst2", "task.lora.r": 2},
    "language, padded": {"task.name": "sst2", "form": "padded"},
}


@pytest.mark.parametrize("tau", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_losses_of_clients_do_not_depend_on_their_group(
    experiment: Make, language: Make, case: str, tau: int
) -> None:
    dotted = dict(CASES[case])
    form = dotted.pop("form", None)
    make = language if dotted.get("task.name") == "sst2" else experiment
    # Some clients have fewer examples than a batch: the sizes of minibatches differ.
    small = {"federation.local_steps": tau, "task.train_examples": 60, "task.batch_size": 7}
    if "quadratic" in case:
        del small["task.train_examples"]
    e = tasks.resolve(make(**(small | dotted)))
    prepared, partition = tasks.load(e)
    if form:
        prepared.spec["forward"] = prepared.spec["forward"]._replace(form=form)
    if "quadratic" not in case:
        assert len({min(7, len(partition.of(i))) for i in COHORT}) > 1
    found: dict[int, list[Turn]] = {}
    for size in (1, 3, 8):
        of = e.changed(**{"task.clients_per_forward": size})
        replica = Worker(of, prepared, partition).replica
        units, seeds = work_units(of, COHORT), step_seeds(0, 0, tau)
        found[size] = take_turns(replica, partition, units, seeds)
        assert [turn.client for turn in found[size]] == COHORT
    alone = np.stack([turn.losses for turn in found[1]])
    assert len(np.unique(alone)) == alone.size  # so that nobody can have another's
    for size in (3, 8):
        losses = np.stack([turn.losses for turn in found[size]])
        assert losses[:, 0] == pytest.approx(alone[:, 0], rel=1e-5), size
        # From then on each stands where its own g led it, and μ magnifies what g was rounded by.
        assert losses == pytest.approx(alone, rel=1e-3), size


def test_the_size_of_groups_is_part_of_a_runs_identity(language: Make, tmp_path: Any) -> None:
    identities = set()
    for size in (1, 3, 8, 1000):  # the last: more than there are
        e = language(**{"federation.clients_per_round": 8, "task.clients_per_forward": size})
        run(e, tmp_path / str(size))
        assert replay(tmp_path / str(size))["matches"] is True
        header = (tmp_path / str(size) / "ledger.jsonl").read_text().splitlines()[0]
        identities.add(json.loads(header)["config_sha256"])
    assert len(identities) == 4
