"""The sweep folder: what it takes, what it lacks, what becomes of outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest
from rich.console import Console

from hiso_ray import run
from hiso_ray.analysis import load, sweep_files
from hiso_ray.cli.bars import Bar
from hiso_ray.run_folder.folder import started
from hiso_ray.sweeps import Sweep, folder
from hiso_ray.sweeps.table import Trial

Small = Callable[..., Sweep]


def opened(out: Path, sweep: Sweep, resume: bool = False) -> list[Trial]:
    trials = sweep.trials()
    with folder.opened(out, sweep, trials, resume):
        folder.write_plan(out, sweep)
        return trials


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, small: Small) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="already holds something: choose another"):
        opened(tmp_path, small())
    opened(tmp_path / "s", small())
    with pytest.raises(FileExistsError, match="holds a sweep: --resume finishes"):
        opened(tmp_path / "s", small())
    with pytest.raises(ValueError, match="is not a sweep folder"):
        opened(tmp_path, small(), resume=True)


def test_trials_can_be_added_but_not_taken_away(tmp_path: Path, small: Small) -> None:
    two = small(grid={"seed": [0, 1]})
    opened(tmp_path / "s", two)
    three = small(grid={"seed": [0, 1, 2]})
    opened(tmp_path / "s", three, resume=True)
    assert folder.planned(tmp_path / "s") == three
    with pytest.raises(ValueError, match=r"of another plan \(small\): 1 of its.*seed=2"):
        opened(tmp_path / "s", two, resume=True)
    assert folder.planned(tmp_path / "s") == three


def test_an_old_trial_is_known_again_beside_a_new_axis(tmp_path: Path, small: Small) -> None:
    opened(tmp_path / "s", small(grid={"seed": [0]}))
    wider = small(grid={"seed": [0], "method.lr": [0.02, 0.04]})
    assert len(opened(tmp_path / "s", wider, resume=True)) == 2


def test_only_one_process_runs_a_folder(tmp_path: Path, small: Small) -> None:
    sweep = small()
    trials = opened(tmp_path / "s", sweep)
    with (
        folder.opened(tmp_path / "s", sweep, trials, True),
        pytest.raises(ValueError, match="being run by another process"),
        folder.opened(tmp_path / "s", sweep, trials, True),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, small: Small) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write to the sweep folder"):
        opened(tmp_path / "file" / "s", small())


def test_outcomes_and_what_is_missing(tmp_path: Path, small: Small) -> None:
    out = tmp_path / "s"
    trials = opened(out, small(grid={"seed": [0, 1, 2, 3, 4]}))
    done, failed, stopped, mended, never = trials
    folder.add_outcome(out, stopped.id, sweep_files.STOPPED, None)
    folder.add_outcome(out, mended.id, sweep_files.FAILED, "once")
    for trial in (done, mended):
        run(trial.experiment, folder.run_folder(out, trial))
    with open(out / "outcomes.jsonl", "a") as file:
        file.write('\n{"trial": "' + never.id)  # torn by a kill
        file.write('\n[]\nfailed\n{"trial": "another"}')  # by another hand
        old = {"trial": never.id, "status": "unfinished", "error": None}
        file.write(f"\n{json.dumps(old)}")  # from before the kind was recorded
    folder.add_outcome(out, failed.id, sweep_files.FAILED, "too bad\nreally", "NonFiniteLoss")
    assert folder.missing(out, trials, early_stopping=True) == [failed, never]
    assert folder.missing(out, trials, early_stopping=False) == [failed, stopped, never]
    table = folder.collect(out, trials)
    assert table["status"].tolist() == ["finished", "failed", "stopped", "finished", "unfinished"]
    assert table["error"].tolist()[1] == "too bad\nreally"
    assert table["error"].notna().sum() == 1
    assert table["error_kind"].dropna().tolist() == ["NonFiniteLoss"]
    assert table["final_score"].notna().tolist() == [True, False, False, True, False]
    assert table["run"].tolist() == [f"runs/{trial.id}" for trial in trials]
    read = load.trials([out])
    assert read["model_sha256"].tolist() == table["model_sha256"].tolist()
    rounds = load.rounds([out])
    assert rounds.groupby("seed")["round"].apply(list).to_dict() == {0: [0, 3, 6], 3: [0, 3, 6]}
    assert rounds["run"].iloc[0] == str(out / "runs" / done.id)


def test_a_start_that_came_to_nothing_is_in_nobodys_way(tmp_path: Path, small: Small) -> None:
    sweep = small()
    with folder.opened(tmp_path / "s", sweep, sweep.trials(), False):
        pass  # refused, or killed before the plan was written
    assert len(opened(tmp_path / "s", small(grid={"seed": [3]}))) == 1


def test_local_files_that_lie_elsewhere_are_said(tmp_path: Path, small: Small) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        rows = "".join(f"{client},1,10,50\n" for client in range(12))
        table = "client,speed,uplink_mbps,downlink_mbps\n" + rows
        (tmp_path / place / "phones.csv").write_text(table)
    here, there = (
        small().changed({"devices.profile": str(tmp_path / place / "phones.csv")})
        for place in ("here", "there")
    )
    (trial,) = opened(tmp_path / "s", here)
    run(trial.experiment, folder.run_folder(tmp_path / "s", trial))
    assert folder.moved(tmp_path / "s", here.trials()) == []
    again = opened(tmp_path / "s", there, resume=True)
    assert folder.missing(tmp_path / "s", again, early_stopping=False) == []
    (said,) = folder.moved(tmp_path / "s", again)
    assert said.startswith("devices.profile was ")
    assert said.endswith("there/phones.csv")


def test_tables_say_what_each_trial_was_run_with(tmp_path: Path, small: Small) -> None:
    out, grid = tmp_path / "s", {"seed": [0, 1]}
    begun, _ = opened(out, small(grid=grid))
    run(begun.experiment, folder.run_folder(out, begun))
    trials = opened(out, small(grid=grid).changed({"diagnostics.every": 2}), resume=True)
    assert folder.missing(out, trials, early_stopping=False) == trials[1:]
    assert folder.unmeasured(out, trials) == ["diagnostics.every was 0, now 2"]
    assert folder.collect(out, trials)["diagnostics.every"].tolist() == [0, 2]


def test_a_trial_that_was_begun_again_has_not_failed(tmp_path: Path, small: Small) -> None:
    from hiso_ray.sweeps.room import Room
    from hiso_ray.sweeps.watch import Watch

    (trial,) = opened(tmp_path, small())
    folder.add_outcome(tmp_path, trial.id, sweep_files.FAILED, "out of memory", "TurnFailed")
    console = Console(quiet=True)
    watch = Watch(console, Bar(console, "trial", 1), tmp_path, {trial.id: trial}, Room(1, {}, 0))
    watch.on_trial_start(0, [], SimpleNamespace(config={"trial": trial.id}))
    assert folder.outcomes(tmp_path, [trial])[trial.id] == sweep_files.Ending(
        sweep_files.UNFINISHED
    )


def test_a_trial_leaves_a_folder_alone_in_which_another_run_starts(
    tmp_path: Path, small: Small
) -> None:
    from hiso_ray.sweeps.trial import Assignment, _run

    (trial,) = small().trials()
    assignment = Assignment(trial.experiment, tmp_path / "r", None)  # type: ignore[arg-type]
    with (
        started(trial.experiment, tmp_path / "r"),
        pytest.raises(FileExistsError, match="another process is starting a run"),
    ):
        _run(assignment)


def test_a_sweep_that_somebody_has_run_meanwhile_is_left_alone(
    tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish_it(lock: IO[str]) -> bool:
        (tmp_path / "s" / "plan.yaml").write_text(small().to_yaml())
        return True

    monkeypatch.setattr(folder, "hold", finish_it)
    with pytest.raises(FileExistsError, match="already holds a sweep"):
        opened(tmp_path / "s", small())
