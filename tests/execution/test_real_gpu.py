"""What only a GPU can show: the same federation on one, serial and shared out, whole and by layers.

The embedded language model, since it needs no file from elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hiso_ray import Experiment, run
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.runs import replay, resume

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SMALL = {
    "federation.num_clients": 8,
    "federation.clients_per_round": 4,
    "federation.rounds": 4,
    "federation.local_steps": 2,
    "method.num_perturbations": 2,
    "eval.every": 4,
    "resources.gpus_per_client": 1.0,
    "resources.executor": "serial",
}


def ran(folder: Path, **dotted: Any) -> dict[str, Any]:
    return run(Experiment().changed(**(SMALL | dotted)), folder)


def test_a_run_on_a_gpu_says_so_and_replays_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = ran(tmp_path / "r")
    header = Ledger.read(tmp_path / "r" / "ledger.jsonl").header
    assert header["device"].startswith("cuda")
    assert header["triton"]
    assert replay(tmp_path / "r")["matches"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    notes: list[str] = []
    assert replay(tmp_path / "r", on_note=notes.append)["model_sha256"] == summary["model_sha256"]
    assert any("cuda" in note and "cpu" in note for note in notes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["hiso", "decomfl", "hizoo"])
def test_by_layers_as_by_the_whole(tmp_path: Path, method: str, dtype: str) -> None:
    own = {"method.name": method, "task.dtype": dtype}
    if method == "hizoo":
        own["method.num_perturbations"] = "auto"
    whole = ran(tmp_path / "whole", **own)
    layer = ran(tmp_path / "layer", **own, **{"resources.probe_weights": "layer"})
    assert layer["model_sha256"] == whole["model_sha256"]


def test_actors_that_share_a_gpu_compute_what_one_process_does(tmp_path: Path) -> None:
    serial = ran(tmp_path / "serial")
    shared = {"resources.executor": "ray", "resources.gpus_per_client": 0.25}
    four = ran(tmp_path / "four", **shared, **{"resources.max_actors": 4})
    assert four["actors"] == 4
    assert four["model_sha256"] == serial["model_sha256"]
    two = {"resources.gpus_per_client": "auto", "resources.max_actors": 2}
    auto = ran(tmp_path / "auto", **{"resources.executor": "ray"}, **two)
    assert auto["actors"] == 2
    assert auto["model_sha256"] == serial["model_sha256"]


def test_a_run_can_move_to_a_cpu_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scalars differ in their last bits; nothing else does."""
    ran(tmp_path / "r")
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        resume(tmp_path / "r", changes={"federation.rounds": 6})
    summary = resume(tmp_path / "r", changes={"federation.rounds": 8})
    assert summary["rounds"] == 8
    assert replay(tmp_path / "r")["matches"]
