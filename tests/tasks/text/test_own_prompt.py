"""A task of one's own from YAML alone: it is the row a built-in task would be, and bad input is
refused in words."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hiso_ray import Experiment, config, replay, resume, run, tasks
from hiso_ray.cli import main
from hiso_ray.config.fields import explain
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.tasks.text import examples
from hiso_ray.tasks.text.own_prompt import benchmark_of
from hiso_ray.tasks.text.reviews import drafts

Make = Callable[..., Experiment]
pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = """
task:
  name: prompts
  model: opt-reviews
  data: {data}
  max_length: 64
  batch_size: 4
  prompt:
    template: "{{review}} It was"
    answers: [" bad", " good"]
    label_column: sentiment
    labels: [neg, pos|positive]
    names: [negative, positive]
federation: {{num_clients: 6, clients_per_round: 3, rounds: 4}}
method: {{num_perturbations: 2}}
resources: {{executor: serial}}
eval: {{every: 2}}
"""
TEXT = """
task:
  name: prompts
  model: opt-reviews
  data: {data}
  max_length: 60
  max_new_tokens: 4
  batch_size: 4
  prompt:
    template: "{{review}} It is about a"
    answer_column: about
    metrics: [rougeL, exact_match]
federation: {{num_clients: 6, clients_per_round: 3, rounds: 2, by: sentiment}}
method: {{num_perturbations: 2}}
resources: {{executor: serial}}
eval: {{every: 2}}
"""


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it: review, sentiment (neg, Pos, positive) and topic, in JSONL."""
    folder = tmp_path_factory.mktemp("reviews")
    for split, size in (("train", 60), ("validation", 20)):
        rows = islice(drafts(split), size)
        lines = [
            {
                "review": row["text"],
                "sentiment": ["neg", ("Pos", "positive")[i % 2]][int(row["label"])],
                "about": row["topic"],
            }
            for i, row in enumerate(rows)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return folder


def of(text: str, data: Path, **dotted: Any) -> Experiment:
    return Experiment.model_validate(yaml.safe_load(text.format(data=data))).changed(**dotted)


# one path


def test_a_row_of_the_table_and_its_spelling_are_the_same_run(
    experiment: Make, tmp_path: Path
) -> None:
    row = experiment(**{"task.name": "sst2", **_sst2(tmp_path)})
    own = row.changed(
        **{
            "task.name": "prompts",
            "task.max_length": 128,
            "task.prompt.template": "{text} It was",
            "task.prompt.answers": (" bad", " good"),
        }
    )
    one, other = run(row, tmp_path / "row"), run(own, tmp_path / "own")
    assert one["model_sha256"] == other["model_sha256"]
    first, second = (Ledger.read(tmp_path / n / "ledger.jsonl").header for n in ("row", "own"))
    for name in ("x0_sha256", "data_sha256", "task_sha256"):
        assert first[name] == second[name]
    assert first["config_sha256"] != second["config_sha256"]


def _sst2(folder: Path) -> dict[str, Any]:
    for split, size in (("train", 60), ("validation", 20)):
        rows = [{k: row[k] for k in ("text", "label")} for row in islice(drafts(split), size)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return {"task.model": "opt-reviews", "task.data": str(folder), "method.lr": 1e-3}


def test_tasks_with_a_prompt_of_their_own_are_called_as_before() -> None:
    """The digest and the cell of runs made before there were other prompts."""
    e = tasks.resolve(Experiment())
    assert "prompt" not in e.model_dump()["task"]
    assert e.digest() == "6b5b45f55a7230d7da6b92ea80afbf39637b2b9c0c76153b1a584c24c1d84a3e"


# runs


@pytest.mark.parametrize("text", [CLASSES, TEXT], ids=["classification", "generation"])
def test_from_yaml_alone_a_run_resumes_replays_and_exports(
    reviews: Path, tmp_path: Path, text: str
) -> None:
    from transformers import AutoModelForCausalLM

    (tmp_path / "own.yaml").write_text(text.format(data=reviews))
    whole = run(
        Experiment.model_validate(config.read_yaml(tmp_path / "own.yaml")), tmp_path / "whole"
    )
    assert whole["task"] == "prompts"

    def stop(row: dict[str, Any]) -> None:
        if row["round"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(of(text, reviews), tmp_path / "r", stop)
    assert resume(tmp_path / "r")["model_sha256"] == whole["model_sha256"]
    assert main(["replay", str(tmp_path / "r"), "--export", str(tmp_path / "model")]) == 0
    AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    replayed = replay(tmp_path / "whole")
    assert replayed["matches"] is True
    assert replayed[f"eval_{whole['metric']}"] == whole["final_score"]
    again = run(Experiment.model_validate(config.read_yaml(tmp_path / "r" / "config.yaml")))
    assert again["model_sha256"] == whole["model_sha256"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_scored(reviews: Path, tmp_path: Path) -> None:
    assert run(of(TEXT, reviews), tmp_path / "r")["metric"] == "rougeL"
    with open(tmp_path / "r" / "metrics.csv", newline="") as file:
        *_, last = csv.DictReader(file)
    scores = {name for name, value in last.items() if name.startswith("eval_") and value}
    assert scores == {"eval_loss", "eval_rougeL", "eval_exact_match"}
    groups = (tmp_path / "r" / "partition.csv").read_text().splitlines()[0].split(",")[2:]
    assert sorted(groups) == ["Pos", "neg", "positive"]  # federation.by names any column


def test_a_metric_of_ones_own_is_a_row_and_a_column(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hiso_ray.tasks.text import scores

    def begins_alike(answer: str, reference: str) -> float:
        return float(answer[:1] == reference[:1])

    monkeypatch.setitem(scores.SCORES, "begins_alike", begins_alike)
    text = TEXT.replace("[rougeL, exact_match]", "[begins_alike, f1]")
    summary = run(of(text, reviews), tmp_path / "r")
    assert summary["metric"] == "begins_alike"
    with open(tmp_path / "r" / "metrics.csv", newline="") as file:
        *_, last = csv.DictReader(file)
    assert float(last["eval_begins_alike"]) == summary["final_score"]
    assert replay(tmp_path / "r")["eval_begins_alike"] == summary["final_score"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("template", "{review} I found it"),
        ("answers", " good, bad"),
        ("labels", "pos|positive,neg"),
        ("evaluation", "test"),
    ],
)
def test_another_prompt_is_another_run(
    reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: str
) -> None:
    run(of(CLASSES, reviews), tmp_path / "r")
    before = (tmp_path / "r" / "config.yaml").read_text()
    assert main(["resume", str(tmp_path / "r"), f"--task.prompt.{field}", value]) == 2
    said = capsys.readouterr().err
    assert f"task.prompt.{field} = {value}: the rounds so far were run with another" in said
    assert (tmp_path / "r" / "config.yaml").read_text() == before


def test_other_data_behind_the_same_name_are_refused(reviews: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(reviews, data)
    run(of(CLASSES, data), tmp_path / "r")
    file = data / "train.jsonl"
    file.write_text(file.read_text().replace("the ", "a "))
    with pytest.raises(ValueError, match="written with another data"):
        resume(tmp_path / "r", changes={"federation.rounds": 8})


# options


def test_options_say_the_same_as_yaml(reviews: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.yaml").write_text(CLASSES.format(data=reviews).split("  prompt:")[0])
    wanted = of(CLASSES, reviews).task.prompt
    for answers in (" bad, good", '[" bad", " good"]'):
        values = config.read_yaml(tmp_path / "bare.yaml")
        given = {"answers": answers, "labels": "neg, pos|positive", "names": "negative,positive"}
        given |= {"template": "{review} It was", "label_column": "sentiment"}
        for name, value in given.items():
            config.put(values, f"task.prompt.{name}", value)
        assert Experiment.model_validate(values).task.prompt == wanted


def test_what_is_left_out_is_spelled_out(reviews: Path) -> None:
    values = {"task.prompt.labels": "auto", "task.prompt.names": "auto"}
    found = tasks.resolve(of(CLASSES, reviews, **values))
    assert found.task.prompt.labels == ("0", "1")
    assert found.task.prompt.names == ("bad", "good")
    assert found.task.prompt.context == "review"
    assert tasks.resolve(found) == found
    assert Experiment.model_validate(yaml.safe_load(found.to_yaml())) == found


@pytest.mark.parametrize(
    ("template", "ends", "answer"),
    [
        ("{review} It is", "line", " {reference}\n"),
        ("{review}\nAnswer:\n", "line", "{reference}\n"),
        ("{review}\nAnswer:", "text", " {reference}{end}"),
    ],
)
def test_how_an_answer_is_written(reviews: Path, template: str, ends: str, answer: str) -> None:
    fields = {"task.prompt.template": template, "task.prompt.ends": ends}
    assert benchmark_of(of(TEXT, reviews, **fields).task).answer == answer  # type: ignore


def test_the_context_may_stand_anywhere_and_braces_are_text(reviews: Path) -> None:
    fields = {
        "task.prompt.template": "{{review}} {about}: {review} It was",
        "task.prompt.context": "review",
    }
    e = tasks.resolve(of(CLASSES, reviews, **fields))
    train, _, _ = examples.read(benchmark_of(e.task), e.task, 0)
    row = json.loads((reviews / "train.jsonl").read_text().splitlines()[0])
    prompt, (begin, end) = train.prompts[0], train.contexts[0]
    assert prompt == f"{{review}} {row['about']}: {row['review']} It was"
    assert prompt[begin:end] == row["review"]


@pytest.mark.parametrize(
    ("train", "evaluation", "sizes"),
    [
        ("my-train.jsonl", "my-held.jsonl", (60, 20)),
        ("my-held", "my-train", (20, 60)),
        ("auto", "my-held.jsonl", (60, 20)),  # beside them lies a train.jsonl
    ],
)
def test_splits_by_name(
    reviews: Path, tmp_path: Path, train: str, evaluation: str, sizes: tuple[int, int]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(reviews, data)
    shutil.copy(data / "train.jsonl", data / "my-train.jsonl")
    (data / "validation.jsonl").rename(data / "my-held.jsonl")
    fields = {"task.prompt.train": train, "task.prompt.evaluation": evaluation}
    prepared = tasks.prepare(tasks.resolve(of(CLASSES, data, **fields)))
    assert (len(prepared.labels), len(prepared.arrays["eval_labels"])) == sizes


def test_a_hub_dataset_has_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    asked = []

    def load_dataset(name: str, configuration: str | None) -> dict[str, Any]:
        asked.append((name, configuration))
        table = Dataset.from_list([{"review": "fine", "sentiment": "pos"}])
        return {"train": table, "test": table}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    fields = {"task.prompt.configuration": "small", "task.prompt.evaluation": "test"}
    e = tasks.resolve(of(CLASSES, Path("some/reviews"), **fields))
    train, held, _ = examples.read(benchmark_of(e.task), e.task, 0)
    assert (len(train), len(held), asked) == (1, 1, [("some/reviews", "small")])
    e = e.changed(**{"task.prompt.evaluation": "dev"})
    with pytest.raises(ValueError, match="needs splits train and dev; found train, test"):
        examples.read(benchmark_of(e.task), e.task, 0)


# bad input


@pytest.mark.parametrize(
    ("text", "fields", "words"),
    [
        (CLASSES, {"template": ""}, ["task.prompt.template is missing beside answers"]),
        (CLASSES, {"template": "It was"}, ["template = 'It was' has no column"]),
        (CLASSES, {"template": "{review It was"}, ["braces are not balanced", "is doubled"]),
        (CLASSES, {"template": "{review}} It was"}, ["braces are not balanced", "is doubled"]),
        (CLASSES, {"template": "{} It was"}, ["{} holds no plain column name"]),
        (CLASSES, {"template": "{review!l} was"}, ["{review!l} holds no plain column name"]),
        (CLASSES, {"template": "{review} It was "}, ["ends with a space", "the answer's"]),
        (CLASSES, {"template": "{sentiment} is"}, ["label_column = sentiment", "take it out"]),
        (TEXT, {"template": "{about} is"}, ["answer_column = about stands in the template"]),
        (CLASSES, {"context": "text"}, ["context = text", "choose one of review"]),
        (CLASSES, {"answers": ()}, ["answers or answer_column: neither is given"]),
        (CLASSES, {"answer_column": "about"}, ["answers or answer_column: both are given"]),
        (CLASSES, {"answers": (" bad", "")}, ['answers = [" bad", ""]: one of them is empty']),
        (CLASSES, {"answers": " bad,  "}, ["one of them is empty"]),
        (CLASSES, {"answers": " bad"}, ["give two or more that differ"]),
        (CLASSES, {"answers": " bad, bad"}, ["give two or more that differ"]),
        (CLASSES, {"answers": " bad, so, good"}, ["labels = ", "has 2", "has 3", "same order"]),
        (CLASSES, {"names": "a,b,c"}, ['names = ["a", "b", "c"] has 3', "has 2"]),
        (CLASSES, {"labels": "pos,POS"}, ["a label is empty, or of two classes"]),
        (CLASSES, {"labels": [False, True]}, ["task.prompt.labels: false, true is no text",
                                              "quoted"]),
        (CLASSES, {"answers": '[" bad"'}, ["task.prompt.answers: "]),
        (CLASSES, {"metrics": "f1"}, ["metrics belongs to answer_column; leave it out"]),
        (TEXT, {"labels": "a,b"}, ["labels belongs to answers; leave it out"]),
    ],
)  # fmt: skip
def test_a_prompt_that_cannot_be(
    reviews: Path, text: str, fields: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ValidationError) as caught:
        of(text, reviews, **{f"task.prompt.{name}": value for name, value in fields.items()})
    said = explain(caught.value)
    assert said.startswith("task.prompt.")
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("text", "fields", "words"),
    [
        (TEXT, {"task.prompt.metrics": "bleu"}, "unknown bleu .allowed: exact_match, f1, rouge1"),
        (TEXT, {"task.prompt.metrics": "accuracy"}, "classification is scored by accuracy"),
        (CLASSES, {"task.data": "auto"}, "prompts has no data of its own; give a hub dataset"),
        (CLASSES, {"task.name": "sst2"}, "task.prompt: sst2 has a prompt of its own; leave it out"),
        (CLASSES, {"task.name": "digits", "task.data": "auto", "task.max_length": "auto"},
         "task.prompt: digits does not read it; leave it out"),
        (CLASSES, {"task.metric": "f1"}, "prompts is scored by accuracy"),
        (CLASSES, {"task.max_new_tokens": 5}, "prompts is answered by one token"),
        (CLASSES, {"task.prompt.configuration": "en"}, "en is of hub datasets, and task.data = "),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_task(
    reviews: Path, text: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        tasks.resolve(of(text, reviews, **fields))


def test_a_task_without_a_prompt() -> None:
    with pytest.raises(ValueError, match=r"task.prompt.template is missing: prompts needs"):
        tasks.resolve(Experiment().changed(**{"task.name": "prompts"}))


@pytest.mark.parametrize(
    ("text", "fields", "words"),
    [
        (CLASSES, {"template": "{text} It was"},
         r"\(train\): no column text; it has review, sentiment, about"),
        (CLASSES, {"label_column": "label"}, r"no column label; it has review, sentiment, about"),
        (CLASSES, {"labels": "neg,pos"}, r"unknown label 'positive' in column sentiment; allowed"),
        (CLASSES, {"answers": "bad,good"},
         r"no single, distinct token for each answer: 'bad' → \[.*The space before a word is"),
        (CLASSES, {"evaluation": "test"},
         r"no split test; its files are train.jsonl, validation.jsonl"),
        (CLASSES, {"train": "mine.jsonl"}, r"no split mine.jsonl; its files are train.jsonl, val"),
        (TEXT, {"answer_column": "topic"}, r"row 1: no reference answer in topic; it has review"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_data(
    reviews: Path, text: str, fields: dict[str, Any], words: str
) -> None:
    dotted = {f"task.prompt.{name}": value for name, value in fields.items()}
    with pytest.raises(ValueError, match=words):
        tasks.prepare(tasks.resolve(of(text, reviews, **dotted)))


def test_a_text_to_write_that_is_empty(tmp_path: Path) -> None:
    rows = [{"review": "a", "sentiment": "b", "about": "c"}] * 8
    rows += [{"review": "a", "sentiment": "b", "about": " "}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="row 9: no reference answer in about"):
        tasks.prepare(tasks.resolve(of(TEXT, tmp_path / "train.jsonl")))


def test_a_csv_whose_columns_are_all_others(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("body,label\nfine,1\n")
    with pytest.raises(ValueError, match=r"names none of review, sentiment; .* row is body, label"):
        tasks.prepare(tasks.resolve(of(CLASSES, tmp_path / "train.csv")))
