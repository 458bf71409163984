"""Whose a run folder is: nobody runs under another's configuration."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, replay, resume, run
from hiso_ray.run_folder.folder import fresh, held, read_experiment
from hiso_ray.run_folder.ledger import Ledger, LedgerError

Make = Callable[..., Experiment]
RATES = (0.01, 0.02, 0.04)


def check_own_label(folder: Path) -> float:
    """The rate of a finished run, which its configuration, ledger and summary must agree on."""
    lr = read_experiment(folder).method.lr
    assert {record.lr for record in Ledger.read(folder / "ledger.jsonl").records} == {lr}
    assert replay(folder)["matches"] is True
    return lr


def together(experiment: Make, folder: Path, *arguments: str, **dotted: Any) -> list[int]:
    """Runs one process per rate, all at once; exit statuses."""
    processes = []
    for lr in RATES:
        config = folder / f"{lr}.yaml"
        config.write_text(experiment(**{"method.lr": lr}, **dotted).to_yaml())
        command = [sys.executable, "-m", "hiso_ray", "run", "--config", config, *arguments]
        quiet = subprocess.DEVNULL
        processes.append(subprocess.Popen(command, cwd=folder, stdout=quiet, stderr=quiet))
    return [process.wait(timeout=300) for process in processes]


@pytest.mark.parametrize("executor", ["serial", pytest.param("ray", marks=pytest.mark.slow)])
def test_runs_started_at_once_have_a_folder_each(
    experiment: Make, tmp_path: Path, executor: str
) -> None:
    # at one instant, as far as names can tell
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.strftime = lambda *_: 'now'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
        assert together(experiment, tmp_path, **{"resources.executor": executor}) == [0, 0, 0]
    folders = sorted((tmp_path / "runs").iterdir())
    assert [f.name for f in folders] == [f"digits-hiso-seed0-now{n}" for n in ("", "-2", "-3")]
    assert sorted(map(check_own_label, folders)) == list(RATES)


@pytest.mark.parametrize("executor", ["serial", pytest.param("ray", marks=pytest.mark.slow)])
def test_of_runs_started_into_one_folder_one_runs(
    experiment: Make, tmp_path: Path, executor: str
) -> None:
    own = {"resources.executor": executor}
    statuses = together(experiment, tmp_path, "--out", "r", **own)
    assert sorted(statuses) == [0, 2, 2]
    assert check_own_label(tmp_path / "r") == RATES[statuses.index(0)]


def test_a_folder_in_which_a_run_is_starting_is_taken(experiment: Make, tmp_path: Path) -> None:
    others: list[str] = []

    def start_another(note: str) -> None:
        if not (tmp_path / "r" / "ledger.jsonl").exists():
            with pytest.raises(FileExistsError) as refused:
                run(experiment(**{"method.lr": 0.04}), tmp_path / "r")
            others.append(str(refused.value))

    run(experiment(), tmp_path / "r", on_note=start_another)
    assert others
    assert all("another process is starting a run" in said for said in others)
    assert check_own_label(tmp_path / "r") == 0.02


def test_a_run_that_goes_on_is_not_gone_on_with(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hiso_ray.run_folder.folder.LOCK_SECONDS", 0.1)

    def go_on_too(note: str) -> None:
        with pytest.raises(LedgerError, match="another process is running"):
            resume(tmp_path / "r", changes={"federation.rounds": 9})

    run(experiment(), tmp_path / "r", on_note=go_on_too)
    assert read_experiment(tmp_path / "r").federation.rounds == 6


def test_without_locks_a_beginning_is_left_alone(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "faults.jsonl").touch()
    with pytest.raises(FileExistsError, match="has no locks"):
        run(experiment(), tmp_path / "r")
    (tmp_path / "r" / "faults.jsonl").unlink()
    run(experiment(), tmp_path / "r")
    assert resume(tmp_path / "r", changes={"federation.rounds": 7})["rounds"] == 7


def test_what_is_no_run_folder_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="is not a run folder"), held(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_folder_is_removed_if_nothing_is_put_into_it(tmp_path: Path) -> None:
    with fresh(tmp_path / "a") as first, fresh(tmp_path / "a") as second:
        assert (first.name, second.name) == ("a", "a-2")
        (second / "config.yaml").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a-2"]
