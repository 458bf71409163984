"""Shares of a GPU's memory: the cap, what is measured, and the words when one is full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hiso_ray import Experiment, run, tasks
from hiso_ray.client.out_of_memory import is_full, larger_share
from hiso_ray.client.turns import take_turns
from hiso_ray.config import TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.execution import gpu_memory
from hiso_ray.execution.memory import CONTEXT, LIBRARIES, actor_bytes, actor_gpu_bytes
from hiso_ray.execution.placement import share_for
from hiso_ray.execution.worker import Worker
from hiso_ray.federation.partition import Partition
from hiso_ray.messages import Turn
from hiso_ray.seeds import step_seeds

Make = Callable[..., Experiment]
GIB = 2**30
WHOLE = 24 * GIB
CUDA = torch.device("cuda")
TORCH = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. If reserved but")


def given(share: Any, **dotted: Any) -> Experiment:
    return Experiment().changed(**{"resources.gpus_per_client": share}, **dotted)


@pytest.fixture
def caps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A GPU of 24 GiB for whoever asks torch; the caps that were set."""
    found: list[float] = []
    kind = SimpleNamespace(total_memory=WHOLE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: kind)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", found.append)
    return found


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.25, 6 * GIB - CONTEXT), (1.0, WHOLE), (2.0, WHOLE), ("auto", WHOLE)],
)
def test_the_cap_is_the_share_less_what_cuda_takes(
    caps: list[float], share: Any, expected: int
) -> None:
    gpu_memory.cap(given(0.1), CUDA)  # an earlier run in this process
    gpu_memory.cap(given(share), CUDA)
    gpu_memory.cap(given(share), torch.device("cpu"))
    assert caps[1:] == [pytest.approx(expected / WHOLE)]


def test_a_share_that_is_too_small_says_what_to_give(caps: list[float]) -> None:
    check = gpu_memory.check_memory
    check(given(0.25), 6 * GIB, CUDA)
    check(given("auto"), WHOLE, CUDA)
    check(given(0.25), 7 * GIB, torch.device("cpu"))
    words = r"about 7.0 GiB \(0.6 of it CUDA's own\), its 0.25 .* is 6.0 GiB: .* to 0.3 or more"
    with pytest.raises(UserError, match=words):
        check(given(0.25), 7 * GIB, CUDA)
    with pytest.raises(UserError, match=r"its 0.01 of this GPU is 0.2 GiB: .* to 0.03 or more"):
        check(given(0.01), CONTEXT + 2**20, CUDA)  # CUDA alone fills it
    by_layers = given(1.0).changed(**{"resources.probe_weights": "layer"})
    with pytest.raises(UserError, match=r"this GPU has 24.0 GiB: (?!.*probe_weights)"):
        check(by_layers, 25 * GIB, CUDA)  # its largest layer does not fit
    for share in (0.25, 1.0, "auto"):
        with pytest.raises(UserError, match=r"this GPU has 24.0 GiB: take .*bfloat16.*layer") as e:
            check(given(share), WHOLE + 1, CUDA)
        assert "gpus_per_client" not in str(e.value)


def test_what_an_actor_holds_of_a_gpu() -> None:
    d = 10**7
    small = {"resources.gpus_per_client": 1.0, "method.num_perturbations": 1}
    e = Experiment().changed(**small)
    assert actor_bytes(e, d) == 16 * d + LIBRARIES  # x, H, the buffer and a direction
    assert actor_gpu_bytes(e, d) == 12 * d + CONTEXT
    assert actor_gpu_bytes(e.changed(**{"method.generator": "torch"}), d) == 16 * d + CONTEXT
    fedavg = Experiment().changed(**{"method.name": "fedavg"})  # x, a client's, a gradient, buffer
    assert actor_gpu_bytes(fedavg, d) == 16 * d + CONTEXT


