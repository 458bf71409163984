"""Sparse masks, by any rule, of any task that has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hiso_ray import Experiment, tasks
from hiso_ray.tasks import sparse

CPU = torch.device("cpu")
Make = Callable[..., Experiment]


def built(experiment: Experiment) -> tuple[Any, Any]:
    experiment = tasks.resolve(experiment)
    prepared = tasks.prepare(experiment)
    return tasks.build(experiment, prepared, CPU), prepared


def test_of_equal_scores_the_first_are_kept() -> None:
    scores = np.abs(np.array([1, -2, 0, 2, -1, 1, 2, 0], np.float32))
    kept = [sparse.largest(scores, n).tolist() for n in (2, 3, 4, 8)]
    assert kept == [[1, 3], [1, 3, 6], [0, 1, 3, 6], list(range(8))]


def test_a_masked_network_is_the_whole_one_at_the_weights_put_back(experiment: Make) -> None:
    whole, dense = built(experiment())
    task, prepared = built(experiment(**{"task.sparse_fraction": 0.1}))
    index = prepared.arrays["mask/index"]
    small = torch.tensor(prepared.x0) + torch.tensor([[0.0], [0.1], [-0.2]])
    put_back = torch.tensor(dense.x0).repeat(3, 1)
    put_back[:, index] = small
    cohort = [np.arange(8), np.arange(20, 25)]
    batch = task.batch(*cohort)
    assert np.array_equal(task.losses_at(small, [batch]), whole.losses_at(put_back, [batch]))
    each = [part.expand(2, -1, -1) for part in (small, put_back)]
    of_each = task.losses_of_each(each[0], batch), whole.losses_of_each(each[1], batch)
    assert np.array_equal(*of_each)
    for weights, same in zip(small, put_back, strict=True):
        assert np.array_equal(task.losses(weights, [batch]), whole.losses(same, [batch]))


def test_an_exported_network_is_whole(experiment: Make, tmp_path: Any) -> None:
    from safetensors.torch import load_file

    task, prepared = built(experiment(**{"task.sparse_fraction": 0.1}))
    task.export(torch.tensor(prepared.x0) + 1, tmp_path / "model")
    found = load_file(tmp_path / "model" / "model.safetensors")
    flat = torch.cat([found[name].flatten() for name, _ in prepared.spec["dense"]])
    wanted = torch.tensor(prepared.arrays["mask/base"])
    wanted[prepared.arrays["mask/index"]] += 1
    assert torch.equal(flat, wanted)


@pytest.mark.parametrize("by", ["magnitude", "random"])
def test_a_mask_that_keeps_nothing_is_refused(experiment: Make, by: str) -> None:
    e = tasks.resolve(experiment(**{"task.sparse_fraction": 1e-4, "task.sparse_by": by}))
    for function in (tasks.prepare, tasks.count):
        with pytest.raises(ValueError, match=r"of 610 weights the mask would keep none; give 0.002"):
            function(e)
