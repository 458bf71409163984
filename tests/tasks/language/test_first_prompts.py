"""A dry run shows the prompts that training gets, from tokenizer and data alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, tasks
from hiso_ray.cli import main
from hiso_ray.tasks.language.first_prompts import TOKENS
from hiso_ray.tasks.pretrained.model_files import EMBEDDED
from hiso_ray.tasks.pretrained.pretrained import local_tokenizer

Make = Callable[..., Experiment]
IDS = re.compile(r"(?:: |, )(\d+) ['\"]")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.fixture
def no_weights(tmp_path: Path) -> Path:
    """The embedded model's folder without its weights."""
    folder = tmp_path / "no-weights"
    folder.mkdir()
    for file in EMBEDDED["opt-reviews"].glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def about(tmp_path: Path) -> Path:
    """Reviews whose topic is to be written."""
    rows = [{"review": f"the film is {'not ' * (n + 20)}dull.", "topic": "film"} for n in range(40)]
    (tmp_path / "about.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "about.jsonl"


def row(prepared: Any, name: str, number: int) -> list[int]:
    ids, offsets = prepared.arrays[f"{name}_ids"], prepared.arrays[f"{name}_offsets"]
    return ids[offsets[number] : offsets[number + 1]].tolist()


def shown(experiment: Experiment) -> list[str]:
    return list(tasks.preview(tasks.resolve(experiment)))


def own(data: Path, **dotted: Any) -> Experiment:
    base = {
        "task.name": "prompts", "task.model": "opt-reviews", "task.data": str(data),
        "task.max_length": 24, "task.max_new_tokens": 4, "seed": 3,
        "task.prompt.template": "{review} It is about a", "task.prompt.answer_column": "topic",
    }  # fmt: skip
    return Experiment().changed(**(base | dotted))


def test_classes_are_shown_as_training_sees_them() -> None:
    e = tasks.resolve(Experiment().changed(**{"task.train_examples": 5, "task.eval_examples": 3}))
    lines, prepared = shown(e), tasks.prepare(e)
    assert lines[0].startswith("5 training and 3 evaluation prompts")
    tokenizer = local_tokenizer("opt-reviews")
    for number in range(2):
        text, tokens, answer = lines[1 + 3 * number : 4 + 3 * number]
        ids = row(prepared, "train_prompt", number)
        assert text == f"{number + 1}. {tokenizer.decode(ids)!r}"
        assert list(map(int, IDS.findall(tokens))) == ids
        assert f"{len(ids)} tokens" in tokens
        label, answers = int(prepared.labels[number]), prepared.spec["answers"]
        name = ("negative", "positive")[label]
        assert f"answer {answers[label]} {tokenizer.decode([answers[label]])!r} ({name})" in answer
        assert answer.endswith(f"of {answers[0]} ' bad', {answers[1]} ' good'")


def test_written_answers_and_what_is_cut_are_shown(about: Path) -> None:
    e = own(about)
    lines, prepared = shown(e), tasks.prepare(tasks.resolve(e))
    assert "8 of its 40 rows are held out" in lines[0]  # the split of this seed
    for number in range(2):
        text, tokens, answer = lines[2 + 3 * number : 5 + 3 * number]
        assert list(map(int, IDS.findall(tokens))) == row(prepared, "train_prompt", number)
        assert list(map(int, IDS.findall(answer))) == row(prepared, "train_answer", number)
        assert text.endswith(" It is about a'")
        assert "20 tokens, the beginning of its review cut off: 1 '<s>', " in tokens


def test_a_long_prompt_is_shown_by_its_ends(tmp_path: Path) -> None:
    lines = [json.dumps({"review": "dull " * 300, "topic": "film"})] * 10
    (tmp_path / "long.jsonl").write_text("\n".join(lines))
    tokens = shown(own(tmp_path / "long.jsonl", **{"task.max_length": 300}))[3]
    assert ", …, " in tokens
    assert len(IDS.findall(tokens)) == TOKENS


def test_the_command_shows_them_and_reads_no_weights(
    no_weights: Path, about: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["run", "--dry-run", "--task.name", "prompts", "--task.model", str(no_weights)]
    given += ["--task.data", str(about), "--task.max_length", "64", "--task.max_new_tokens", "4"]
    given += ["--task.prompt.answer_column", "topic", "--task.prompt.template"]
    assert main([*given, "{review}\nTopic:"]) == 0
    out = capsys.readouterr().out
    assert "a plan, nothing was run" in out
    assert "\\nTopic:'" in out
    assert main([*given, "{text}\nTopic:"]) == 2
    assert "no column text; it has review, topic" in capsys.readouterr().err
    assert main([*given, "{review}\nTopic:", "--federation.by", "author"]) == 2
    assert "federation.by = author: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task.data": "auto"}, "prompts are not shown: task.data = nyu-mll/glue is not on this"),
        ({"task.data": "/nowhere"}, "prompts are not shown: task.data = /nowhere is not on this"),
        ({"task.model": "facebook/opt-125m"},
         "prompts are not shown: the tokenizer of task.model = facebook/opt-125m: it is not here"),
    ],
)  # fmt: skip
def test_what_is_not_here_is_said(language: Make, fields: dict[str, Any], words: str) -> None:
    (line,) = shown(language(**fields))
    assert line.startswith(words)


def test_images_have_no_prompts(experiment: Make) -> None:
    assert shown(experiment()) == []
