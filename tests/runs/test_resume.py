"""Going on: after kills at any instant, with more rounds, and what is refused."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, replay, resume, run
from hiso_ray.cli import main
from hiso_ray.errors import UserError
from hiso_ray.run_folder.folder import read_experiment
from hiso_ray.run_folder.metrics_reader import COLUMNS, read_rows

Make = Callable[..., Experiment]


def hiso(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "hiso_ray", *map(str, arguments)],
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("executor", "kills"),
    [
        ("serial", 2),
        pytest.param("ray", 3, marks=[pytest.mark.slow, pytest.mark.timeout(500)]),
    ],
)
def test_a_run_killed_again_and_again_ends_like_an_undisturbed_one(
    experiment: Make, tmp_path: Path, executor: str, kills: int
) -> None:
    rounds = 300 * (kills + 2)
    base = {"federation.rounds": rounds, "eval.every": 60, "resources.snapshot_every": 180,
            "federation.dropout": 0.2}  # fmt: skip
    whole = run(experiment(**base), tmp_path / "whole")
    own = {"resources.executor": executor, "resources.max_actors": 2}
    config = tmp_path / "e.yaml"
    config.write_text(experiment(**base, **own).to_yaml())
    folder = tmp_path / "r"
    when = random.Random(1)
    deaths = 0
    for attempt in range(kills):
        arguments = ("resume", folder) if attempt else ("run", "--config", config, "--out", folder)
        process = hiso(*arguments)
        ledger, deadline = folder / "ledger.jsonl", time.monotonic() + 120
        enough = 240 * (attempt + 1) + when.randrange(60)
        while ledger_lines(ledger) <= enough and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        deaths += 1
    end = resume(folder)
    assert deaths == kills
    assert end["model_sha256"] == whole["model_sha256"]
    keep = set(COLUMNS) - {"seconds", "ray_bytes"}
    rows = [
        [{name: row[name] for name in keep} for row in read_rows(tmp_path / n / "metrics.csv")]
        for n in ("whole", "r")
    ]
    assert rows[0] == rows[1]
    for name in ("clients.csv", "outcomes.parquet"):
        files = [(tmp_path / n / name).read_bytes() for n in ("whole", "r")]
        assert files[0] == files[1], name


def cut(path: Path, rows: int) -> None:
    """Leaves the header and so many rows."""
    path.write_text("".join(path.read_text().splitlines(keepends=True)[: rows + 1]))


@pytest.mark.parametrize("method", ["hiso", "fedzo"])
def test_rows_that_were_lost_are_made_again(experiment: Make, tmp_path: Path, method: str) -> None:
    base = {"method.name": method, "federation.dropout": 0.3}
    whole = run(experiment(**base), tmp_path / "whole")

    def stop(row: dict[str, Any]) -> None:
        if row["round"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment(**base), tmp_path / "r", stop)
    cut(tmp_path / "r" / "metrics.csv", 4)  # what a machine that lost its power had on disk
    heard: list[int] = []
    summary = resume(tmp_path / "r", lambda row: heard.append(row["round"]))
    assert heard == [5, 6]
    keep = set(COLUMNS) - {"seconds", "ray_bytes"}
    tables = [read_rows(tmp_path / name / "metrics.csv") for name in ("whole", "r")]
    assert [r["round"] for r in tables[1]] == [*range(7)]
    assert [{n: r[n] for n in keep} for r in tables[0]] == [
        {n: r[n] for n in keep} for r in tables[1]
    ]
    assert summary["initial_score"] == whole["initial_score"]


def test_a_spoilt_table_stops_nothing_and_is_named(experiment: Make, tmp_path: Path) -> None:
    whole = run(experiment(**{"federation.rounds": 8}), tmp_path / "whole")
    run(experiment(), tmp_path / "r")
    path = tmp_path / "r" / "metrics.csv"
    path.write_text("\ufeff" + path.read_text() + "total,,,,\n", encoding="utf-8")
    (tmp_path / "r" / "summary.json").write_text('{"rounds":')
    notes: list[str] = []
    end = resume(tmp_path / "r", on_note=notes.append, changes={"federation.rounds": 8})
    assert end["model_sha256"] == whole["model_sha256"]
    assert f"{path}: line 9 is no row of it: left out" in notes
    assert [row["round"] for row in read_rows(path)] == [*range(9)]
    path.unlink()
    assert resume(tmp_path / "r", changes={"federation.rounds": 9})["initial_score"] is None
    assert [row["round"] for row in read_rows(path)] == [*range(1, 10)]


def ledger_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("early", ["config.yaml", "partition.csv", "faults.jsonl", "ledger.new"])
def test_a_run_killed_before_its_first_record_goes_on_too(
    experiment: Make, tmp_path: Path, early: str
) -> None:
    whole = run(experiment(), tmp_path / "whole")
    order = ["config.yaml", "faults.jsonl", "partition.csv", "ledger.new"]
    (tmp_path / "r").mkdir()
    for name in order[: 1 + order.index(early)]:
        source = tmp_path / "whole" / name
        (tmp_path / "r" / name).write_bytes(source.read_bytes() if source.exists() else b"{")
    assert resume(tmp_path / "r")["model_sha256"] == whole["model_sha256"]
    assert (tmp_path / "r" / "partition.csv").exists()


def test_more_rounds_can_be_asked_for(experiment: Make, tmp_path: Path) -> None:
    whole = run(experiment(**{"federation.rounds": 10}), tmp_path / "whole")
    first = run(experiment(**{"federation.rounds": 4}), tmp_path / "r")
    assert main(["resume", str(tmp_path / "r"), "--federation.rounds", "10"]) == 0
    end = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert end["model_sha256"] == whole["model_sha256"]
    assert end["rounds"] == 10
    assert end["initial_score"] == first["initial_score"]
    assert read_experiment(tmp_path / "r").federation.rounds == 10
    assert replay(tmp_path / "r")["matches"] is True
    assert replay(tmp_path / "r", round_=4)["model_sha256"] == first["model_sha256"]


def test_a_schedule_that_has_ended_is_not_stretched(
    experiment: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(experiment(**{"method.schedule": "linear", "federation.rounds": 4}), tmp_path / "r")
    rows = read_rows(tmp_path / "r" / "metrics.csv")
    assert [row["lr"] for row in rows] == [None, 0.02, 0.015, 0.01, 0.005]
    before = (tmp_path / "r" / "config.yaml").read_text()
    longer = ["resume", str(tmp_path / "r"), "--federation.rounds", "8"]
    for stretched in ([], ["--method.schedule_rounds", "8"]):
        assert main([*longer, *stretched]) == 2
        assert "the linear schedule has the rate at 0 from round 4 on" in capsys.readouterr().err
    assert (tmp_path / "r" / "config.yaml").read_text() == before


def test_fewer_rounds_than_planned_end_with_an_evaluation(experiment: Make, tmp_path: Path) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["round"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment(), tmp_path / "r", stop)
    summary = resume(tmp_path / "r", changes={"federation.rounds": 4})
    rows = read_rows(tmp_path / "r" / "metrics.csv")
    assert [row["round"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[-1]["eval_accuracy"] == summary["final_accuracy"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method.lr", "0.1"),
        ("seed", "3"),
        ("federation.clients_per_round", "2"),
        ("federation.dropout", "0.5"),
        ("task.batch_size", "4"),
        ("task.dtype", "bfloat16"),
    ],
)
def test_a_change_of_the_past_is_refused(
    experiment: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: str
) -> None:
    run(experiment(), tmp_path / "r")
    before = (tmp_path / "r" / "config.yaml").read_text()
    assert main(["resume", str(tmp_path / "r"), f"--{field}", value]) == 2
    assert f"{field} = {value}: the rounds so far were run with another" in capsys.readouterr().err
    assert (tmp_path / "r" / "config.yaml").read_text() == before


def test_fewer_rounds_than_were_run_are_refused(experiment: Make, tmp_path: Path) -> None:
    run(experiment(), tmp_path / "r")
    with pytest.raises(ValueError, match=r"rounds = 5: 6 rounds are in the ledger already"):
        resume(tmp_path / "r", changes={"federation.rounds": 5})


def test_what_decides_no_result_may_change(experiment: Make, tmp_path: Path) -> None:
    whole = run(experiment(**{"federation.rounds": 8}), tmp_path / "whole")
    run(experiment(), tmp_path / "r")
    changes = {"eval.every": 1, "resources.direction_cache_mb": 0, "federation.rounds": 8}
    assert resume(tmp_path / "r", changes=changes)["model_sha256"] == whole["model_sha256"]


def test_diagnostics_of_too_large_a_model_are_refused(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(experiment(), tmp_path / "r")
    before = (tmp_path / "r" / "config.yaml").read_text()
    monkeypatch.setattr("hiso_ray.config.fits.LARGEST_HESSIAN", 600)
    with pytest.raises(ValueError, match=r"diagnostics.every = 2 measures the Hessian's diagonal"):
        resume(tmp_path / "r", changes={"diagnostics.every": 2})
    assert (tmp_path / "r" / "config.yaml").read_text() == before


def test_other_devices_are_refused(experiment: Make, tmp_path: Path) -> None:
    profile = tmp_path / "devices.csv"
    lines = [f"{client},1.0,1.0,1.0" for client in range(12)]
    profile.write_text("\n".join(["client,speed,uplink_mbps,downlink_mbps", *lines]))
    run(experiment(**{"devices.profile": str(profile)}), tmp_path / "r")
    profile.write_text(profile.read_text().replace("7,1.0", "7,2.0"))
    before = (tmp_path / "r" / "config.yaml").read_text()
    for changes in ({"federation.rounds": 8}, {"devices.profile": "drawn"}):
        with pytest.raises(ValueError, match="written with another devices"):
            resume(tmp_path / "r", changes=changes)
        assert (tmp_path / "r" / "config.yaml").read_text() == before


def test_a_disk_that_fills_up_is_said_and_loses_nothing(experiment: Make, tmp_path: Path) -> None:
    whole = run(experiment(**{"federation.rounds": 60}), tmp_path / "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "whole" / "ledger.jsonl").stat().st_size

    def fill(row: dict[str, Any]) -> None:
        if row["round"] == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))

    try:
        with pytest.raises(UserError, match=r"File too large\): \d+ rounds are safe.* resume"):
            run(experiment(**{"federation.rounds": 60}), tmp_path / "r", fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert resume(tmp_path / "r")["model_sha256"] == whole["model_sha256"]


def test_a_ledger_that_cannot_be_opened_for_writing_is_said(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(experiment(), tmp_path / "r")
    real = open

    def read_only(path: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if "+" in mode:
            raise OSError(30, "Read-only file system")
        return real(path, mode, *args, **more)

    monkeypatch.setattr("builtins.open", read_only)
    with pytest.raises(ValueError, match=r"ledger.jsonl \(Read-only file system\): make the run"):
        resume(tmp_path / "r", changes={"eval.every": 1})
    assert replay(tmp_path / "r")["matches"] is True  # which only reads


def test_a_folder_that_cannot_be_written_is_said(experiment: Make) -> None:
    with pytest.raises(ValueError, match=r"cannot write to the run folder /proc/hiso"):
        run(experiment(), "/proc/hiso")
