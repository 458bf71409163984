"""How a sweep stands, read from its files: every kind of ending, and a copy without its data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hiso_ray import Experiment, run
from hiso_ray.analysis import load
from hiso_ray.analysis.sweep_files import sweep_of
from hiso_ray.analysis.sweep_state import read_sweep_state
from hiso_ray.errors import UserError

Make = Callable[..., Experiment]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("curves.convergence", "skew.who_holds_what"):
        monkeypatch.setattr(f"hiso_ray.analysis.{name}", lambda *_: None)


@pytest.fixture
def made(experiment: Make, tmp_path: Path) -> Path:
    """Two rates finished, one failed, one interrupted, two never begun."""
    folder = tmp_path / "s"
    outcomes = []
    for rate, ending in ((0.01, None), (0.02, None), (0.04, "failed"), (0.08, "unfinished")):
        name = f"digits-hiso-{rate}"

        def on_row(row: dict[str, object], ending: str | None = ending) -> None:
            if ending is not None and row["round"] == 4:
                raise KeyboardInterrupt

        chosen = experiment(**{"method.lr": rate, "resources.direction_cache_mb": 100 * rate})
        try:
            run(chosen, folder / "runs" / name, on_row)
        except KeyboardInterrupt:
            outcomes.append(
                {"trial": name, "status": ending, "error": "no\nroom", "error_kind": "E"}
            )
    (folder / "outcomes.jsonl").write_text("\n".join(map(json.dumps, outcomes)))
    (folder / "plan.yaml").write_text(
        "name: rates\ngrid: {method.lr: [0.01, 0.02, 0.04, 0.08, 0.1, 0.2]}\n"
        "base: {task.name: sst2, task.data: /on/another/machine}\n"
    )
    return folder


def test_every_kind_of_trial_is_counted(made: Path) -> None:
    sweep = read_sweep_state(made)
    assert sweep.counts == {"finished": 2, "failed": 1, "unfinished": 1, "waiting": 2}
    assert (sweep.name, sweep.planned, sweep.running, sweep.over) == ("rates", 6, False, False)
    assert [trial.label for trial in sweep.trials] == [
        f"hiso lr={rate}" for rate in (0.01, 0.02, 0.04, 0.08)
    ]
    assert [trial.error for trial in sweep.of_status("failed")] == ["no\nroom"]
    scores = [trial.score for trial in sweep.ranked]
    assert scores == sorted(scores, reverse=True)
    assert sweep_of(made / "runs" / "digits-hiso-0.01") == made
    assert sweep_of(made) is None


def test_a_report_on_a_running_sweep_knows_what_failed(made: Path) -> None:
    trials = load.trials([made])
    assert trials["status"].tolist() == ["finished", "finished", "failed", "unfinished"]
    assert trials["error_kind"].dropna().tolist() == ["E", "E"]


@pytest.mark.parametrize("plan", ["grid: {method.lr: [1]}", "- a", "name: a\ngrid: {method.lr: 1}"])
def test_a_plan_that_is_none_is_named(tmp_path: Path, plan: str) -> None:
    (tmp_path / "plan.yaml").write_text(plan)
    with pytest.raises(UserError, match=r"plan\.yaml"):
        read_sweep_state(tmp_path)
