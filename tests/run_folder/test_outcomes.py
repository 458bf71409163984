"""What a run keeps of each evaluation example, and what of it is for validation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hiso_ray import Experiment, replay, resume, run, tasks
from hiso_ray.cli import main
from hiso_ray.cli.progress import summary_table
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.metrics_reader import read_rows
from hiso_ray.run_folder.summary import Course
from hiso_ray.tasks import evaluation
from hiso_ray.tasks.contract import Prepared

Make = Callable[..., Experiment]
APART = {"task.validation_examples": 101, "task.eval_batch_size": 50}  # of 360 images


def outcomes(folder: Path) -> pa.Table:
    return pq.read_table(folder / "outcomes.parquet")


def about(folder: Path) -> dict[str, str]:
    metadata = outcomes(folder).schema.metadata
    return {name.decode(): value.decode() for name, value in metadata.items()}


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_outcomes_are_those_of_plain_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hiso_ray.tasks.text.reviews import reviews

    e = Experiment().changed(**{
        "task.eval_examples": 40, "task.eval_batch_size": 7, "federation.rounds": 2,
        "resources.executor": "serial",
    })  # fmt: skip
    run(e, tmp_path / "r")
    replay(tmp_path / "r", export=tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    answers = [tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in (" bad", " good")]
    losses, hits = [], []
    for row in reviews("validation")[:40]:
        label = int(row["label"])
        with torch.inference_mode():
            ids = tokenizer(f"{row['text']} It was", return_tensors="pt")["input_ids"]
            logits = model(ids).logits[0, -1, answers]
        losses.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(label))))
        hits.append(float(logits.argmax() == label))
    found = outcomes(tmp_path / "r").to_pydict()
    assert found["split"] == ["test"] * 40
    assert found["example"] == list(range(40))
    assert found["loss"] == pytest.approx(losses, rel=1e-4)
    assert found["accuracy"] == hits
    last = read_rows(tmp_path / "r" / "metrics.csv")[-1]
    assert math.fsum(found["loss"]) / 40 == last["eval_loss"]
    assert sum(hits) / 40 == last["eval_accuracy"]


def test_columns_and_metadata(experiment: Make, tmp_path: Path) -> None:
    summary = run(experiment(**APART), tmp_path / "r")
    schema = outcomes(tmp_path / "r").schema
    kinds = {"split": pa.string(), "example": pa.int64(), "loss": pa.float32()}
    assert dict(zip(schema.names, schema.types, strict=True)) == kinds | {"accuracy": pa.float32()}
    named = about(tmp_path / "r")
    assert named.keys() == {"round", "model_sha256", "evaluation_sha256"}
    assert (named["round"], named["model_sha256"]) == ("6", summary["model_sha256"])
    assert list((tmp_path / "r").glob("*.new")) == []


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("task", ["images", "language"])
def test_serial_and_two_actors_and_replay_agree(
    experiment: Make, language: Make, tmp_path: Path, task: str
) -> None:
    e = experiment(**APART) if task == "images" else language(**{
        "task.validation_examples": 9, "task.eval_batch_size": 7})  # fmt: skip
    run(e, tmp_path / "serial")
    run(e.changed(**{"resources.executor": "ray", "resources.max_actors": 2}), tmp_path / "ray")
    replay(tmp_path / "ray", outcomes=tmp_path / "replayed" / "o.parquet")
    expected = outcomes(tmp_path / "serial")
    for found in (outcomes(tmp_path / "ray"), pq.read_table(tmp_path / "replayed" / "o.parquet")):
        assert found.equals(expected, check_metadata=True)
    names = [name for name in expected.column_names if name not in ("split", "example")]
    last = read_rows(tmp_path / "ray" / "metrics.csv")[-1]
    for split, part in (("validation", "validation"), ("test", "eval")):
        own = expected.filter(pa.compute.equal(expected["split"], split)).to_pydict()
        for name in names:
            assert math.fsum(own[name]) / len(own[name]) == last[f"{part}_{name}"]
    replayed = replay(tmp_path / "serial")
    assert {n: v for n, v in replayed.items() if n in last} == {
        n: last[n] for n in replayed if n in last
    }


def test_a_run_that_is_killed_before_its_outcomes_are_written_has_them_after_all(
    experiment: Make, tmp_path: Path
) -> None:
    run(experiment(), tmp_path / "r")
    expected = outcomes(tmp_path / "r")
    for name in ("outcomes.parquet", "summary.json"):
        (tmp_path / "r" / name).unlink()
    (tmp_path / "r" / "outcomes.parquet.new").write_bytes(b"PAR1")
    resume(tmp_path / "r")
    assert outcomes(tmp_path / "r").equals(expected, check_metadata=True)


def test_a_run_that_is_stopped_and_one_that_goes_further_end_with_the_same_outcomes(
    experiment: Make, tmp_path: Path
) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["round"] == 4:
            raise KeyboardInterrupt

    run(experiment(**APART), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(experiment(**APART), tmp_path / "stopped", stop)
    assert not (tmp_path / "stopped" / "outcomes.parquet").exists()
    resume(tmp_path / "stopped")
    run(experiment(**APART, **{"federation.rounds": 3}), tmp_path / "further")
    assert about(tmp_path / "further")["round"] == "3"
    replay(tmp_path / "whole", round_=3, outcomes=tmp_path / "third.parquet")
    third = pq.read_table(tmp_path / "third.parquet")
    assert third.equals(outcomes(tmp_path / "further"), check_metadata=True)
    resume(tmp_path / "further", changes={"federation.rounds": 6})
    for name in ("stopped", "further"):
        assert outcomes(tmp_path / name).equals(outcomes(tmp_path / "whole"), check_metadata=True)
        scores = [name for name in summary_of(tmp_path / name) if "score" in name]
        for score in scores:
            assert summary_of(tmp_path / name)[score] == summary_of(tmp_path / "whole")[score]


def test_the_quadratic_has_one_example(experiment: Make, tmp_path: Path) -> None:
    run(experiment(**{"task.name": "quadratic", "task.model": "auto"}), tmp_path / "r")
    (row,) = outcomes(tmp_path / "r").to_pylist()
    last = read_rows(tmp_path / "r" / "metrics.csv")[-1]
    scores = {"loss": last["eval_loss"], "accuracy": last["eval_accuracy"]}
    assert row == {"split": "test", "example": 0} | scores


def test_methods_that_send_weights_have_outcomes_too(experiment: Make, tmp_path: Path) -> None:
    run(experiment(**{"method.name": "fedavg", "method.num_perturbations": 5}), tmp_path / "r")
    replay(tmp_path / "r", outcomes=tmp_path / "o.parquet")
    again = pq.read_table(tmp_path / "o.parquet")
    assert again.equals(outcomes(tmp_path / "r"), check_metadata=True)


def test_the_command_line_writes_the_outcomes_of_a_round(
    experiment: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(experiment(**APART), tmp_path / "r")
    rows = {row["round"]: row for row in read_rows(tmp_path / "r" / "metrics.csv")}
    file = tmp_path / "o.parquet"
    command = ["replay", str(tmp_path / "r"), "--round", "3", "--outcomes", str(file)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"round 3: accuracy {rows[3]['eval_accuracy']:.2%}, loss" in said
    assert f"validation: accuracy {rows[3]['validation_accuracy']:.2%}, loss" in said
    found = pd.read_parquet(file)
    assert found["accuracy"][found["split"] == "test"].mean() == pytest.approx(
        rows[3]["eval_accuracy"]
    )
    assert main(command) == 2
    assert f"{file} exists; choose a new file" in capsys.readouterr().err


# the examples' digest


def test_the_digest_is_of_the_examples_alone(experiment: Make, language: Make) -> None:
    def digest(e: Experiment) -> str:
        return evaluation.digest(tasks.prepare(tasks.resolve(e)))

    for make, other_model in ((experiment, "mlp-9"), (language, None)):
        base = digest(make())
        same: list[dict[str, Any]] = [
            {"seed": 3}, {"task.eval_batch_size": 3}, {"task.validation_examples": 7},
            {"task.train_examples": 40}, {"method.lr": 0.1},
        ]  # fmt: skip
        same += [{"task.model": other_model}] if other_model else [{"task.lora.r": 2}]
        for changed in same:
            assert digest(make(**changed)) == base, changed
        assert digest(make(**{"task.eval_examples": 39})) != base


def test_the_digest_knows_ids_labels_and_references() -> None:
    def digest(references: list[list[str]], **changed: np.ndarray) -> str:
        arrays = {"eval_prompt_ids": np.arange(4, dtype=np.int32), "eval_labels": np.zeros(2)}
        arrays |= {"train_labels": np.zeros(3), "eval_tokenizer": np.zeros(1)}
        spec = {"evaluation": {"stops": [1], "references": references}}
        nothing = np.empty(0)
        return evaluation.digest(Prepared(spec, arrays | changed, nothing, nothing, ()))

    base = digest([["a"], ["b"]])
    assert digest([["a"], ["b"]], train_labels=np.ones(3), eval_tokenizer=np.ones(9)) == base
    others = [
        digest([["a"], ["c"]]),
        digest([["a"], ["b"]], eval_labels=np.ones(2)),
        digest([["a"], ["b"]], eval_prompt_ids=np.arange(4, dtype=np.int64)),
        digest([["a"], ["b"]], eval_prompt_ids=np.arange(4, dtype=np.int32).reshape(2, 2)),
    ]
    assert len({base, *others}) == 5


# validation


def test_validation_examples_are_the_first_and_change_no_weights(
    experiment: Make, tmp_path: Path
) -> None:
    whole = run(experiment(**{"task.eval_batch_size": 50}), tmp_path / "whole")
    apart = run(experiment(**APART), tmp_path / "apart")
    assert apart["model_sha256"] == whole["model_sha256"]
    headers = [Ledger.read(tmp_path / n / "ledger.jsonl").header for n in ("whole", "apart")]
    eval_batches = [header.pop("eval_batches") for header in headers]
    assert headers[0] == headers[1]
    assert eval_batches == [8, 3 + 6]
    one, two = (outcomes(tmp_path / name).to_pydict() for name in ("whole", "apart"))
    assert two["split"] == ["validation"] * 101 + ["test"] * 259
    assert two["accuracy"] == one["accuracy"]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)  # other batches, other last bits
    assert about(tmp_path / "whole") == about(tmp_path / "apart")
    for row, before in zip(
        *(read_rows(tmp_path / name / "metrics.csv") for name in ("apart", "whole")), strict=True
    ):
        assert before["validation_accuracy"] is before["validation_loss"] is None
        if row["eval_accuracy"] is None:
            assert row["validation_accuracy"] is None
            continue
        hits = 101 * row["validation_accuracy"] + 259 * row["eval_accuracy"]
        assert hits == pytest.approx(360 * before["eval_accuracy"])
    last = read_rows(tmp_path / "apart" / "metrics.csv")[-1]
    assert apart["final_score"] == last["eval_accuracy"]
    assert apart["final_validation_score"] == last["validation_accuracy"]
    shown = [list(summary_table(s, "r").columns[0].cells) for s in (apart, whole)]
    assert ["on validation" in names for names in shown] == [True, False]
    absent = ("final_validation_score", "best_validation_score", "score_at_best_validation")
    assert [whole[name] for name in absent] == [None] * 3


def test_of_equal_validation_scores_the_earliest_counts() -> None:
    course = Course()
    for round_, (validation, test) in enumerate([(0.5, 0.1), (0.75, 0.2), (0.75, 0.9), (0.6, 0.8)]):
        course.add({"round": round_, "validation_accuracy": validation, "eval_accuracy": test})
        course.add({"round": round_, "validation_accuracy": None, "eval_accuracy": None})
    assert course.of_validation("accuracy") == {
        "final_validation_score": 0.6,
        "best_validation_score": 0.75,
        "score_at_best_validation": 0.2,
    }
    assert course.of("accuracy", "score")["best_score"] == 0.9


@pytest.mark.parametrize(
    ("examples", "size", "apart", "sizes"),
    [
        (10, 4, 0, [4, 4, 2]),
        (10, 4, 4, [4, 4, 2]),
        (10, 4, 5, [4, 1, 4, 1]),
        (10, 4, 9, [4, 4, 1, 1]),
        (10, 64, 3, [3, 7]),
        (0, 4, 0, []),
    ],
)
def test_no_batch_is_of_both_parts(examples: int, size: int, apart: int, sizes: list[int]) -> None:
    config = Experiment().changed(
        **{"task.eval_batch_size": size, "task.validation_examples": apart}
    )
    batches = evaluation.batches(config.task, examples)
    assert [len(batch) for batch in batches] == sizes
    assert [i for batch in batches for i in batch] == list(range(examples))
    assert not any(batch.start < apart < batch.stop for batch in batches)


@pytest.mark.parametrize("given", [360, 400])
def test_validation_that_leaves_no_test_is_refused(experiment: Make, given: int) -> None:
    words = rf"validation_examples = {given}: there are 360 evaluation examples.*give 359 at most"
    with pytest.raises(ValueError, match=words):
        tasks.load(tasks.resolve(experiment(**{"task.validation_examples": given})))


def test_validation_counts_after_the_evaluation_examples(language: Make) -> None:
    e = language(**{"task.eval_examples": 12, "task.validation_examples": 12})
    with pytest.raises(ValueError, match=r"there are 12 evaluation examples.*give 11 at most"):
        tasks.load(tasks.resolve(e))


def test_the_quadratic_has_no_validation(experiment: Make) -> None:
    quadratic = {"task.name": "quadratic", "task.model": "auto", "task.validation_examples": 1}
    with pytest.raises(ValueError, match=r"task.validation_examples: quadratic does not read it"):
        tasks.resolve(experiment(**quadratic))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task.validation_examples", 7),
        ("task.eval_examples", 50),
        ("task.eval_batch_size", 7),
        ("task.metric", "f1"),
        ("task.max_new_tokens", 3),
    ],
)
def test_resume_does_not_mix_two_ways_of_scoring(
    experiment: Make, tmp_path: Path, field: str, value: Any
) -> None:
    run(experiment(), tmp_path / "r")
    before = (tmp_path / "r" / "config.yaml").read_text()
    with pytest.raises(ValueError, match=f"{field} = {value}: the rounds so far were scored with"):
        resume(tmp_path / "r", changes={field: value, "federation.rounds": 8})
    assert (tmp_path / "r" / "config.yaml").read_text() == before
    own = {"task.eval_batch_size": 64, "task.metric": "accuracy", "federation.rounds": 8}
    assert resume(tmp_path / "r", changes=own)["rounds"] == 8


# leakage


def test_an_evaluation_split_that_was_trained_on_is_refused(
    language: Make, text_data: Path, tmp_path: Path
) -> None:
    lines = (text_data / "train.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.tsv").write_text("".join(lines))
    (tmp_path / "data" / "dev.tsv").write_text("".join(lines[20:60]))
    e = language(**{"task.data": str(tmp_path / "data")})
    said = r"all 40 evaluation examples are training examples too.* or raise task\.max_length = \d+"
    with pytest.raises(ValueError, match=said):
        run(e, tmp_path / "r")
    assert not (tmp_path / "r").exists()
    (tmp_path / "data" / "dev.tsv").write_text("".join(["a new film\t1\n", *lines[21:24]]))
    notes: list[str] = []
    run(e.changed(**{"federation.rounds": 1}), tmp_path / "r", on_note=notes.append)
    said = "3 of 4 evaluation examples (75.0%) are training examples too"
    assert sum(said in note for note in notes) == 1


def test_images_that_were_trained_on_are_counted_too(experiment: Make) -> None:
    prepared = tasks.prepare(tasks.resolve(experiment()))
    config = experiment().task
    assert evaluation.seen(config, prepared) == ()
    prepared.arrays["eval_x"] = np.concatenate(
        [prepared.arrays["train_x"][:3], prepared.arrays["eval_x"][:1]]
    )
    (note,) = evaluation.seen(config, prepared)
    assert note.startswith("3 of 4 evaluation examples (75.0%) are training examples too")
