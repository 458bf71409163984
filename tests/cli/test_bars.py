"""Long steps in a terminal, and silence elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hiso_ray import progress
from hiso_ray.cli import bars
from hiso_ray.cli.bars import Bar, Steps


def test_steps_are_shown_with_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "MOMENT_SECONDS", -1.0)
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Bar(console, "trial", 3) as bar:
        assert bar.show(1, "2 running")
        with progress.step("reading"):
            for number in progress.parts("tokenizing", range(4)):
                assert bar._progress is not None
                bar._progress.refresh()
                done = [(t.description, t.completed, t.total) for t in bar._progress.tasks]
                assert done == [("trial", 1, 3), ("reading", 0, None), ("tokenizing", number, 4)]
        assert [task.description for task in bar._progress.tasks] == ["trial"]
    text = console.file.getvalue()
    assert all(word in text for word in ("tokenizing", "3/4", "2 running"))
    assert list(progress.counted("nobody listens now", iter("ab"), 2)) == ["a", "b"]


def test_a_step_that_fails_is_taken_away_and_elsewhere_there_are_none() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with pytest.raises(ZeroDivisionError), Steps(console) as steps, progress.step("dividing"):
        raise ZeroDivisionError
    assert steps._progress is not None
    assert steps._progress.tasks == []
    console = Console(file=io.StringIO(), width=80)
    with Bar(console, "round", 2) as bar, progress.step("reading"):
        assert not bar.show(1, "")
    assert console.file.getvalue() == ""
