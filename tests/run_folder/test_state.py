"""How a run stands, read from its files: while it runs, after every kind of end, and of a copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, resume, run
from hiso_ray.errors import NonFiniteLoss
from hiso_ray.run_folder.actor_times import ActorTime, ActorTimes, read_actor_times
from hiso_ray.run_folder.faults import Faults, by_actor
from hiso_ray.run_folder.state import read_state

Make = Callable[..., Experiment]


def stop_with(error: BaseException, round_: int = 4) -> Callable[[dict[str, Any]], None]:
    def on_row(row: dict[str, Any]) -> None:
        if row["round"] == round_:
            raise error

    return on_row


def test_running_its_copy_interrupted_and_finished(experiment: Make, tmp_path: Path) -> None:
    folder, copy = tmp_path / "r", tmp_path / "copy"

    def on_row(row: dict[str, Any]) -> None:
        if row["round"] == 4:
            assert read_state(folder).phase == "running"
            shutil.copytree(folder, copy)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment(), folder, on_row)
    copied, stopped = read_state(copy), read_state(folder)
    assert (copied.phase, copied.done, copied.planned) == ("unfinished", 4, 6)
    assert [round_ for round_, _ in copied.values("eval_accuracy")] == [0, 3]
    assert copied.versions.startswith("hiso-ray==")
    assert stopped.phase == "interrupted"
    resume(folder)
    done = read_state(folder)
    assert (done.phase, done.done, done.stopped) == ("finished", 6, None)
    assert done.last("eval_accuracy") == json.loads((folder / "summary.json").read_text())[
        "final_accuracy"
    ]  # fmt: skip


def test_a_run_that_broke_says_why(experiment: Make, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss):
        run(experiment(**{"method.lr": 1e30}), tmp_path / "a")
    state = read_state(tmp_path / "a")
    assert state.phase == "diverged"
    assert state.stopped is not None
    assert "lower method.lr" in state.stopped.error
    with pytest.raises(ZeroDivisionError):
        run(experiment(), tmp_path / "b", stop_with(ZeroDivisionError("a bug")))
    state = read_state(tmp_path / "b")
    assert state.phase == "failed"
    assert state.stopped is not None
    assert state.stopped.error.startswith("Traceback")
    (tmp_path / "b" / "stopped.json").write_text('{"kind":')
    assert read_state(tmp_path / "b").phase == "unfinished"


def test_a_finished_run_that_is_given_more_rounds_is_unfinished(
    experiment: Make, tmp_path: Path
) -> None:
    run(experiment(), tmp_path / "r")
    config = tmp_path / "r" / "config.yaml"
    config.write_text(config.read_text().replace("rounds: 6\n", "rounds: 9\n"))
    state = read_state(tmp_path / "r")
    assert (state.phase, state.done, state.planned, state.summary) == ("unfinished", 6, 9, None)


def test_times_and_faults_of_actors(tmp_path: Path) -> None:
    times = ActorTimes()
    times.add(1, 2, 0.5)
    times.add(0, 1, 0.25)
    times.add(1, 2, 1.5)
    times.write(tmp_path)
    assert read_actor_times(tmp_path) == [ActorTime(0, 1, 0.25), ActorTime(1, 4, 2.0)]
    assert read_actor_times(tmp_path)[1].per_turn == 0.5
    (tmp_path / "actors.csv").write_text("actor,turns\n0,x\n")
    assert read_actor_times(tmp_path) == []
    faults = Faults(tmp_path, lambda _: None)
    for actor in (3, None, 3):
        faults.add("hung", 1, "turns", "no answer", actor)
    assert by_actor(tmp_path) == {3: 2}
