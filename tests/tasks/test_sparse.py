"""Sparse masks, by any rule, of any task that has one."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hiso_ray import Experiment, replay, resume, run, tasks
from hiso_ray.cli.commands import main
from hiso_ray.run_folder import mask_file
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
        with pytest.raises(ValueError, match=r"of 610 weights .* none; give 0\.002"):
            function(e)


SENSITIVITY = {"task.sparse_by": "sensitivity", "task.sparse_fraction": 0.02}
ON_DIGITS = SENSITIVITY | {"task.validation_examples": 10}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    lines = ["a warm film", "", "number 7 was a very dull film", "it was very very very good"]
    file.write_text("\n".join(lines))
    return file


def by_hand(folder: Path, losses: Callable[[Any, Any], Iterable[Tensor]]) -> Tensor:
    """Squared gradients of some losses of a saved model, summed, in its parameters' order."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    total = None
    for loss in losses(model, AutoTokenizer.from_pretrained(folder)):
        slopes = torch.autograd.grad(loss, list(model.parameters()))
        square = torch.cat([slope.flatten() for slope in slopes]).square()
        total = square if total is None else total + square
    assert total is not None
    return total


def check_largest(index: np.ndarray, squares: Tensor) -> None:
    inside = torch.zeros(len(squares), dtype=torch.bool)
    inside[index] = True
    assert len(index) == round(0.02 * len(squares))
    assert squares[inside].min() >= squares[~inside].max() * (1 - 1e-4)  # which has other last bits


def test_passages_keep_the_weights_that_plain_autograd_finds(
    language: Make, tiny_opt: Path, text: Path
) -> None:
    def losses(model: Any, tokenizer: Any) -> Iterable[Tensor]:
        for line in text.read_text().splitlines():
            if line:
                ids = tokenizer(line, return_tensors="pt")["input_ids"]
                yield model(input_ids=ids, labels=ids).loss

    prepared = built(language(**SENSITIVITY, **{"task.sparse_text": str(text)}))[1]
    check_largest(prepared.arrays["mask/index"], by_hand(tiny_opt, losses))


def test_validation_examples_do_and_the_test_does_not(
    language: Make, tiny_opt: Path, text_data: Path
) -> None:
    e = language(**SENSITIVITY, **{"task.validation_examples": 5})
    lines = (text_data / "dev.tsv").read_text().splitlines()[:5]

    def losses(model: Any, tokenizer: Any) -> Iterable[Tensor]:
        for line in lines:
            said, label = line.split("\t")
            ids = tokenizer(f"{said} It was", return_tensors="pt")["input_ids"]
            logits = model(input_ids=ids).logits[0, -1:, prepared.spec["answers"]]
            yield torch.nn.functional.cross_entropy(logits, torch.tensor([int(label)]))

    prepared = built(e)[1]
    check_largest(prepared.arrays["mask/index"], by_hand(tiny_opt, losses))


@pytest.mark.parametrize("kind", ["generation", "patterns", "bfloat16"])
def test_passages_of_any_language_task(
    language: Make, boats: Path, tiny_opt: Path, text: Path, kind: str
) -> None:
    dotted = {
        "generation": {"task.name": "squad", "task.data": str(boats), "task.max_length": 60,
                       "task.max_new_tokens": 5},
        "patterns": {"task.trainable": "*layers.1.*"},
        "bfloat16": {"task.dtype": "bfloat16"},
    }[kind]  # fmt: skip
    task, prepared = built(language(**SENSITIVITY, **dotted, **{"task.sparse_text": str(text)}))
    assert task.layout
    if kind == "patterns":
        assert all("layers.1." in name for name, _ in task.layout)
    x = torch.tensor(prepared.x0).to(task._dtype)
    assert np.isfinite(task.losses(x, [task.batch(np.arange(4))])).all()


