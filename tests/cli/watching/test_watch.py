"""``watch``: follows what runs, ends when it is over, and needs files only."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hiso_ray import Experiment, run
from hiso_ray.cli.commands import main
from hiso_ray.cli.watching import watch as watching
from hiso_ray.cli.watching.watch import read_view, watch

Make = Callable[..., Experiment]


def test_a_run_is_followed_to_its_end(
    experiment: Make, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    begun, seen = threading.Event(), threading.Event()

    def on_row(row: dict[str, Any]) -> None:
        if row["round"] == 4:
            begun.set()
            assert seen.wait(60)

    runner = threading.Thread(target=run, args=(experiment(), tmp_path / "r", on_row))
    runner.start()
    assert begun.wait(60)
    view = read_view(tmp_path / "r")
    assert view.running
    assert view.line().startswith("round 4/6  loss ")
    assert view.line().endswith(" left")
    sleep = time.sleep

    def looked(seconds: float) -> None:
        seen.set()
        sleep(seconds)

    monkeypatch.setattr(watching.time, "sleep", looked)
    assert main(["watch", str(tmp_path / "r"), "--every", "0.1"]) == 0
    runner.join()
    first, *others, verdict = capsys.readouterr().out.splitlines()
    assert first.startswith("round 4/6")
    assert others[-1].startswith("round 6/6")
    assert len(set(others)) == len(others)  # a line per change
    assert verdict.startswith(f"{tmp_path / 'r'}: finished")


@pytest.mark.parametrize(
    ("state", "status", "words"),
    [
        ("finished", 0, "finished"),
        ("interrupted", 1, "interrupted"),
        ("diverged", 1, "diverged: client 7, round 4"),
        ("killed", 1, "no process of this machine runs it"),
    ],
)
def test_what_is_over_ends_at_once(
    request: pytest.FixtureRequest, state: str, status: int, words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["watch", str(request.getfixturevalue(state))]) == status
    assert words in capsys.readouterr().out


def test_a_copy_that_grows_is_followed(
    finished: Path,
    killed: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = iter(("metrics.csv", "ledger.jsonl", "summary.json"))
    (killed / "metrics.csv").touch()  # a copy was made just now

    def copied(_: float) -> None:
        name = next(looks)
        shutil.copyfile(finished / name, killed / name)

    monkeypatch.setattr(watching.time, "sleep", copied)
    assert main(["watch", str(killed)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["round 4/6", "round 6/6"]


def test_in_a_terminal_there_are_curves_in_any_width(
    experiment: Make, tmp_path: Path, interrupted: Path
) -> None:
    changes = {"devices.profile": "drawn", "devices.deadline": 1.8, "federation.rounds": 20}
    run(experiment(**changes), tmp_path / "late")
    sweep = tmp_path / "s"
    (sweep / "runs").mkdir(parents=True)
    (tmp_path / "late").rename(sweep / "runs" / "late")
    interrupted.rename(sweep / "runs" / "i")
    (sweep / "plan.yaml").write_text("name: two\ngrid: {seed: [0, 1]}\n")
    told = {}
    for folder in (sweep, sweep / "runs" / "late", sweep / "runs" / "i"):
        for width in (30, 100):
            console = Console(file=io.StringIO(), force_terminal=True, width=width)
            status = watch(folder, console, 0.1) if folder.name == "late" else None
            console.print(read_view(folder).screen())
            told[folder.name, width] = console.file.getvalue()
            assert status in (0, None)
    assert all(any("\u2801" <= c <= "\u28ff" for c in text) for text in told.values())
    assert "late most often" in told["late", 100]
    assert "1 finished, 1 unfinished" in told["s", 100]
