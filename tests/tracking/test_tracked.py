"""Whatever a tracker does, the run goes on, ends with the same weights, and says so once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import pytest

from hiso_ray import Experiment, replay, resume, run
from hiso_ray.config.fields import explain
from hiso_ray.errors import UserError
from hiso_ray.run_folder.metrics_reader import Row, read_rows
from hiso_ray.tracking import background, tracked
from hiso_ray.tracking.contract import Tracker
from hiso_ray.tracking.secrets import without_secrets

Make = Callable[..., Experiment]


class Recorder(Tracker):
    """Keeps what it is given; the class does, as each process of a run makes a tracker."""

    library = "json"
    place = "here"
    opened: ClassVar[list[str | None]]
    rounds: ClassVar[list[int]]
    ends: ClassVar[list[Any]]

    def open(self, earlier: str | None) -> str | None:
        self.opened.append(earlier)
        return "the id"

    def rows(self, rows: Sequence[Row]) -> None:
        self.rounds.extend(row["round"] for row in rows)

    def summary(self, summary: Any) -> None:
        self.ends.append(summary["rounds"])

    def model(self, folder: Path) -> None:
        self.ends.append(sorted(path.name for path in folder.iterdir()))

    def close(self, finished: bool) -> None:
        self.ends.append(finished)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    """Stands in for MLflow."""

    for name in ("opened", "rounds", "ends"):
        monkeypatch.setattr(Recorder, name, [], raising=False)
    monkeypatch.setitem(tracked.KINDS, "mlflow", Recorder)
    return Recorder


def test_a_resumed_run_goes_on_where_the_tracker_was_left(
    experiment: Make, recorder: type[Recorder], tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(row: Row) -> None:
        if row["round"] == 2:
            raise Killed

    with pytest.raises(Killed):
        run(experiment(tracking=["mlflow"]), tmp_path / "r", kill)
    assert (recorder.rounds, recorder.ends) == ([0, 1, 2], [False])
    mark = tmp_path / "r" / "tracking" / "mlflow.json"
    mark.write_text('{"run": "the id", "round": 1}')  # killed before the row of round 2 was sent
    resume(tmp_path / "r")
    assert recorder.opened == [None, "the id"]
    assert recorder.rounds == [0, 1, 2, 2, 3, 4, 5, 6]
    assert recorder.ends == [False, 6, True]
    mark.write_text('{"run": "another id", "round": 6}')  # which the tracker no longer has
    replay(tmp_path / "r", export=tmp_path / "model")
    assert recorder.rounds[8:] == [0, 1, 2, 3, 4, 5, 6]
    assert recorder.ends[3:] == [6, sorted(p.name for p in (tmp_path / "model").iterdir()), True]


@pytest.mark.parametrize("fails", ["open", "rows", "summary", "close"])
def test_a_tracker_that_fails_is_said_once_and_stops_nothing(
    experiment: Make,
    recorder: type[Recorder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: str,
) -> None:
    def fail(self: Any, *_: Any) -> None:
        raise ConnectionError("no answer from https://me:hush@host/api\nand more lines")

    monkeypatch.setattr(recorder, fails, fail)
    notes: list[str] = []
    shown = run(experiment(tracking=["mlflow"]), tmp_path / "r", on_note=notes.append)
    assert shown["model_sha256"] == run(experiment(), tmp_path / "plain")["model_sha256"]
    (said,) = (note for note in notes if note.startswith("warning: mlflow"))
    assert "(ConnectionError: no answer from https://host/api)" in said
    assert f"hiso-ray resume {tmp_path / 'r'}" in said
    assert read_rows(tmp_path / "r" / "metrics.csv")[-1]["round"] == 6


@pytest.mark.parametrize("most", [2, 10_000])  # the queue overflows, or the end is waited for
def test_a_tracker_that_hangs_is_left_behind(
    experiment: Make,
    recorder: type[Recorder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    over = Event()
    monkeypatch.setattr(recorder, "rows", lambda self, rows: over.wait())
    monkeypatch.setattr(background, "MOST_WAITING", most)
    monkeypatch.setattr(tracked, "CLOSE_SECONDS", 0.1)
    notes: list[str] = []
    try:
        summary = run(experiment(tracking=["mlflow"]), tmp_path / "r", on_note=notes.append)
    finally:
        over.set()
    assert summary["rounds"] == 6
    (said,) = (note for note in notes if note.startswith("warning: mlflow"))
    assert ("2 rows behind" if most == 2 else "took too long to close") in said


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked.WandB, "library", "wandb_of_nobody")
    # W&B makes a folder of its own name where it runs; it is no library.
    (tmp_path / "wandb_of_nobody").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(UserError, match=r"wandb: it is not installed.*'hiso-ray\[wandb\]'"):
        run(experiment(tracking=["wandb"]), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_trackers_are_named_and_decide_no_result(experiment: Make) -> None:
    assert experiment(tracking="mlflow, wandb").tracking == ("mlflow", "wandb")
    assert experiment(tracking="").tracking == ()
    assert experiment(tracking=[]).digest() == experiment().digest()
    with pytest.raises(ValueError, match="mlfow") as caught:
        experiment(tracking=["mlfow"])
    assert explain(caught.value) == (  # type: ignore[arg-type]
        "tracking: mlfow is no tracker: choose from tensorboard, mlflow, wandb"
    )
    assert set(tracked.KINDS) == {"tensorboard", "mlflow", "wandb"}


def test_nothing_is_shown_of_a_run_without_a_row(
    experiment: Make, recorder: type[Recorder], tmp_path: Path
) -> None:
    with tracked.tracked(experiment(tracking=["mlflow"]), tmp_path, print):
        pass
    assert recorder.opened == []


def test_credentials_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k3y")
    assert without_secrets("k3y at http://a:b@c/d@e and http://c/d") == (
        "*** at http://c/d@e and http://c/d"
    )
