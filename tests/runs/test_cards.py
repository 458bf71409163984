"""Model cards: what they say is the run's, and the code in them works."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from hiso_ray import Experiment, __version__, replay, run
from hiso_ray.config import read_yaml
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.runs import card
from hiso_ray.runs.card.facts import Facts
from hiso_ray.runs.card.markdown import block, code, table
from hiso_ray.tasks.exported import Exported
from hiso_ray.tasks.images.vision import ImageTask
from hiso_ray.tasks.pretrained.origin import Base, Licence

Make = Callable[..., Experiment]
SHORT = {"federation.rounds": 3, "method.lr": 0.01, "tracking": []}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def loaded(folder: Path) -> dict[str, Any]:
    """The variables that the card's code leaves."""
    (text,) = blocks((folder / "README.md").read_text(), "python")
    variables: dict[str, Any] = {}
    exec(text, variables)
    return variables


@pytest.mark.parametrize(
    ("dotted", "merge", "kind"),
    [
        ({"task.lora.r": 2, "method.lr": 0.1}, False, "PeftModelForCausalLM"),
        ({"task.lora.r": 2, "method.lr": 0.1}, True, "OPTForCausalLM"),
        ({}, False, "OPTForCausalLM"),
    ],
    ids=["adapter", "merged", "plain"],
)
def test_a_language_model_is_loaded_by_its_cards_code(
    language: Make, text_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    dotted: dict[str, Any], merge: bool, kind: str,
) -> None:  # fmt: skip
    run(language(**(SHORT | dotted)), tmp_path / "r")
    found = replay(tmp_path / "r", export=tmp_path / "out" / "model", merge=merge)
    assert found["eval_loss"] != pytest.approx(replay(tmp_path / "r", 0)["eval_loss"], abs=1e-4)
    monkeypatch.chdir(tmp_path / "out")
    variables = loaded(tmp_path / "out" / "model")
    model, tokenizer = variables["model"].eval(), variables["tokenizer"]
    assert type(model).__name__ == kind
    answers = [tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in (" bad", " good")]
    losses = []
    for line in (text_data / "dev.tsv").read_text().splitlines():
        text, label = line.split("\t")
        ids = tokenizer(f"{text} It was", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, -1, answers]
        losses.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(int(label)))))
    assert sum(losses) / len(losses) == pytest.approx(found["eval_loss"], rel=1e-5)


