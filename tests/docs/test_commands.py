"""What the pages tell a reader to type is accepted, and runs where it can.

Every command of the console blocks goes through the parser and the schema; those that need no file
or model of the reader's are planned with ``--dry-run``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hiso_ray import config, run, tasks
from hiso_ray.cli import main
from hiso_ray.cli.options import fields_given
from hiso_ray.cli.parser import parser
from hiso_ray.config import Experiment
from hiso_ray.sweeps import cli as sweeps

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
}
# Of the shell, of Ray, MLflow, Slurm and Kubernetes; tests/execution submit a job to Ray and to a
# stand-in of Slurm.
OTHERS = {"awk", "cp", "curl", "do", "export", "for", "mkdir", "pip", "source"} | {
    "kubectl", "mlflow", "ray", "sbatch",
}  # fmt: skip


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


def typed(page: str) -> Iterator[list[str]]:
    """The words of each command of a page's console blocks; a Ray job's is a command by itself."""
    for block in blocks(page, "console"):
        for line in re.findall(r"^\$ (.*)$", block.replace("\\\n", ""), re.MULTILINE):
            words = shlex.split(line, comments=True)
            ends = [i for i, word in enumerate(words) if word in ("&&", "--")]
            for start, end in zip([0, *(i + 1 for i in ends)], [*ends, None], strict=True):
                command = words[start:end]
                while command and re.fullmatch(r"\w+=.*", command[0]):
                    del command[0]
                if command:
                    yield command


@pytest.fixture
def checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A folder as the reader's: the checkout's folders, and the YAML files that the page shows, in
    the order in which its commands name them."""
    for name in ("benchmarks", "configs", "docs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    page = request.getfixturevalue("page")
    named = dict.fromkeys(w for words in typed(page) for w in words if w.endswith(".yaml"))
    shown = blocks(page, "yaml")
    for number, name in enumerate(name for name in named if not (tmp_path / name).exists()):
        text = shown[min(number, len(shown) - 1)]
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def accept(words: list[str]) -> None:
    """Fails where the program would refuse the command before it reads a model or data."""
    match words:
        case ["hiso-ray", *rest] | ["python", "-m", "hiso_ray", *rest]:
            given = parser().parse_args(rest)
            if given.command == "run":
                values = config.read_yaml(given.config) if given.config else {}
                for name, value in fields_given(given).items():
                    config.put(values, name, value)
                tasks.resolve(Experiment.model_validate(values))
        case ["python", "-m", "sweeps", *rest]:
            given = sweeps.parser().parse_args(rest)
            assert given.sweep or given.resume
            if given.sweep:
                assert sweeps._asked_for(given).trials()
        case ["python", "-c", code]:
            compile(code, "-c", "exec")
        case ["python", script, *_]:
            assert Path(script).is_file()
        case ["make", *targets]:
            made = [target for target in targets if "=" not in target]
            assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in made)
        case [program, *_]:
            assert program in OTHERS


@pytest.mark.parametrize("page", [page for page in PAGES if list(typed(page))])
def test_commands_are_accepted(page: str, checkout: None) -> None:
    for words in typed(page):
        try:
            accept(words)
        except (Exception, SystemExit) as error:
            raise AssertionError(shlex.join(words)) from error


@pytest.mark.parametrize("page", PAGES)
def test_python_and_yaml_parse(page: str) -> None:
    for block in blocks(page, "python"):
        compile(block if block[0].isalpha() else f"{{{block}}}", page, "exec")
    for block in blocks(page, "yaml"):
        assert yaml.safe_load(block)


def plans(page: str) -> list[list[str]]:
    """The runs that need no file of the reader's (in capitals, or of ``my/``) and no tracker."""
    whole = [words[1:] for words in typed(page) if words[:2] == ["hiso-ray", "run"]]
    own = re.compile(r"([A-Z]+|my/.*|.*\.csv|(experiment|reviews)\.yaml|.*mlflow.*)")
    return [words for words in whole if not any(own.fullmatch(word) for word in words)]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if plans(page)])
def test_runs_are_planned(page: str, checkout: None, capsys: pytest.CaptureFixture[str]) -> None:
    for words in plans(page):
        assert main([*words, "--dry-run"]) == 0, shlex.join(words)
        assert "forward passes" in capsys.readouterr().out


def test_the_readmes_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fewer_rounds(experiment: Experiment, **given: Any) -> dict[str, Any]:
        small = {"federation.rounds": 2, "resources.executor": "serial", "task.eval_examples": 32}
        return run(experiment.changed(**small), **given)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hiso_ray.run", fewer_rounds, raising=False)
    (block,) = blocks("README.md", "python")
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("0 ")
    assert (tmp_path / "runs" / "from-python" / "summary.json").exists()
