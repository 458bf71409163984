"""Calibrated losses against cross-entropy by hand, in each way a task computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hiso_ray import Experiment, replay, run, tasks
from hiso_ray.errors import UserError
from hiso_ray.execution.worker import Worker
from hiso_ray.federation.partition import Partition, split
from hiso_ray.tasks.contract import Prepared

TWO = np.array([0, 5]), np.array([1, 2, 3])  # positions of the examples of two clients' minibatches


def built(e: Experiment) -> tuple[Any, Prepared, Partition, Tensor]:
    e = tasks.resolve(e)
    prepared = tasks.prepare(e)
    partition = split(e.federation, prepared.labels, e.seed)
    task = Worker(e, prepared, partition).replica.task
    return task, prepared, partition, torch.tensor(prepared.x0)


@torch.inference_mode()
def by_hand(
    task: Any, prepared: Prepared, partition: Partition, batches: list[np.ndarray]
) -> list[float]:
    """Mean of −log softmax(logits + log π_i) at the label, of each client's minibatch, float64."""
    found = []
    for client, examples in enumerate(batches):
        classes = prepared.arrays[prepared.classes]
        held = classes[partition.of(client)]
        shares = np.array([(held == c).sum() + 0.1 for c in range(prepared.num_classes)])
        plain = task.make_batch("train", [examples])
        logits = task.logits(plain.inputs).double().numpy() + np.log(shares / shares.sum())
        right = logits[np.arange(len(examples)), classes[examples]]
        found.append(float(np.mean(np.log(np.exp(logits).sum(1)) - right)))
    return found


@pytest.mark.parametrize(
    "fields",
    [{}, {"task.model": "mlp-2000"}, {"task.name": "reviews", "task.model": "auto"}],
    ids=["stacked", "module", "language"],
)
def test_the_loss_is_that_of_the_clients_own_label_shares(
    fields: dict[str, Any], experiment: Callable[..., Experiment]
) -> None:
    e = experiment(**{"method.client_loss": "calibrated", "federation.alpha": 0.3}, **fields)
    task, prepared, partition, x = built(e)
    batches = [partition.of(client)[where] for client, where in enumerate(TWO)]
    batch = task.batch(*batches)
    losses = task.losses(x, [batch])
    assert losses == pytest.approx(by_hand(task, prepared, partition, batches), rel=1e-5, abs=1e-6)
    if task.several:
        both = torch.stack([x, x])
        assert task.losses_at(both, [batch]) == pytest.approx(np.stack([losses] * 2), rel=1e-5)
        each = task.losses_of_each(torch.stack([both, both]), batch)
        assert each == pytest.approx(np.stack([losses] * 2), rel=1e-5)


def test_derivatives_are_those_of_the_calibrated_loss(
    experiment: Callable[..., Experiment],
) -> None:
    task, _, partition, x = built(experiment(**{"method.client_loss": "calibrated"}))
    batch = task.batch(partition.of(0)[:6])
    loss, gradient = task.gradient(x, batch)
    assert loss == pytest.approx(task.losses(x, [batch])[0], rel=1e-5)
    slope, _ = task.slopes(x, gradient / gradient.norm(), [batch])
    assert slope[0] == pytest.approx(float(gradient.norm()), rel=1e-4)
    plain, *_ = built(experiment())
    assert not torch.equal(plain.gradient(x, plain.batch(partition.of(0)[:6]))[1], gradient)


def test_a_run_with_it_is_the_same_on_actors_and_by_replay(
    experiment: Callable[..., Experiment], tmp_path: Any, ray_cluster: None
) -> None:
    e = experiment(**{"method.client_loss": "calibrated", "federation.local_steps": 2})
    alone = run(e, out=tmp_path / "serial")
    on_ray = {"resources.executor": "ray", "resources.max_actors": 2}
    spread = run(e.changed(**on_ray), out=tmp_path / "ray")
    assert spread["model_sha256"] == alone["model_sha256"]
    assert replay(tmp_path / "serial")["matches"] is True
    assert run(experiment(), out=tmp_path / "plain")["model_sha256"] != alone["model_sha256"]


@pytest.mark.parametrize("name", ["quadratic", "squad"])
def test_a_task_without_classes_refuses_it(
    name: str, experiment: Callable[..., Experiment]
) -> None:
    fields = {"task.name": name, "task.model": "auto"}
    with pytest.raises(UserError, match=f"{name} does not tell classes apart; use plain"):
        tasks.resolve(experiment(**{"method.client_loss": "calibrated"}, **fields))
