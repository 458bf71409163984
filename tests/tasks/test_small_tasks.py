"""Digits and the quadratic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hiso_ray import Experiment, tasks
from hiso_ray.execution.worker import Worker
from hiso_ray.federation.uplink import decode
from hiso_ray.messages import Missed
from hiso_ray.record import Record
from hiso_ray.run_folder.outcomes import joined, means
from hiso_ray.seeds import step_seeds
from hiso_ray.tasks.contract import views

CPU = torch.device("cpu")


def test_digits_forward_is_the_network_it_says(experiment: Callable[..., Experiment]) -> None:
    e = tasks.resolve(experiment())
    prepared = tasks.prepare(e)
    task = tasks.build(e, prepared, CPU)
    x = torch.tensor(prepared.x0)
    named = views(x, task.layout)
    images = torch.tensor(prepared.arrays["train_x"][:5])
    hidden = torch.relu(images @ named["hidden.weight"].T + named["hidden.bias"])
    logits = hidden @ named["output.weight"].T + named["output.bias"]
    labels = torch.tensor(prepared.arrays["train_y"][:5])
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert task.losses(x, [task.batch(np.arange(5))])[0] == pytest.approx(float(expected), rel=1e-5)


def test_accuracy_is_correct_over_total_whatever_the_batches(
    experiment: Callable[..., Experiment],
) -> None:
    # Trap: accuracy as a mean of batch means is wrong on the last batch.
    found = set()
    for size in (7, 64, 360, 1000):
        e = tasks.resolve(experiment(**{"task.eval_batch_size": size}))
        prepared = tasks.prepare(e)
        task = tasks.build(e, prepared, CPU)
        scores = [task.score(torch.tensor(prepared.x0), b) for b in range(task.eval_batches)]
        hits = joined(scores).points["accuracy"].tolist()
        assert len(hits) == 360
        assert means(joined(scores), 0)["eval_accuracy"] == sum(hits) / 360
        found.add(tuple(hits))
    assert len(found) == 1


def test_the_test_images_do_not_depend_on_the_run_seed(
    experiment: Callable[..., Experiment],
) -> None:
    one, two = (tasks.prepare(tasks.resolve(experiment(seed=s))) for s in (0, 1))
    assert np.array_equal(one.arrays["eval_x"], two.arrays["eval_x"])
    assert not np.array_equal(one.x0, two.x0)


@pytest.mark.parametrize("name", ["digits", "quadratic"])
def test_nothing_shared_is_written_to(experiment: Callable[..., Experiment], name: str) -> None:
    # What comes from the object store is seen by every process; numpy's write flag does not stop
    # torch, so the bytes are compared.
    e = tasks.resolve(experiment(**{"task.name": name, "task.model": "auto"}))
    prepared, partition = tasks.load(e)
    shared = {**prepared.arrays, "x0": prepared.x0, "examples": partition.examples}
    before = {key: array.copy() for key, array in shared.items()}
    worker = Worker(e, prepared, partition)
    (first, _), _ = worker.turns([(0, 1), (2,)], step_seeds(0, 0, 1))
    g = tuple(map(float, decode([first.payload], "float32", (2,))[0]))
    record = Record(0, (0, 1, 2), step_seeds(0, 0, 1), (g,), 0.1, 1e-3, 0.9, 1e-8, 1.0)
    worker.catch_up(Missed(1, [record]))
    worker.scores([0])
    assert not np.array_equal(worker.replica.state.x.numpy(), before["x0"])
    assert all(np.array_equal(shared[key], before[key]) for key in shared)


def test_quadratic_loss_by_hand(experiment: Callable[..., Experiment]) -> None:
    e = tasks.resolve(experiment(**{"task.name": "quadratic", "task.model": "diagonal-3"}))
    prepared = tasks.prepare(e)
    task = tasks.build(e, prepared, CPU)
    b, lam = prepared.arrays["targets"][1], prepared.arrays["curvature"]
    expected = 0.5 * float((lam * (1 - b) ** 2).sum())
    assert task.losses(torch.ones(3), [task.batch(np.array([1]))])[0] == pytest.approx(expected)
    optimum = torch.tensor(prepared.arrays["targets"].mean(0))
    score = task.score(optimum, 0)
    assert score.losses == pytest.approx(np.zeros(1), abs=1e-6)
    assert score.points == {"accuracy": np.ones(1)}


def test_help_names_every_task() -> None:
    from hiso_ray.config.fields import known_fields
    from hiso_ray.tasks.registry import TASKS

    description = known_fields()["task.name"].description
    assert all(name in description for name in TASKS)


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ({"task.name": "sst3"}, "unknown task .*sst2, .*cifar10, digits, quadratic"),
        ({"task.model": "cnn-3"}, "digits takes mlp-WIDTH"),
        ({"task.model": "mlp-0"}, "digits takes mlp-WIDTH"),
        ({"task.data": "somewhere"}, "digits has its own data"),
        ({"task.name": "quadratic"}, "takes diagonal-DIMENSION"),
    ],
)
def test_bad_tasks(
    experiment: Callable[..., Experiment], dotted: dict[str, str], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        tasks.prepare(tasks.resolve(experiment(**dotted)))
