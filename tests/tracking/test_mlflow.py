"""What MLflow holds of a run: the numbers of its table, in files and on a real server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hiso_ray import Experiment, resume, run
from hiso_ray.run_folder.metrics_reader import read_rows
from hiso_ray.tracking.marks import read_mark

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

pytest.importorskip("mlflow", reason="needs the extra `mlflow`")
Make = Callable[..., Experiment]
SERVER = Path(__file__).resolve().parents[2] / ".venv" / "mlflow-server"  # `make .venv/.mlflow`


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")


def client(uri: str) -> MlflowClient:
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def check_numbers(mlflow: MlflowClient, folder: Path) -> Any:
    """Compares every column with ``metrics.csv``; returns MLflow's run."""
    found = mlflow.get_run(read_mark(folder, "mlflow").run)
    rows = read_rows(folder / "metrics.csv")
    for name in rows[0].keys() - {"round"}:
        history = mlflow.get_metric_history(found.info.run_id, name)
        expected = {row["round"]: row[name] for row in rows if row[name] is not None}
        assert {metric.step: metric.value for metric in history} == expected, name
        assert len(history) == len(expected), name
    return found


def artifacts(mlflow: MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    return {file.path for file in mlflow.list_artifacts(run_id, folder)}


@pytest.mark.usefixtures("pictures")
def test_files_hold_a_trial_whole_and_it_goes_on_in_the_same_run(
    experiment: Make, tmp_path: Path
) -> None:
    out = tmp_path / "rates"
    (out / "runs").mkdir(parents=True)
    (out / "plan.yaml").touch()
    folder = out / "runs" / "first"
    run(experiment(tracking=["mlflow"]), folder)
    summary = resume(folder, changes={"federation.rounds": 8})
    mlflow = client((out / "runs" / "mlruns").as_uri())
    found = check_numbers(mlflow, folder)
    (kept,) = mlflow.search_runs([found.info.experiment_id])  # one run, not two
    assert (kept.info.run_name, kept.info.status) == ("first", "FINISHED")
    assert mlflow.get_experiment(found.info.experiment_id).name == "hiso-ray"
    assert found.data.tags["sweep"] == "rates"
    assert found.data.tags["model_sha256"] == summary["model_sha256"]
    assert found.data.metrics["final_accuracy"] == summary["final_accuracy"]
    assert found.data.params["method.lr"] == "0.02"
    assert artifacts(mlflow, found.info.run_id) == {"config.yaml", "summary.json", "pictures"}
    pictures = artifacts(mlflow, found.info.run_id, "pictures")
    assert pictures == {"pictures/convergence.png", "pictures/partition.png"}


def test_a_server_that_is_not_there_stops_nothing(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hush@{address}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    notes: list[str] = []
    summary = run(experiment(tracking=["mlflow"]), tmp_path / "r", on_note=notes.append)
    assert summary["model_sha256"] == run(experiment(), tmp_path / "plain")["model_sha256"]
    (said,) = (note for note in notes if note.startswith("warning: mlflow"))
    assert address in said
    assert "hush" not in said
    written = [path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()]
    assert not any(b"hush" in text for text in written)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a real MLflow server, and its process."""
    if not SERVER.is_dir():
        pytest.skip("needs an MLflow server: make .venv/.mlflow")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", (tmp_path / "store").as_uri(), "--workers", "1",
        "--artifacts-destination", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    path = os.pathsep.join([str(SERVER), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path}
    process = subprocess.Popen(command, env=env, cwd=tmp_path, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        while not healthy(address):
            assert process.poll() is None, "the server has ended"
            time.sleep(0.2)
        yield address, process
    finally:
        kill(process)


def kill(server: subprocess.Popen[bytes]) -> None:
    """Kills a server and its workers."""
    with suppress(ProcessLookupError):  # killed before
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
def test_a_server_holds_a_run_whole_and_may_die_in_the_middle_of_another(
    experiment: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: tuple[str, subprocess.Popen[bytes]],
) -> None:
    address, process = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    e = experiment(tracking=["mlflow"])
    whole = run(e, tmp_path / "whole")
    mlflow = client(address)
    found = check_numbers(mlflow, tmp_path / "whole")
    assert mlflow.get_experiment(found.info.experiment_id).name == "theirs"
    assert found.info.status == "FINISHED"
    assert found.data.tags["model_sha256"] == whole["model_sha256"]
    assert artifacts(mlflow, found.info.run_id, "pictures") == {
        "pictures/convergence.png",
        "pictures/partition.png",
    }
    notes: list[str] = []

    def on_round(row: dict[str, Any]) -> None:
        if row["round"] == 3:
            while read_mark(tmp_path / "torn", "mlflow").round < 3:
                time.sleep(0.05)  # MLflow has the first rows
            kill(process)

    torn = run(e, tmp_path / "torn", on_round, notes.append)
    assert torn["model_sha256"] == whole["model_sha256"]
    assert len([note for note in notes if note.startswith("warning: mlflow")]) == 1