@pytest.mark.parametrize("torch_held", [2**21, 2**27, GIB, 5 * GIB, 11 * GIB, 23 * GIB])
@pytest.mark.parametrize("own", [300 * 2**20, 590 * 2**20, 900 * 2**20])
def test_the_cap_of_a_measured_share_leaves_torch_what_it_held(
    caps: list[float], monkeypatch: pytest.MonkeyPatch, torch_held: int, own: int
) -> None:
    now = torch_held // 2  # it has given some back
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (WHOLE - own - now, WHOLE))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: now)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: torch_held)
    held, total = gpu_memory.held_bytes(CUDA)
    share = share_for(held, total)
    gpu_memory.cap(given(share), CUDA)
    assert caps[0] * WHOLE >= torch_held
    assert share == 1 or share * WHOLE >= torch_held + own
    assert share == 1 or int(1 / share + 1e-9) * held * 1.1 <= WHOLE


@pytest.mark.parametrize(
    ("share", "larger"), [(0.1, 0.1111), (0.25, 0.3333), (0.3333, 0.5), (0.4, 1.0), (0.9, 1.0)]
)
def test_a_larger_share_is_one_actor_fewer(share: float, larger: float) -> None:
    assert larger_share(share) == larger


def worker(experiment: Experiment) -> Worker:
    experiment = tasks.resolve(experiment)
    return Worker(experiment, *tasks.load(experiment))


@pytest.mark.parametrize(
    ("dotted", "batches"),  # clients in each, of a cohort of three
    [
        ({"method.directions": "per_client"}, [1, 1, 1]),  # a cohort's directions
        ({}, [3]),
        ({"task.clients_per_forward": 2}, [2]),
    ],
)
def test_a_share_is_measured_with_the_longest_batches(
    language: Make,
    caps: list[float],
    monkeypatch: pytest.MonkeyPatch,
    dotted: dict[str, Any],
    batches: list[int],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    e = language(**{"task.eval_batch_size": 7}, **dotted)
    one = worker(e)
    prompts = {s: np.diff(one._arrays[f"{s}_prompt_offsets"]) for s in ("train", "eval")}
    made: dict[str, list[int]] = {"train": [], "eval": []}
    task: Any = one.replica.task
    make = task.make_batch

    def noted(split: str, clients: Sequence[np.ndarray]) -> Any:
        made[split].append(prompts[split][np.concatenate(clients)].sum())
        return make(split, clients)

    monkeypatch.setattr(task, "make_batch", noted)
    monkeypatch.setattr(one.replica, "device", CUDA)
    monkeypatch.setattr(gpu_memory, "held_bytes", lambda device: (7 * GIB, WHOLE))
    assert one.gpu_bytes() == (7 * GIB, WHOLE)
    heaviest = np.sort(prompts["train"])[-4:].sum()
    assert made["train"] == [clients * heaviest for clients in batches]
    lengths = prompts["eval"]
    assert made["eval"] == [lengths[: len(lengths) // 7 * 7].reshape(-1, 7)[
        gpu_memory.heaviest_batch(e.task, lengths)].sum()]  # fmt: skip
    assert one.round == 1  # and a record applied
    monkeypatch.setattr(gpu_memory, "held_bytes", lambda device: (1, WHOLE))
    assert one.gpu_bytes() == (one._need, WHOLE)  # what an actor is refused without


def test_the_heaviest_of_what_there_is() -> None:
    arrays = {
        "train_prompt_offsets": np.array([0, 3, 5]),
        "train_answer_offsets": np.array([0, 1, 9]),
        "eval_prompt_offsets": np.array([0, 1]),
    }
    found = gpu_memory.lengths(arrays, "train")
    assert found is not None
    assert found.tolist() == [4, 10]
    assert gpu_memory.lengths({"train_images": np.zeros(3)}, "train") is None
    own = Partition(np.array([1, 0, 2]), np.array([0, 2, 3]))
    heavy = gpu_memory.heaviest_clients(own, np.array([5, 1, 7]), 16, 2)
    assert [heavy.of(0).tolist(), heavy.of(1).tolist()] == [[2, 0], [2, 0]]
    assert len(gpu_memory.heaviest_clients(own, None, 1, 1).of(0)) == 1
    # 3 of 5 tokens, then 1 of 9: the last batch is short
    assert gpu_memory.heaviest_batch(TaskConfig(eval_batch_size=3), np.array([5, 1, 1, 9])) == 0
    assert gpu_memory.heaviest_batch(TaskConfig(), None) == 0


def full(*_: Any) -> Any:
    raise TORCH


SHARE = (
    r"the actor's share, 0.25 of this GPU, is 6.0 GiB; raise resources.gpus_per_client to 0.3333 "
)


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (TORCH, True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (OSError("CUDA error: out of memory"), False),
    ],
)
def test_a_full_gpu_is_known_by_whoever_says_so(error: Exception, is_it: bool) -> None:
    assert is_full(error) == is_it