def test_a_run_keeps_its_mask_and_every_way_ends_at_the_same_weights(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = experiment(**ON_DIGITS, **{"federation.dropout": 0.3})
    said: list[str] = []
    whole = run(e, tmp_path / "whole", on_note=said.append)
    assert any("on 10 validation examples, 48 bytes, once to each client" in s for s in said)

    def interrupt(row: dict[str, Any]) -> None:
        if row["round"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(e, tmp_path / "torn", interrupt)

    def elsewhere(*_: Any) -> Any:  # what another machine's last bits might choose
        raise AssertionError("the mask is measured again")

    monkeypatch.setattr(sparse, "squared_gradients", elsewhere)
    assert resume(tmp_path / "torn")["model_sha256"] == whole["model_sha256"]
    assert replay(tmp_path / "whole")["model_sha256"] == whole["model_sha256"]
    file = tmp_path / "whole" / "mask.safetensors"
    for other, words in (
        (range(12), "another x0"), ([3, 2], "no ascending"), ([700], "a weight 700, .* 610")
    ):  # fmt: skip
        file.unlink()
        mask_file.write(tmp_path / "whole", np.array(other))
        with pytest.raises(ValueError, match=words):
            replay(tmp_path / "whole")
    file.write_bytes(b"torn")
    with pytest.raises(ValueError, match="cannot be read"):
        replay(tmp_path / "whole")


def test_each_client_gets_the_mask_once(experiment: Make, tmp_path: Path) -> None:
    """Trap: one that drops out has got it too."""
    folders = {name: tmp_path / name for name in ("plain", "masked")}
    dropping = {"federation.dropout": 0.3}
    run(experiment(**dropping, **{"task.validation_examples": 10}), folders["plain"])
    summary = run(experiment(**ON_DIGITS, **dropping), folders["masked"])
    d, whole = 12, 64 * 8 + 8 + 80 + 10
    once = min(math.ceil(whole / 8), 4 * d)
    plain, masked = (
        list(csv.DictReader((folder / "clients.csv").read_text().splitlines()))
        for folder in folders.values()
    )
    for one, other in zip(plain, masked, strict=True):
        more = int(other["downlink_bytes"]) - int(one["downlink_bytes"])
        assert more == once * (int(one["sampled"]) > 0)
        assert other["uplink_bytes"] == one["uplink_bytes"]
    assert sum(int(one["sampled"]) == 0 for one in plain) > 0
    assert summary["downlink_bytes"] == sum(int(one["downlink_bytes"]) for one in masked)


@pytest.mark.parametrize(("fraction", "d", "mask"), [(0.02, 12, 48), (0.5, 305, 77)])
def test_a_dry_run_says_what_is_kept_and_sent(
    capsys: pytest.CaptureFixture[str], fraction: float, d: int, mask: int
) -> None:
    dotted = ON_DIGITS | {"task.name": "digits", "task.model": "mlp-8"}
    given = [f"--{name}={value}" for name, value in dotted.items()]
    assert main(["run", *given, f"--task.sparse_fraction={fraction}", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"{d} of 610" in out
    assert re.search(rf"mask, each client\W+{mask} B", out)


@pytest.mark.usefixtures("ray_cluster")
def test_two_actors_have_the_mask_of_the_for_loop(experiment: Make, tmp_path: Path) -> None:
    serial = run(experiment(**ON_DIGITS), tmp_path / "serial")
    two = {"resources.executor": "ray", "resources.max_actors": 2}
    on_ray = run(experiment(**ON_DIGITS, **two), tmp_path / "ray")
    assert on_ray["actors"] == 2
    assert on_ray["model_sha256"] == serial["model_sha256"]
    ledgers = [(tmp_path / name / "ledger.jsonl").read_text() for name in ("serial", "ray")]
    assert ledgers[0] == ledgers[1]


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ({"task.sparse_by": "sensitivity"}, "sparse_by = sensitivity needs a mask"),
        (SENSITIVITY, "examples that no client holds: set sparse_text"),
        ({"task.sparse_fraction": 0.1, "task.sparse_text": "t"}, "by sparse_by = sensitivity only"),
        (ON_DIGITS | {"task.lora.r": 2}, "adapters alone: leave out sparse_fraction"),
        (SENSITIVITY | {"task.sparse_text": "nowhere.txt"}, "nowhere.txt: No such file"),
        (SENSITIVITY | {"task.sparse_text": "."}, "Is a directory"),
        (SENSITIVITY | {"task.sparse_text": "empty"}, "it is empty; give plain text"),
        (SENSITIVITY | {"task.sparse_text": "latin"}, "not UTF-8"),
        (ON_DIGITS | {"task.sparse_fraction": 0.99, "task.trainable": "*embed_tokens*"},
         "weights have a gradient on 10 validation examples, and the mask would keep"),
        (ON_DIGITS | {"task.name": "digits", "task.data": "auto", "task.sparse_text": "t"},
         "digits does not read it"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_said(
    language: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dotted: dict[str, Any],
    words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text(" \n\n")
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match=words):
        tasks.prepare(tasks.resolve(language(**dotted)))
