"""``hiso-ray doctor`` on real clusters, with real faults."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hiso_ray.cli.commands import main
from hiso_ray.execution.cluster import session

ONE_LINE = ["--task.name", "digits", "--resources.gpus_per_client", "0.5"]


def rows(printed: str) -> dict[str, list[str]]:
    """The table's levels, findings and remedies, by check."""
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if len(cells) == 4 and cells[0]:
            check, *found[cells[0]] = cells
        elif len(cells) == 4:  # a cell's next line
            found[check] = [
                f"{old} {new}".strip() for old, new in zip(found[check], cells[1:], strict=True)
            ]
    return found


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="has the GPUs that Ray is told of")
def test_faults_of_a_real_cluster(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("HISO_RAY_CACHE", "/proc/cache")  # nobody, not even root, can write there
    assert main(["doctor", *ONE_LINE, "--out", "/proc/runs"]) == 1
    found = rows(capsys.readouterr().out)
    assert {check: level for check, (level, *_) in found.items()} == {
        "cluster": "ok", "versions": "ok",
        "GPUs": "fail",  # Ray was told of two
        "actors": "ok", "object store": "ok", "run folder": "fail", "clocks": "ok",
        "same bits": "ok", "cache": "warn",
    }  # fmt: skip
    assert "Ray counts 2" in found["GPUs"][1]
    assert main(["doctor", *ONE_LINE[:2], "--out", str(tmp_path / "runs" / "new")]) == 0
    assert rows(capsys.readouterr().out)["run folder"][0] == "ok"
    assert list(tmp_path.iterdir()) == []  # it leaves nothing behind


@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1:99999", "nothing answers at 127.0.0.1:99999"), ("here", "it is no address")],
)
def test_an_address_without_a_cluster_is_a_fault(
    address: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")  # restored afterwards
    monkeypatch.setattr(session.ray, "is_initialized", bool)
    assert main(["doctor", "--task.name", "digits", "--address", address]) == 1
    level, found, _ = rows(capsys.readouterr().out)["cluster"]
    assert level == "fail"
    assert why in found


def test_a_cluster_of_another_ray_is_a_fault(ray_cluster: None) -> None:
    code = "import ray; ray.__version__ = '2.1.0'; from hiso_ray.cli import main; raise SystemExit("
    address = session.ray.get_runtime_context().gcs_address
    done = subprocess.run(
        [sys.executable, "-c", f"{code}main(['doctor', '--task.name', 'digits']))"],
        env=os.environ | {"RAY_ADDRESS": address},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    level, found, _ = rows(done.stdout)["cluster"]
    assert level == "fail"
    assert "Ray: 2.1.0" in found
    assert "constraints.txt" in found
