"""Every notebook runs, on a sweep that was really run, or on runs of its own."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "run_notebooks.py"))
# a sweep to read, pictures, tables, and words that must stand in the outputs
SHOWN = {
    "first_federation": (
        None,
        2,
        0,
        ["2,410 trainable", "a plan of 16 runs", "'finished': 16", "skew.pdf: Score against"],
    ),
    "convergence": ("stress_sweep", 3, 1, ["32 trials", "HiSo", "(highest tried)"]),
    "stress": ("stress_sweep", 2, 2, ["a fair comparison", "neither", "not reached"]),
    "learning_rates": ("stress_sweep", 1, 2, ["0.01, 0.02", "a better one may lie beyond"]),
    "curvature": ("curvature_sweep", 8, 1, ["shown: 12 trials", "12 of them", "HiSo (oracle H)"]),
    "communication": ("probe_sweep", 4, 1, ["14 trials", "paper's rule", "protocol, down"]),
}


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", SHOWN)
def test_notebooks_run(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, pictures, tables, words = SHOWN[name]
    if sweep:
        monkeypatch.setenv("HISO_SWEEP", str(request.getfixturevalue(sweep)))
    monkeypatch.setenv("HISO_RUNS", str(tmp_path))
    done = SCRIPT["executed"](ROOT / "analysis" / f"{name}.ipynb")
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    data = [output.get("data", {}) for output in outputs]
    assert [o.text for o in outputs if o.get("name") == "stderr"] == []
    assert sum("image/png" in shown for shown in data) == pictures
    assert sum("text/markdown" in shown for shown in data) == tables
    text = "\n".join([*(o.get("text", "") for o in outputs), *map(_words, data)])
    for word in words:
        assert word in text
    assert os.fspath(ROOT) not in text


def _words(shown: dict[str, str]) -> str:
    return shown.get("text/markdown", "") + shown.get("text/plain", "")


def test_all_notebooks_are_tested_and_valid() -> None:
    paths = list((ROOT / "analysis").glob("*.ipynb"))
    assert {path.stem for path in paths} == set(SHOWN)
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        ids = [cell.id for cell in notebook.cells]
        assert len(ids) == len(set(ids)) <= 10
