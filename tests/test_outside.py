"""A method, a task and a benchmark from another package, by its entry points alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ENTRY_POINTS = """
[hiso_ray.methods]
quiet = mine_method:METHOD
[hiso_ray.tasks]
far = mine_task:TASK
[hiso_ray.benchmarks]
moods = mine_task:BENCHMARK
"""
METHOD = """
from dataclasses import replace
from hiso_ray.config.methods import METHODS

METHOD = replace(METHODS["hiso"], rule="HiSo on the sphere, with one number for H",
                 own={"curvature": "scalar", "num_perturbations": 3}, on_sphere=True)
"""
TASK = '''
from dataclasses import replace
from hiso_ray.tasks import quadratic
from hiso_ray.tasks.quadratic import build, count
from hiso_ray.tasks.row import Row
from hiso_ray.tasks.text.benchmark_row import Classification

TASK = Row("diagonal-8", "generated", "mine_task", frozenset(), layers=False)
BENCHMARK = Classification(
    data="generated", fields={"text": ("{text}",)}, prompt="{text} I feel", context="text",
    labels={"label": ("0", "1")}, verbalizers=((" bad", " good"),), names=("bad", "good"),
    max_length=64,
)


def prepare(experiment):
    """The quadratic, from twice as far away."""
    prepared = quadratic.prepare(experiment)
    return replace(prepared, x0=2 * prepared.x0)
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with an installed package, as pip leaves one."""
    info = tmp_path / "site" / "mine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "site" / "mine_method.py").write_text(METHOD)
    (tmp_path / "site" / "mine_task.py").write_text(TASK)
    return tmp_path / "site"


def hiso_ray(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    here = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "hiso_ray", *arguments],
        cwd=package.parent,
        env=os.environ | {"PYTHONPATH": f"{package}:{here}", "RAY_ADDRESS": ""},
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip


def test_a_method_and_a_task_from_outside_run_replay_and_resume(package: Path) -> None:
    own = ["--task.name", "far", "--method.name", "quiet", "--method.lr", "1e-2"]
    digests = {}
    for executor in ("serial", "ray"):
        done = hiso_ray(
            package, "run", *own, "--federation.rounds", "6", "--out", executor,
            "--resources.executor", executor, "--resources.max_actors", "2",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        summary = json.loads((package.parent / executor / "summary.json").read_text())
        assert (summary["method"], summary["task"], summary["model"]) == (
            "quiet", "far", "diagonal-8",
        )  # fmt: skip
        assert summary["curvature"] == "scalar"
        digests[executor] = summary["model_sha256"]
    assert digests["serial"] == digests["ray"]
    done = hiso_ray(package, "resume", "serial", "--federation.rounds", "9")
    assert done.returncode == 0, done.stderr
    replayed = hiso_ray(package, "replay", "serial")
    assert "the digest equals the one in summary.json" in replayed.stdout


def test_a_benchmark_from_outside_shows_its_prompts(package: Path) -> None:
    done = hiso_ray(
        package, "run", "--dry-run", "--task.name", "moods", "--task.model", "opt-reviews",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "I feel" in done.stdout
    assert "' good'" in done.stdout


def test_a_name_that_is_taken_is_refused(package: Path) -> None:
    path = package / "mine-1.0.dist-info" / "entry_points.txt"
    path.write_text(ENTRY_POINTS.replace("quiet", "hiso"))
    done = hiso_ray(package, "run", "--dry-run")
    assert done.returncode != 0
    assert (
        "the package mine brings 'hiso' for hiso_ray.methods, a name that is taken" in done.stderr
    )