def test_an_image_model_is_loaded_by_its_cards_code(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    run(experiment(**SHORT), tmp_path / "r")
    found = replay(tmp_path / "r", export=tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    network = loaded(tmp_path / "model")["network"]
    images, labels = load_digits(return_X_y=True)
    _, images, _, labels = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=0
    )
    with torch.inference_mode():
        logits = network(torch.tensor(images / 16).float().view(-1, 1, 8, 8))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    assert float(loss) == pytest.approx(found["eval_loss"], rel=1e-5)
    text = (tmp_path / "model" / "README.md").read_text()
    assert "(n, 1, 8, 8) float32: (pixels - mean) / std" in text
    assert "pixels are 0 to 1`" in text


def test_a_card_says_what_the_run_was(
    language: Make, tiny_opt: Path, text_data: Path, tmp_path: Path
) -> None:
    e = language(**SHORT, **{"task.validation_examples": 8, "task.lora.r": 2})
    run(e, tmp_path / "r")
    start, found = replay(tmp_path / "r", 0), replay(tmp_path / "r", export=tmp_path / "model")
    made = ModelCard.load(tmp_path / "model" / "README.md")
    data = made.data.to_dict()
    assert data["library_name"] == "peft"
    assert data["pipeline_tag"] == "text-generation"
    assert {"hiso-ray", "hiso", "federated-learning", "lora"} < set(data["tags"])
    assert not {"base_model", "datasets", "license"} & set(data)  # of files of this machine
    ((result,),) = (entry["results"] for entry in data["model-index"])
    assert result["task"]["type"] == "text-classification"
    assert {m["type"]: m["value"] for m in result["metrics"]} == {
        "loss": found["eval_loss"], "accuracy": found["eval_accuracy"],
    }  # fmt: skip
    text = made.text
    for part, number in (("eval", 32), ("validation", 8)):
        called = {"eval": "test"}.get(part, part)
        for when, scores in (("before training", start), ("after round 3", found)):
            loss, accuracy = scores[f"{part}_loss"], scores[f"{part}_accuracy"]
            row = f"| {called}, {number} examples | {when} | {loss:.4f} | {accuracy:.4f} |"
            assert row in text
    ledger = Ledger.read(tmp_path / "r" / "ledger.jsonl")
    last = (tmp_path / "r" / "ledger.jsonl").read_text().splitlines()[3]
    assert ledger.check(3) in last
    for fact in (found["model_sha256"], ledger.check(3), f"version {__version__}",
                 tiny_opt.name, text_data.name, "arXiv 2506.02370", "12 that hold 80 training",
                 "hiso-ray replay r --round 3 --export model", "{text} It was"):  # fmt: skip
        assert fact in text, fact
    assert "no licence of the base model" in text
    whole = (tmp_path / "model" / "README.md").read_text()
    for path in (tmp_path, tiny_opt.parent, text_data.parent):
        assert str(path) not in whole
    (settings,) = blocks(text, "yaml")
    there = Experiment.model_validate(yaml.safe_load(settings))
    mine = Experiment.model_validate(read_yaml(tmp_path / "r" / "config.yaml"))
    assert there.digest() == mine.digest()


def test_bytes_are_those_of_the_round(experiment: Make, tmp_path: Path) -> None:
    summary = run(experiment(), tmp_path / "r")
    replay(tmp_path / "r", export=tmp_path / "last")
    replay(tmp_path / "r", 3, export=tmp_path / "third")
    replay(tmp_path / "r", 0, export=tmp_path / "start")
    last, third, start = (
        (tmp_path / name / "README.md").read_text() for name in ("last", "third", "start")
    )
    up, down, paper = (
        summary[name] for name in ("uplink_bytes", "downlink_bytes", "paper_bytes_per_client")
    )
    assert f"{up:,} up, {down:,} down" in last
    assert f"| {paper:,}, by the rule" in last
    assert f"{up // 2:,} up" in third
    assert f"| {paper // 2:,}, by the rule" in third
    assert "before training" not in start
    assert "| 0, by the rule" in start


def test_a_task_that_says_nothing_of_its_export_has_a_card(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(experiment(**SHORT), tmp_path / "r")
    export = ImageTask.export
    monkeypatch.setattr(ImageTask, "export", lambda *given: [export(*given), None][1])
    replay(tmp_path / "r", export=tmp_path / "model")
    made = ModelCard.load(tmp_path / "model" / "README.md")
    assert not {"license", "library_name", "pipeline_tag"} & set(made.data.to_dict())
    assert "Loading" not in made.text
    assert made.text.endswith("## Licence\n\nNot known.\n")


def test_scores_of_other_examples_are_not_compared(language: Make, tmp_path: Path) -> None:
    rows = "".join(f"a film {i}\t{i % 2}\n" for i in range(40))
    (tmp_path / "train.tsv").write_text(rows)
    (tmp_path / "dev.tsv").write_text(rows.replace("film", "book"))
    run(language(**SHORT, **{"task.data": str(tmp_path)}), tmp_path / "r")
    (tmp_path / "dev.tsv").write_text(rows.replace("film", "play"))
    replay(tmp_path / "r", export=tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text()
    assert "after round 3" in text
    assert "before training" not in text


def test_names_and_prompts_of_any_text_stay_in_their_places(
    language: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / 'a: `b` | "c" # ```d'
    folder.mkdir()
    rows = [f"a film {i},{i % 2}" for i in range(60)]
    data = folder / "---: [x].csv"
    data.write_text("\n".join(["review,label", *rows]))
    own = {
        "task.name": "prompts",
        "task.data": str(data),
        "task.prompt.template": "Review | `x` ```\n---\n# {review} <b>It</b> was",
        "task.prompt.answers": (" bad", " good"),
    }
    run(language(**SHORT, **own), folder / "r")
    replay(folder / "r", export=folder / 'm`o`d | é"el')
    monkeypatch.chdir(folder)
    text = (folder / 'm`o`d | é"el' / "README.md").read_text(encoding="utf-8")
    made = ModelCard(text)
    assert made.data.to_dict()["model-index"][0]["name"] == 'm`o`d | é"el'
    assert made.data.to_dict()["model-index"][0]["results"][0]["dataset"]["type"] == data.name
    assert type(loaded(folder / 'm`o`d | é"el')["model"]).__name__ == "OPTForCausalLM"
    assert "| prompt | ````Review \\| `x` ```\\n---\\n# {review} <b>It</b> was```` |" in text
    assert str(tmp_path) not in text
    (settings,) = re.findall(r"^````yaml\n(.*?)^````$", text, re.MULTILINE | re.DOTALL)
    assert yaml.safe_load(settings)["task"]["prompt"]["template"] == own["task.prompt.template"]


def test_models_and_data_of_a_hub_are_named_for_it(
    language: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    licence = Licence("other", "as the card of the base model states", "opt", "https://a.b/c")
    base = Base("facebook/opt-125m", "facebook/opt-125m", licence)
    monkeypatch.setattr("hiso_ray.tasks.language.causal.origin", lambda _: base)
    wrote: list[Facts] = []

    def write(folder: Path, exported: Exported, facts: Facts) -> None:
        of_hub = facts.experiment.changed(**{"task.data": "nyu-mll/glue"})
        wrote.append(replace(facts, experiment=of_hub, name="it", repository="me/it"))
        card.write(folder, exported, wrote[0])

    monkeypatch.setattr("hiso_ray.runs.export.card", SimpleNamespace(write=write))
    run(language(**SHORT, **{"task.lora.r": 2}), tmp_path / "r")
    replay(tmp_path / "r", export=tmp_path / "model")
    made = ModelCard.load(tmp_path / "model" / "README.md")
    data = made.data.to_dict()
    assert (data["base_model"], data["datasets"]) == ("facebook/opt-125m", ["nyu-mll/glue"])
    assert (data["license"], data["license_name"]) == ("other", "opt")
    assert data["license_link"] == "https://a.b/c"
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == "nyu-mll/glue"
    assert 'name = "me/it"' in made.text
    assert "`opt`, https://a.b/c: as the card of the base model states." in made.text
    assert "adapter_config.json" not in made.text  # its base model is wherever the hub is


def test_markdown() -> None:
    assert code("a") == "`a`"
    assert code("`a") == "`` `a ``"
    assert code("a``b\nc") == "```a``b\\nc```"
    assert block("", "a\n") == "```\na\n```"
    assert block("python", "```") == "````python\n```\n````"
    assert table(("a", "b"), [("c|d", "e")]) == "| a | b |\n| --- | --- |\n| c\\|d | e |"


def test_a_merge_is_refused_before_the_replay_where_there_is_nothing_to_merge(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(experiment(**SHORT), tmp_path / "r")
    monkeypatch.setattr("hiso_ray.runs.rebuild.settle", lambda *_, **__: pytest.fail("it began"))
    with pytest.raises(ValueError, match=r"no adapters \(task.lora.r = 0\).*leave merge out"):
        replay(tmp_path / "r", export=tmp_path / "model", merge=True)
    with pytest.raises(ValueError, match="nothing to merge without an export"):
        replay(tmp_path / "r", merge=True)
