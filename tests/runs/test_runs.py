"""Run folders: what is in them, replay, export, and folders that will not do."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hiso_ray import Experiment, replay, run
from hiso_ray.run_folder.folder import read_experiment
from hiso_ray.run_folder.ledger import LedgerError

Make = Callable[..., Experiment]


def test_the_written_configuration_reproduces_the_digest(experiment: Make, tmp_path: Path) -> None:
    first = run(experiment(seed=4), tmp_path / "a")
    text = (tmp_path / "a" / "config.yaml").read_text()
    assert text.startswith("# hiso-ray==")
    assert "torch==" in text.splitlines()[0]
    again = run(read_experiment(tmp_path / "a"), tmp_path / "b")
    assert again["model_sha256"] == first["model_sha256"]


def test_replay_confirms_the_digest_and_travels_in_time(experiment: Make, tmp_path: Path) -> None:
    summary = run(experiment(), tmp_path / "r")
    end = replay(tmp_path / "r")
    assert end["matches"] is True
    assert end["model_sha256"] == summary["model_sha256"]
    assert end["eval_accuracy"] == summary["final_accuracy"]
    start = replay(tmp_path / "r", round_=0)
    assert start["eval_accuracy"] == summary["initial_accuracy"]
    assert start["matches"] is None
    with pytest.raises(ValueError, match="choose 0 to 6"):
        replay(tmp_path / "r", round_=7)
    path = tmp_path / "r" / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    notes: list[str] = []
    assert replay(tmp_path / "r", on_note=notes.append)["round"] == 5
    assert any("torn record" in note for note in notes)


def test_an_altered_summary_is_noticed(experiment: Make, tmp_path: Path) -> None:
    digest = run(experiment(), tmp_path / "r")["model_sha256"]
    path = tmp_path / "r" / "summary.json"
    path.write_text(path.read_text().replace(digest, "0" * 64))
    assert replay(tmp_path / "r")["matches"] is False


def test_lr_travels_in_the_record(experiment: Make, tmp_path: Path) -> None:
    # Trap: a schedule kept in optimizer state desynchronises client and server.
    from hiso_ray.execution.worker import Worker
    from hiso_ray.messages import Missed
    from hiso_ray.run_folder.ledger import Ledger
    from hiso_ray.tasks import load, resolve

    run(experiment(), tmp_path / "r")
    e = resolve(experiment())
    prepared, partition = load(e)
    (record, *_) = Ledger.read(tmp_path / "r" / "ledger.jsonl").records
    moved = []
    for lr in (record.lr, 2 * record.lr):
        worker = Worker(e, prepared, partition)
        worker.catch_up(Missed(1, [type(record)(**{**vars(record), "lr": lr})]))
        moved.append(worker.replica.state.x - torch.tensor(prepared.x0))
    assert torch.allclose(moved[1], 2 * moved[0], atol=1e-6)


def test_an_export_scores_the_same_with_plain_transformers(
    language: Make, text_data: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    summary = run(language(**{"federation.rounds": 20, "method.lr": 0.01}), tmp_path / "r")
    replay(tmp_path / "r", export=tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    answers = [tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in (" bad", " good")]
    lines = [line.split("\t") for line in (text_data / "dev.tsv").read_text().splitlines()]
    correct = 0
    for text, label in lines:
        ids = tokenizer(f"{text} It was", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            correct += int(model(ids).logits[0, -1, answers].argmax()) == int(label)
    assert correct / len(lines) == summary["final_accuracy"]
    with pytest.raises(FileExistsError):
        replay(tmp_path / "r", export=tmp_path / "model")


@pytest.mark.usefixtures("pictures")
def test_partition_csv_accounts_for_every_example(experiment: Make, tmp_path: Path) -> None:
    run(experiment(), tmp_path / "r")
    with open(tmp_path / "r" / "partition.csv") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["client", "examples", *map(str, range(10))]
    table = np.array(rows, int)
    assert table[:, 1].sum() == 1437
    assert (table[:, 2:].sum(1) == table[:, 1]).all()
    assert (tmp_path / "r" / "partition.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_that_holds_a_run_is_not_touched(experiment: Make, tmp_path: Path) -> None:
    run(experiment(), tmp_path / "r")
    before = {p: p.read_bytes() for p in (tmp_path / "r").iterdir() if p.is_file()}
    with pytest.raises(FileExistsError, match=r"already holds a run.* resume"):
        run(experiment(), tmp_path / "r")
    assert before == {p: p.read_bytes() for p in (tmp_path / "r").iterdir() if p.is_file()}


def test_a_folder_where_a_run_failed_before_its_first_round_is_used_again(
    experiment: Make, tmp_path: Path
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match="is not empty"):
        run(experiment(), tmp_path / "r")
    (tmp_path / "r" / "notes.txt").unlink()
    for name in ("config.yaml", "partition.csv", "faults.jsonl"):
        (tmp_path / "r" / name).write_text("of the start that failed\n")
    summary = run(experiment(), tmp_path / "r")
    assert summary["faults"] == 0
    assert (tmp_path / "r" / "partition.csv").read_text().startswith("client,examples")


def test_a_mistake_found_before_the_first_round_leaves_no_folder(
    experiment: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="at most 1437"):
        run(experiment(**{"federation.num_clients": 2000}), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_changed_model_is_noticed(language: Make, tiny_opt: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_opt, tmp_path / "opt")
    run(language(**{"task.model": str(tmp_path / "opt")}), tmp_path / "r")
    tensors = load_file(tmp_path / "opt" / "model.safetensors")
    tensors["model.decoder.embed_tokens.weight"] += 1e-3
    save_file(tensors, tmp_path / "opt" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LedgerError, match="another x0"):
        replay(tmp_path / "r")


@pytest.mark.parametrize(
    ("dtype", "mu", "warned"),
    [("float32", 1e-5, False), ("bfloat16", 1e-3, True), ("bfloat16", 1e-2, False),
     ("float16", 1e-4, True), ("float16", 1e-3, False)],
)  # fmt: skip
def test_a_step_that_half_precision_hides_is_said(
    experiment: Make, tmp_path: Path, dtype: str, mu: float, warned: bool
) -> None:
    notes: list[str] = []
    e = experiment(**{"task.dtype": dtype, "method.mu": mu, "federation.rounds": 1})
    run(e, tmp_path / "r", on_note=notes.append)
    assert any("warning" in note and "use method.mu" in note for note in notes) == warned


@pytest.mark.parametrize(
    ("method", "p", "curvature", "warned"),
    [("hiso", 1, "diagonal", True), ("hiso", 2, "diagonal", False), ("hiso", 1, "scalar", False),
     ("hizoo", 2, "row", True)],
)  # fmt: skip
def test_signs_that_make_h_one_number_are_said(
    experiment: Make, tmp_path: Path, method: str, p: int, curvature: str, warned: bool
) -> None:
    notes: list[str] = []
    own = {"method.name": method, "method.num_perturbations": p, "method.curvature": curvature}
    e = experiment(**own, **{"method.distribution": "rademacher", "federation.rounds": 2})
    run(e, tmp_path / "r", on_note=notes.append)
    assert any("same number for every weight" in note for note in notes) == warned
    if warned:
        *_, last = csv.DictReader(open(tmp_path / "r" / "metrics.csv"))
        assert float(last["h_max"]) == pytest.approx(float(last["h_min"]), rel=1e-5)


def test_a_method_without_differences_is_not_warned_of_them(
    experiment: Make, tmp_path: Path
) -> None:
    notes: list[str] = []
    own = {"method.name": "fedavg", "method.num_perturbations": 5, "task.dtype": "bfloat16"}
    run(experiment(**own, **{"federation.rounds": 1}), tmp_path / "r", on_note=notes.append)
    assert not any("method.mu" in note for note in notes)


def test_what_a_run_is_identified_by(
    language: Make, tiny_opt: Path, text_data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import shutil

    import transformers

    from hiso_ray.runs.setting import settle

    def identity(**dotted: str | int) -> dict[str, str]:
        return settle(language(**dotted)).identity

    base = identity()
    assert identity() == base  # the tokens come from the cache now
    for same in (
        {"task.model": str(shutil.copytree(tiny_opt, tmp_path / "moved"))},
        {"task.data": str(shutil.copytree(text_data, tmp_path / "data"))},
        {"task.eval_examples": 7},
        {"task.eval_batch_size": 3},
    ):
        assert identity(**same) == base, same
    for other in ({"task.train_examples": 50}, {"federation.by": "length"}, {"task.lora.r": 1}):
        assert identity(**other) != base, other
    monkeypatch.setattr(transformers.configuration_utils, "__version__", "9.9.9")
    assert identity() == base


def test_a_changed_column_of_groups_is_noticed(language: Make, tmp_path: Path) -> None:
    rows = [f"text {i},{i % 2},{'ab'[i % 3 > 0]}" for i in range(60)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label,topic", *rows]))
    (tmp_path / "dev.csv").write_text("text,label\nanother text,0\n")
    e = language(**{"task.data": str(tmp_path), "federation.by": "topic"})
    run(e, tmp_path / "r")
    assert replay(tmp_path / "r")["matches"] is True
    rows[0] = rows[0].replace(",a", ",b")
    (tmp_path / "train.csv").write_text("\n".join(["text,label,topic", *rows]))
    with pytest.raises(LedgerError, match="another data"):
        replay(tmp_path / "r")
