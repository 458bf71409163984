"""Run folders in every state, from real runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, run
from hiso_ray.errors import NonFiniteLoss

Make = Callable[..., Experiment]


def age(folder: Path, seconds: float) -> None:
    """Makes every file look as if it had been written that long ago."""
    for path in folder.rglob("*"):
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


@pytest.fixture
def finished(experiment: Make, tmp_path: Path) -> Path:
    run(experiment(), tmp_path / "a run")  # a name that a shell would take apart
    return tmp_path / "a run"


@pytest.fixture
def interrupted(experiment: Make, tmp_path: Path) -> Path:
    def on_row(row: dict[str, Any]) -> None:
        if row["round"] == 4:
            shutil.copytree(tmp_path / "i", tmp_path / "killed")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment(), tmp_path / "i", on_row)
    return tmp_path / "i"


@pytest.fixture
def killed(interrupted: Path) -> Path:
    """As a kill an hour ago leaves it, or as a copy of a run that goes on elsewhere looks."""
    folder = interrupted.with_name("killed")
    age(folder, 3600)
    return folder


@pytest.fixture
def diverged(experiment: Make, tmp_path: Path) -> Path:
    def on_row(row: dict[str, Any]) -> None:
        if row["round"] == 4:
            raise NonFiniteLoss("client 7, round 4: lower method.lr (now 0.02)")

    with pytest.raises(NonFiniteLoss):
        run(experiment(), tmp_path / "d", on_row)
    return tmp_path / "d"
