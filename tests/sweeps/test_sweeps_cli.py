"""``python -m sweeps``: the plan, what is asked for, what cannot be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hiso_ray.sweeps import Sweep, cli, folder
from hiso_ray.sweeps.cli import main
from hiso_ray.sweeps.ready import READY
from hiso_ray.sweeps.table import read_sweep

Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def call(*arguments: str) -> tuple[int, str]:
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        told = capsys.readouterr()
        return status, told.out + told.err

    return call


def test_the_help_teaches(say: Say) -> None:
    status, told = say("--help")
    assert status == 0
    for name, sweep in READY.items():
        assert f"{name:<10} {sweep.about}" in told
    assert "--method.lr FLOAT [FLOAT ...]" in told
    assert "which sweep? Name it first: stress" in say("--seed", "0", "1", "stress")[1]


def test_the_plan_counts_what_is_to_be_run(say: Say, tmp_path: Path) -> None:
    axes = ["--method.lr", "0.01", "1e-2", "0.02", "--seed", "0", "1"]
    status, told = say("lr_grid", "--dry-run", *axes)
    assert status == 2
    assert "two trials are the same run" in told  # 0.01 is 1e-2
    status, told = say("lr_grid", "--dry-run", *axes[:2], *axes[3:], "--federation.rounds", "10")
    assert status == 0
    rows = dict(re.findall(r"│ ([\w. ]+?) +│ (.+?) +│", told))
    assert rows["method.name"] == "hiso, decomfl"
    assert rows["method.lr"] == "0.01, 0.02"
    assert rows["cells"].startswith("4 ")
    assert rows["trials"] == "8, of which 0 are there already"
    assert rows["rounds"] == "80"
    assert rows["forward passes"].startswith(f"{80 * 8 * 6:,} ")
    assert rows["evaluations"].startswith("16 ")  # at rounds 0 and 10


def test_a_plan_knows_what_is_there(say: Say, tmp_path: Path) -> None:
    sweep = READY["lr_grid"].smoked().changed({"method.name": "hiso"})
    trials = sweep.trials()
    with folder.opened(tmp_path / "s", sweep, trials, False):
        folder.write_plan(tmp_path / "s", sweep)
        run = folder.run_folder(tmp_path / "s", trials[0])
        run.mkdir()
        (run / "summary.json").write_text(json.dumps({"rounds": 10}))
    asked = ["lr_grid", "--smoke", "--method.name", "hiso", "--dry-run"]
    assert "2, of which 1 are there already" in say(*asked, "--out", str(tmp_path / "s"))[1]
    assert (
        "2, of which 1 are there" in say("--resume", "--dry-run", "--out", str(tmp_path / "s"))[1]
    )
    assert "2, of which 0 are there already" in say(*asked, "--out", str(tmp_path / "t"))[1]
    other = [*asked, "--method.lr", "0.5", "--out", str(tmp_path / "s")]
    assert "of another plan" in say(*other)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "no such sweep (ready ones: stress,"),
        (["--resume"], "needs --out"),
        (["none.yaml"], "No such file"),
        (["stress", "--method.lrr", "1"], "did you mean --method.lr?"),
        (["stress", "--method.lr", "fast"], "method.lr = 'fast'"),
        (["stress", "--concurrency", "0"], "0: give a whole number, 1 or more"),
        (["stress", "--concurrency", "9999", "--dry-run"], "at most --concurrency"),
        (["stress", "--resources.cpus_per_client", "9999", "--dry-run"], "lower cpus_per_client"),
        (["stress", "--federation.clients_per_round", "9"], "with federation.num_clients = 8"),
    ],
)
def test_what_cannot_be_ends_with_2_and_words(
    say: Say, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, told = say(*arguments)
    assert status == 2
    assert message in told
    assert not any(tmp_path.iterdir())


def test_the_example_of_the_documentation_is_a_sweep(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "sweeps.md").read_text()
    (table,) = re.findall(r"```yaml\n(.+?)```", page, re.DOTALL)
    (tmp_path / "rates.yaml").write_text(table)
    sweep = read_sweep(str(tmp_path / "rates.yaml"))
    assert isinstance(sweep, Sweep)
    assert len(sweep.trials()) == 27
    assert len(sweep.smoked().trials()) == 9


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["finished", "stopped"], 0),
        (["finished", "failed"], 1),
        (["finished", "unfinished"], 1),
    ],
)
def test_the_end_is_told_whatever_an_error_says(
    statuses: list[str], expected: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    error = "first line\n[enforce fail at alloc.cpp] no [/memory] left"
    table = pd.DataFrame({"run": ["runs/a", "runs/b"], "status": statuses, "error": [None, error]})
    assert cli._conclude(table, tmp_path, cli.console()) == expected
    told = capsys.readouterr().out
    assert f"2 trials: 1 finished, 1 {statuses[1]}" in told
    assert ("[enforce fail at alloc.cpp] no [/memory] left" in told) == ("failed" in statuses)