def test_a_worker_caps_itself_before_it_builds_anything(
    experiment: Make, caps: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def build(*_: Any) -> Any:
        assert caps == [pytest.approx((6 * GIB - CONTEXT) / WHOLE)]
        raise TORCH

    monkeypatch.setattr(tasks, "build", build)
    with pytest.raises(UserError, match=f"building the model: {SHARE}.*smaller model"):
        run(experiment(**{"resources.gpus_per_client": 0.25}), tmp_path / "r")


@pytest.mark.parametrize("method", ["hiso", "fedavg"])
def test_a_full_gpu_is_told_with_what_to_change(
    experiment: Make, caps: list[float], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    capped = {"resources.gpus_per_client": 0.25, "method.name": method}
    capped["method.num_perturbations"] = 5  # as it is, since fedavg has none
    one = worker(experiment(**capped))
    seeds = step_seeds(0, 0, 1)
    for name in ("losses", "losses_at", "gradient", "score"):
        monkeypatch.setattr(one.replica.task, name, full)
    if method == "hiso":
        where = r"one of the clients \[0, 5\], round 0, local step 0"
        with pytest.raises(UserError, match=f"{where}: {SHARE}.*batch_size .now .*layer"):
            take_turns(one.replica, one.partition, [(0,), (5,)], seeds)
    with pytest.raises(UserError, match=f"round 0, local step 0: {SHARE}") as turn:
        one.turns([(0, 5)], seeds)
    assert ("probe_weights" in str(turn.value)) == (method == "hiso")
    assert str(turn.value).endswith("torch: CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(UserError, match=f"evaluation batch 1, round 0: {SHARE}.*eval_batch_size"):
        one.scores([1])
    whole = worker(experiment(**capped | {"resources.gpus_per_client": 1.0}))
    monkeypatch.setattr(whole.replica.task, "score", full)
    with pytest.raises(UserError, match=r"this whole GPU, 24.0 GiB; lower task") as alone:
        whole.scores([0])
    assert "gpus_per_client" not in str(alone.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_is_held_to_its_share(experiment: Make) -> None:
    whole = torch.cuda.get_device_properties(0).total_memory
    share = round((CONTEXT + 512 * 2**20) / whole, 4)
    one = worker(experiment(**{"resources.gpus_per_client": share}))
    turns: list[list[Turn]] = one.turns([(0, 5), (1,)], step_seeds(0, 0, 1))
    assert [[turn.client for turn in unit] for unit in turns] == [[0, 5], [1]]
    task: Any = one.replica.task
    losses = task.losses_at

    def eat() -> None:
        torch.empty(600 * 2**20, dtype=torch.uint8, device="cuda")

    def hungry(*arguments: Any) -> np.ndarray:
        eat()
        return losses(*arguments)

    task.losses_at = hungry
    free, _ = torch.cuda.mem_get_info()
    assert free > 600 * 2**20, "the GPU is busy"
    try:
        with pytest.raises(UserError, match=f"the actor's share, {share:g} of this GPU"):
            one.turns([(0, 5)], step_seeds(0, 0, 1))
    finally:
        worker(experiment(**{"resources.gpus_per_client": 1.0}))  # lifts the cap
    eat()
