"""A ledger written on one kind of device, replayed on the other.

Without a GPU the other kind is its kernels in Triton's interpreter, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hiso_ray import Experiment, run, tasks
from hiso_ray.client import replica
from hiso_ray.execution import worker
from hiso_ray.messages import Missed
from hiso_ray.method.direction import Directions
from hiso_ray.run_folder.ledger import Ledger, LedgerError
from hiso_ray.runs import replay

CPU = torch.device("cpu")


class InOneKernel(Directions):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.fused = True


@pytest.fixture
def other_kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        if torch.cuda.is_available():
            patch.setattr(worker, "device_for", lambda experiment: torch.device("cuda"))
        else:
            patch.setattr(replica, "Directions", InOneKernel)
        yield


def weights(folder: Path, experiment: Experiment) -> Tensor:
    """(2, d) what the ledger's records make of x_0 on this kind of device, and the average."""
    prepared, partition = tasks.load(experiment)
    one = worker.Worker(experiment, prepared, partition)
    records = Ledger.read(folder / "ledger.jsonl").records
    one.catch_up(Missed(len(records), records))
    return torch.stack([one.replica.state.x, one.replica.result]).cpu()


@pytest.mark.parametrize("curvature", ["none", "diagonal", *["row"] * torch.cuda.is_available()])
@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_weights_agree(
    experiment: Callable[..., Experiment],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    curvature: str,
    distribution: str,
) -> None:
    method = {"method.name": "hiso", "method.curvature": curvature, "method.averaging": 0.5}
    e = experiment(**method, **{"method.distribution": distribution, "federation.rounds": 3})
    summary = run(e, tmp_path / "r")
    here = weights(tmp_path / "r", e)
    request.getfixturevalue("other_kind")
    there = weights(tmp_path / "r", e)
    assert float((here - there).norm() / here.norm()) < 1e-5
    if torch.cuda.is_available() and curvature != "row":  # whose sums have an order
        assert torch.equal(here, there)
        assert replay(tmp_path / "r")["model_sha256"] == summary["model_sha256"]


def test_the_frameworks_generator_is_refused_elsewhere(
    experiment: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(experiment(**{"method.generator": "torch", "federation.rounds": 2}), tmp_path / "r")
    assert replay(tmp_path / "r")["matches"]
    elsewhere = {"name": "torch-cuda", "scheme": 1, "hardware": "another GPU"}
    monkeypatch.setattr(worker, "describe_generator", lambda *_: elsewhere)
    with pytest.raises(LedgerError, match=r"torch-cpu-vectorised.*another GPU.*generator philox"):
        replay(tmp_path / "r")


def test_another_processor_is_said_and_goes_on(
    experiment: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(experiment(**{"federation.rounds": 2}), tmp_path / "r")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    notes: list[str] = []
    assert replay(tmp_path / "r", on_note=notes.append)["matches"]
    assert any("another here" in note for note in notes)
