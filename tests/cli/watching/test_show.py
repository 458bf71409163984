"""``show``: every state in words, and commands that work as they stand."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from hiso_ray.cli.commands import main
from hiso_ray.cli.parser import parser

NEXT = "next\n"


def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[list[str]]]:
    """What ``show`` prints above its commands, unwrapped, and the commands."""
    capsys.readouterr()
    assert main(["show", str(folder)]) == 0
    text, _, below = capsys.readouterr().out.partition(NEXT)
    commands = [line.strip() for line in below.splitlines() if line.startswith("    ")]
    return " ".join(text.split()), [shlex.split(command) for command in commands]


def commanded(commands: list[list[str]], name: str) -> list[str]:
    (found,) = [words[1:] for words in commands if words[:2] == ["hiso-ray", name]]
    return found


def test_a_finished_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    text, commands = shown(finished, capsys)
    assert "state finished" in text
    assert "rounds 6 of 6" in text
    assert f"→ {summary['final_accuracy']:.2%} (best {summary['best_accuracy']:.2%}" in text
    assert "6 rounds, all checks hold" in text
    assert summary["model_sha256"] in text
    assert main(commanded(commands, "replay")) == 0
    assert (finished.parent / "a run-model" / "model.safetensors").exists()
    # What has been done once goes elsewhere the next time.
    assert commanded(shown(finished, capsys)[1], "replay")[-1].endswith("a run-model-2")
    assert main(commanded(commands, "resume")) == 0
    assert "rounds 12 of 12" in shown(finished, capsys)[0]


def test_an_interrupted_run_goes_on(interrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, commands = shown(interrupted, capsys)
    assert "state interrupted" in text
    assert "rounds 4 of 6" in text
    assert main(commanded(commands, "resume")) == 0
    assert "state finished" in shown(interrupted, capsys)[0]


def test_a_run_that_diverged_is_tried_more_gently(
    diverged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, commands = shown(diverged, capsys)
    assert "diverged: client 7, round 4: lower method.lr (now 0.02)" in text
    again = commanded(commands, "run")
    assert main(again) == 0
    gentler, _ = shown(Path(again[-1]), capsys)
    assert "learning rate 0.01" in gentler
    assert "state finished" in gentler


def test_killed_or_a_copy(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "last written 1 h 00 min ago" in shown(killed, capsys)[0]
    with open(killed / "ledger.jsonl", "a") as ledger:
        ledger.write('{"round": 4, "coh')
    with open(killed / "metrics.csv", "a") as table:
        table.write("what,is,this\n")
    text, commands = shown(killed, capsys)
    assert "no process of this machine runs it" in text
    assert "and a torn record of 17 bytes" in text
    assert "is no row of it: left out" in text
    assert commanded(commands, "resume") == ["resume", str(killed)]


def test_a_broken_ledger_is_said_and_not_resumed(
    killed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (killed / "ledger.jsonl").read_text().splitlines(keepends=True)
    (killed / "ledger.jsonl").write_text("".join([*lines[:2], "spoilt\n", *lines[3:]]))
    text, commands = shown(killed, capsys)
    assert "the record of round 1 (line 3) is corrupt" in text
    assert [words[1] for words in commands] == ["run", "report"]
    assert parser().parse_args(commands[0][1:]).out == f"{killed}-again"


def test_a_trial_is_resumed_by_its_sweep(
    interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = interrupted.parent / "s"
    (sweep / "runs").mkdir(parents=True)
    interrupted.rename(sweep / "runs" / "t")
    (sweep / "plan.yaml").write_text("name: rates\ngrid: {seed: [0, 1]}\n")
    expected = shlex.split(f"python -m hiso_ray.sweeps --resume --out {sweep}")
    assert expected in shown(sweep / "runs" / "t", capsys)[1]
    text, commands = shown(sweep, capsys)
    assert "1 unfinished, 1 waiting; no process of this machine runs it" in text
    assert expected in commands


def test_before_the_first_round(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ledger.jsonl", "metrics.csv", "faults.jsonl"):
        (killed / name).unlink()
    text, commands = shown(killed, capsys)
    assert "the run has not reached its first round" in text
    assert commands == [["hiso-ray", "resume", str(killed)]]
