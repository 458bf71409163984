"""What an installation holds, and that folders beside its user do not get in its way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
DIGITS = ["--task.name", "digits", "--federation.rounds", "1", "--resources.executor", "serial"]


def ran(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_takes_one_name_and_works_beside_folders_of_its_own_names(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", ROOT, checkout], check=True)
    wheels, installed, home = (tmp_path / name for name in ("wheels", "installed", "home"))
    ran("-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), ".", cwd=checkout)
    (wheel,) = wheels.iterdir()
    with ZipFile(wheel) as content:
        names = content.namelist()
        content.extractall(installed)
    tops = {name.partition("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"hiso_ray"}
    assert {"hiso_ray/analysis/page.html", "hiso_ray/sweeps/__main__.py"} <= set(names)
    for name in ("analysis", "sweeps"):
        (home / name).mkdir(parents=True)
        (home / name / "__init__.py").write_text("raise RuntimeError('the user has their own')")
    where = {"PYTHONPATH": str(installed)}
    found = ran("-c", "import hiso_ray; print(hiso_ray.__file__)", cwd=home, **where)
    assert Path(found.strip()).is_relative_to(installed)
    said = ran("-m", "hiso_ray", "run", *DIGITS, "--out", "r", cwd=home, **where)
    assert "could not be drawn" not in said
    assert (home / "r" / "convergence.png").exists()
    ran("-m", "hiso_ray", "report", "r", cwd=home, **where)
    assert (home / "report" / "report.html").exists()
    planned = ran("-m", "hiso_ray.sweeps", "lr_grid", "--dry-run", cwd=home, **where)
    assert "trials" in planned
    helped = ran("-m", "hiso_ray.sweeps", "--help", cwd=home, **where)
    assert helped.startswith("usage: python -m hiso_ray.sweeps SWEEP")
