"""What a run will take, without weights, data or a hub; and the ready configurations."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, config, run, tasks
from hiso_ray.cli import main
from hiso_ray.runs.plan import plan

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# The sizes of the published weights.
PARAMETERS = {
    "facebook/opt-125m": 125_239_296,
    "facebook/opt-350m": 331_196_416,
    "facebook/opt-1.3b": 1_315_758_080,
    "facebook/opt-2.7b": 2_651_596_800,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "google/gemma-3-270m": 268_098_176,
    "gemma-3-270m-q4_k_m": 268_098_176,
    "microsoft/phi-2": 2_779_683_840,
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read at its import
    monkeypatch.setenv("HF_HOME", str(tmp_path))


@pytest.mark.parametrize("model", PARAMETERS)
def test_known_shapes_have_the_published_sizes(model: str) -> None:
    e = Experiment().changed(**{"task.name": "sst2", "task.model": model})
    assert tasks.count(tasks.resolve(e))[:2] == (PARAMETERS[model], 0)


def test_every_row_of_the_papers_tables_and_every_newer_family_is_there() -> None:
    names = {path.stem for path in CONFIGS}
    for size in ("125m", "350m", "1.3b", "2.7b"):
        for task in ("sst2", "qqp", "squad"):
            assert {f"opt-{size}-{task}-{method}" for method in ("hiso", "decomfl")} <= names
    for family in ("llama", "qwen2.5", "qwen3", "gemma-3", "smollm2", "smollm3", "phi"):
        assert any(name.startswith(family) for name in names), family


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_ready_configuration_plans_offline_with_the_papers_bytes(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    e = tasks.resolve(Experiment.model_validate(config.read_yaml(path)))
    found = plan(e)
    rounds = e.federation.rounds
    assert found.paper_bytes_per_client == rounds * 40  # up and down, P = 5, τ = 1, 4 bytes each
    assert found.trainable + found.frozen >= PARAMETERS[e.task.model]
    text = path.read_text()
    stated = re.search(r"Hardware: ([\d.]+) GiB", text)
    assert stated is not None
    assert stated[1] == f"{found.actor_bytes / 2**30:.1f}"
    assert "arXiv 2506.02370" in text or "The paper has no such row" in text
    assert main(["run", "--config", str(path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"{found.trainable:,}" in out
    assert f"{rounds * 40:,} B" in out


@pytest.mark.parametrize(
    "dotted",
    [
        {"method.probe": "central"},
        {"method.probe": "exact", "uplink.precision": "int8"},
        {"method.name": "hizoo"},
        {"method.name": "feedsign"},
        {"method.name": "fedavg", "method.num_perturbations": 5},
    ],
    ids=lambda dotted: "-".join(map(str, dotted.values())),
)
def test_the_plan_is_what_the_run_then_measures(
    experiment: Callable[..., Experiment], tmp_path: Path, dotted: dict[str, Any]
) -> None:
    e = tasks.resolve(experiment(**{"federation.local_steps": 2}, **dotted))
    found, summary = plan(e), run(e, tmp_path / "r")
    assert found.forward_passes == summary["forward_passes"]
    assert found.paper_bytes_per_client == summary["paper_bytes_per_client"]
    assert found.initial_model_bytes == summary["initial_model_bytes_per_client"]
    assert found.uplink_bytes * 3 * 6 == summary["uplink_bytes"]


def test_a_dry_run_reads_no_weights_and_leaves_nothing(
    language: Callable[..., Experiment], tiny_opt: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "config.json").write_bytes((tiny_opt / "config.json").read_bytes())
    given = ["--task.name", "sst2", "--task.model", "only", "--dry-run"]
    assert main(["run", *given]) == 0
    d = tasks.prepare(tasks.resolve(language())).x0.size
    assert f"{d:,} of {d:,}" in capsys.readouterr().out
    assert main(["run", *given, "--task.lora.r", "2", "--task.lora.target_modules", "no"]) == 2
    assert "it has fc1, fc2" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "subset",
    [{"task.lora.r": 2}, {"task.sparse_fraction": 0.1}, {"task.trainable": "*norm*"}],
)
def test_counts_without_weights_are_those_with_them(
    language: Callable[..., Experiment], subset: dict[str, Any]
) -> None:
    e = tasks.resolve(language(**subset))
    prepared = tasks.prepare(e)
    assert tasks.count(e)[:2] == (prepared.x0.size, prepared.frozen)


def test_a_model_without_a_hub_says_what_works(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--task.name", "sst2", "--task.model", "nobody/nothing", "--dry-run"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "Without a hub, name a local folder with config.json, model.safetensors" in error


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("none", "nothing"),
        ("scalar", "4 bytes"),
        ("tensor", "4 bytes a tensor"),
        ("row", "4 bytes a row of each matrix"),
        ("diagonal", "9,640 bytes"),  # of 2 410 weights
        ("random", "19,280 bytes"),
    ],
)
def test_the_plan_says_what_h_takes(arm: str, words: str) -> None:
    e = Experiment().changed(**{"task.name": "digits", "method.curvature": arm})
    assert plan(tasks.resolve(e)).curvature == words


def test_a_hessian_of_a_large_model_is_refused_before_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["run", "--dry-run", "--task.name", "sst2", "--task.model", "facebook/opt-125m"]
    assert main([*arguments, "--method.curvature", "oracle"]) == 2
    assert "method.curvature = oracle measures the Hessian's" in capsys.readouterr().err
    assert main([*arguments, "--diagnostics.every", "5"]) == 2
    assert "too much for 125,239,296 trainable weights" in capsys.readouterr().err


def test_a_dry_run_tells_of_the_clock(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--dry-run", "--task.name", "digits", "--devices.profile", "drawn"]
    assert main([*arguments, "--devices.deadline", "4"]) == 0
    words = capsys.readouterr().out.replace("│", " ").split()
    assert "of 64 clients can meet the deadline of 4 s" in " ".join(words)
    assert main([*arguments, "--devices.deadline", "0.1"]) == 2
    assert "none of the 64 clients can meet" in capsys.readouterr().err
