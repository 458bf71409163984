"""Instruction tuning: answers of several lines, which end with the end of the text."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer

from hiso_ray import Experiment, replay, resume, run, tasks
from hiso_ray.tasks.language.generation import GenerationTask
from hiso_ray.tasks.pretrained.model_files import EMBEDDED
from hiso_ray.tasks.pretrained.pretrained import local_tokenizer

Make = Callable[..., Experiment]
pytestmark = pytest.mark.usefixtures("one_thread")
OUTPUTS = ["the plot is good.\nthe film is fresh.", "the soup is cold.", "the room is loud.\nso."]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random OPT with the embedded model's tokenizer that reads 256 tokens."""
    from transformers import OPTConfig, OPTForCausalLM

    folder = tmp_path_factory.mktemp("opt256")
    for file in EMBEDDED["opt-reviews"].glob("tokenizer*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = local_tokenizer("opt-reviews")
    shape = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, word_embed_proj_dim=16, ffn_dim=32,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        OPTForCausalLM(shape).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def instructions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alpaca's columns; every third has no input."""
    folder = tmp_path_factory.mktemp("instructions")
    rows = [
        {
            "instruction": "What is it like?",
            "input": "" if number % 3 == 2 else f"the {('plot', 'soup')[number % 3]}",
            "output": OUTPUTS[number % 3],
            "kind": f"kind {number % 2}",
        }
        for number in range(30)
    ]
    held = [row | {"instruction": "How is it?"} for row in rows[:6]]
    for split, some in (("train", rows), ("validation", held)):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return folder


@pytest.fixture
def tuning(experiment: Make, model: Path, instructions: Path) -> Make:
    def make(**dotted: Any) -> Experiment:
        base = {
            "task.name": "instructions", "task.model": str(model), "task.data": str(instructions),
            "task.max_length": 256, "task.max_new_tokens": 24, "task.batch_size": 2,
            "federation.num_clients": 4, "federation.clients_per_round": 2,
            "federation.rounds": 2, "eval.every": 1, "federation.by": "kind",
        }  # fmt: skip
        return experiment(**(base | dotted))

    return make


def built(experiment: Experiment) -> tuple[GenerationTask, Any]:
    experiment = tasks.resolve(experiment)
    prepared = tasks.prepare(experiment)
    task: Any = tasks.build(experiment, prepared, torch.device("cpu"))
    return task, prepared


def test_an_answer_is_trained_on_with_all_its_lines_and_the_end(tuning: Make, model: Path) -> None:
    task, prepared = built(tuning())
    tokenizer = local_tokenizer(str(model))
    for number, output in enumerate(OUTPUTS):
        (ids,) = task.rows("train_answer", np.array([number]))
        plain = tokenizer(output, add_special_tokens=False)["input_ids"]
        assert ids.tolist() == [*plain, tokenizer.eos_token_id]
        (prompt,) = task.rows("train_prompt", np.array([number]))
        text = tokenizer.decode(prompt, skip_special_tokens=True)
        assert text.endswith("\n\n### Response:")
        assert ("### Input:" in text) == (number != 2)
    assert prepared.spec["evaluation"]["stops"] == [tokenizer.eos_token_id]
    assert prepared.label_names == ("kind 0", "kind 1")


def test_all_that_is_written_is_the_answer(
    tuning: Make, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, prepared = built(tuning())
    tokenizer = local_tokenizer(str(model))
    written = tokenizer(f"{OUTPUTS[0]}</s><pad>", add_special_tokens=False, return_tensors="pt")

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.cat([input_ids, written["input_ids"].repeat(len(input_ids), 1)], 1)

    monkeypatch.setattr(task.module, "generate", generate)
    x = torch.tensor(prepared.x0)
    assert task.losses(x, [task.batch(np.arange(1))]).shape == (1,)  # binds the weights
    with torch.inference_mode():
        assert task.answers(np.arange(2)) == [OUTPUTS[0]] * 2
    score = RougeScorer(["rougeL"], use_stemmer=True).score
    wanted = 2 * [score(output, OUTPUTS[0])["rougeL"].fmeasure for output in OUTPUTS]
    assert task.score(x, 0).points["rougeL"] == pytest.approx(wanted)


def test_a_run_is_scored_by_rouge_resumes_and_replays(tuning: Make, tmp_path: Path) -> None:
    summary = run(tuning(), tmp_path / "r")
    assert summary["metric"] == "rougeL"
    with open(tmp_path / "r" / "metrics.csv", newline="") as file:
        *_, last = csv.DictReader(file)
    assert float(last["eval_rougeL"]) == summary["final_score"]
    assert replay(tmp_path / "r")["matches"] is True
    whole = run(tuning(**{"federation.rounds": 3}), tmp_path / "whole")
    assert (
        resume(tmp_path / "r", changes={"federation.rounds": 3})["model_sha256"]
        == (whole["model_sha256"])
    )


def test_a_tokenizer_without_an_end_of_the_text(tuning: Make, model: Path, tmp_path: Path) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    about = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del about["eos_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"no end-of-text token \(eos_token\)"):
        built(tuning(**{"task.model": str(tmp_path)}))
