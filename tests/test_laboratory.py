"""The laboratory's candidates (``benchmarks/candidates``) are the package's methods, where it has
them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hiso_ray import Experiment, run
from hiso_ray.run_folder import files

ROOT = Path(__file__).parents[1]
ROUNDS = 6
FIELDS: dict[str, Any] = {
    "task.name": "digits",
    "federation.num_clients": 16,
    "federation.rounds": ROUNDS,
    "method.name": "decomfl",
    "method.lr": 0.08,
    "eval.every": ROUNDS,
    "resources.executor": "serial",
}
SAME = {
    "DeComFL": {},
    "P = 20": {"method.num_perturbations": 20},
    "own directions": {"method.directions": "per_client"},
    "calibrated": {"method.client_loss": "calibrated"},
    "scalar H": {"method.name": "hiso", "method.curvature": "scalar"},
}


@pytest.mark.parametrize("name", SAME)
def test_a_candidate_is_the_packages_method(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from candidates import run as laboratory
    from candidates.catalogue import SCAN
    from candidates.federation import Federation

    experiment = Experiment().changed(**FIELDS | SAME[name])
    run(experiment, tmp_path / "r")
    rows = pd.read_csv(tmp_path / "r" / files.METRICS).set_index("round")
    candidate = replace(SCAN[name], grid=(experiment.method.lr,))
    (mine,) = laboratory.run(Federation(experiment), candidate, ROUNDS, ROUNDS)
    moved = rows.eval_loss[ROUNDS] - rows.eval_loss[0]
    assert abs(moved) > 0.01
    assert mine["loss"] - rows.eval_loss[0] == pytest.approx(moved, rel=1e-2)
    assert mine["forwards"] == rows.forward_passes[ROUNDS]
