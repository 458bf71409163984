"""The command line as a person uses it, in processes of its own."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from hiso_ray.cli.commands import main
from hiso_ray.cli.options import guarded, shown
from hiso_ray.cli.parser import parser
from hiso_ray.config.fields import known_fields
from hiso_ray.run_folder.ledger import Ledger

SMALL = ["--task.name", "digits", "--federation.num_clients", "6",
         "--federation.clients_per_round", "2", "--federation.rounds", "4",
         "--task.model", "mlp-8", "--eval.every", "2",
         "--resources.executor", "serial"]  # fmt: skip


def hiso(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hiso_ray", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_run_replay_report(tmp_path: Path) -> None:
    done = hiso("run", *SMALL, "--out", "a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "round 2/4" in done.stdout  # plain lines where there is no terminal
    assert "accuracy" in done.stdout
    digest = json.loads((tmp_path / "a" / "summary.json").read_text())["model_sha256"]
    again = hiso("run", "--config", "a/config.yaml", "--out", "b", cwd=tmp_path)
    assert json.loads((tmp_path / "b" / "summary.json").read_text())["model_sha256"] == digest, (
        again
    )
    replayed = hiso("replay", "a", "--export", "model", cwd=tmp_path)
    assert replayed.returncode == 0
    assert "the digest equals" in replayed.stdout
    assert (tmp_path / "model" / "model.safetensors").exists()
    reported = hiso("report", "a", "--out", "seen", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert "report.html in seen" in reported.stdout
    assert (tmp_path / "seen" / "every-run.pdf").read_bytes()[:4] == b"%PDF"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["run", "--method.lrr", "1"],
            ["unrecognized", "--method.lrr", "did you mean --method.lr?"],
        ),
        (["run", "--method.lr", "-1"], ["method.lr = '-1'", "greater than 0"]),
        (["run", "--method.lr", "-1e-3"], ["method.lr = '-1e-3'", "greater than 0"]),
        (["run", "--method.mu", "0"], ["method.mu = '0'", "greater than 0"]),
        (["run", "--method.num_perturbations", "0"], ["method.num_perturbations = '0'"]),
        (["run", "--federation.local_steps", "0"], ["federation.local_steps = '0'"]),
        (["run", "--federation.clients_per_round", "65"], ["larger than the federation"]),
        (
            ["run", "--task.name", "digits", "--federation.num_clients", "9999"],
            ["9999", "at most 1437"],
        ),
        (["run", "--task.name", "nope"], ["unknown task", "digits"]),
        (["run", "--config", "missing.yaml"], ["cannot read"]),
        (["replay", "."], ["not a run folder"]),
        (["resume", "."], ["not a run folder"]),
        (["report", "."], ["neither a run folder"]),
        (["show", "nowhere"], ["nowhere is not a folder"]),
        (["watch", "nowhere"], ["nowhere is not a folder"]),
        (["watch", "."], ["neither a run folder (config.yaml) nor a sweep folder (plan.yaml)"]),
        (["watch", ".", "--every", "0"], ["0: give seconds, from 0.1 to 86400"]),
        (["watch", ".", "--every", "nan"], ["nan: give seconds"]),
    ],
)
def test_mistakes_exit_2_and_say_what_to_change(
    arguments: list[str], words: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    error = capsys.readouterr().err
    assert status == 2
    assert all(word in error for word in words), error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("inside", "out"), [(True, "r"), (False, "r"), (True, None)])
def test_a_job_is_told_that_its_working_directory_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    inside: bool, out: str | None,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if inside:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert main(["run", *SMALL, *(["--out", out] if out else [])]) == 0
    assert ("give --out an absolute path" in capsys.readouterr().out) == inside


def test_help_teaches_every_field(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        parser().parse_args(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, info in known_fields().items():
        assert f"--{name} " in text
        assert " ".join(info.description.split()) in text
        assert f"(default: {shown(info.default)})" in text


@pytest.mark.parametrize(
    ("executor", "sent"),
    [
        ("serial", signal.SIGINT),
        ("ray", signal.SIGTERM),
        pytest.param("ray", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_leaves_a_readable_ledger_that_resumes(
    tmp_path: Path, executor: str, sent: signal.Signals
) -> None:
    arguments = [*SMALL[:-1], executor, "--federation.rounds", "100000", "--out", "r"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hiso_ray", "run", *arguments],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        # A test run in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    ledger = tmp_path / "r" / "ledger.jsonl"
    deadline = time.monotonic() + 120
    try:
        while not (ledger.exists() and ledger.read_bytes().count(b"\n") > 5):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(sent)
        _, error = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, error
    assert "resume" in error
    assert "Traceback" not in error
    assert len(Ledger.read(ledger).records) >= 5


def test_names_and_consoles_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    name = "lauf-\u00fc [/x] 50%"
    done = hiso("run", *SMALL, "--out", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lauf-?[/x]50%" in re.sub(r"[|\s]", "", done.stdout)  # a table folds it
    assert (tmp_path / name / "summary.json").exists()
    assert hiso("run", "--help", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("entry", ["hiso_ray.cli", "hiso_ray.sweeps.cli"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_help_goes_to_any_console(
    monkeypatch: pytest.MonkeyPatch, entry: str, encoding: str
) -> None:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as ended:
        import_module(entry).main(["run", "--help"] if entry == "hiso_ray.cli" else ["--help"])
    stream.flush()
    assert ended.value.code == 0
    assert b"usage:" in buffer.getvalue()


def test_a_fault_of_the_program_shows_where_it_is() -> None:
    # Only a UserError is the user's: a ValueError of a library, or of ours, is not.
    def fails() -> int:
        raise ValueError("operands could not be broadcast together")

    with pytest.raises(ValueError, match="operands"):
        guarded("hiso-ray", fails, "")


def test_nothing_of_ours_raises_a_bare_value_error_at_its_user() -> None:
    # Pydantic collects those of validators; `method` is a library, whose caller is our own code.
    root = Path(__file__).parents[2]
    files = [f for name in ("hiso_ray", "analysis", "sweeps") for f in (root / name).rglob("*.py")]
    found = {}
    for file in files:
        tree = ast.parse(text := file.read_text())
        validators = [
            node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
            and (any("validator" in ast.unparse(d) for d in node.decorator_list)
                 or f"Validator({node.name})" in text)
        ]  # fmt: skip
        fine = {id(inner) for node in validators for inner in ast.walk(node)}
        raised = [
            node.lineno for node in ast.walk(tree) if isinstance(node, ast.Raise)
            and node.exc is not None and re.match(r"ValueError\b", ast.unparse(node.exc))
            and id(node) not in fine
        ]  # fmt: skip
        if raised and "method" not in file.relative_to(root).parts:
            found[str(file.relative_to(root))] = raised
    assert found == {}
