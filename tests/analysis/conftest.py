"""A small sweep that was really run, for the tests that read one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hiso_ray import run
from sweeps import folder, run_sweep
from sweeps.ready import READY


@pytest.fixture(autouse=True)
def no_pictures() -> None:
    """Here they are drawn."""


def swept(name: str, out: Path, **changes: Any) -> Path:
    """A ready sweep in tiny, its trials run one after the other in this process, without pictures:
    Ray and Matplotlib would take ten times as long as the rounds."""
    sweep = READY[name].smoked().changed({"resources.executor": "serial", **changes})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.curves.convergence", lambda *_: None)
        patch.setattr("analysis.skew.who_holds_what", lambda *_: None)
        for trial in sweep.trials():
            run(trial.experiment, folder.run_folder(out, trial))
    folder.write_plan(out, sweep)
    run_sweep(sweep, out, resume=True)
    return out


@pytest.fixture(scope="session")
def stress_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clients × skew × method × two rates × two seeds, 40 rounds each."""
    changes = {"method.lr": [0.01, 0.02], "seed": [0, 1], "federation.rounds": 40, "eval.every": 4}
    return swept("stress", tmp_path_factory.mktemp("sweeps") / "stress", **changes)


@pytest.fixture(scope="session")
def probe_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """μ, P and τ one at a time."""
    out = tmp_path_factory.mktemp("sweeps") / "probe"
    return swept("probe", out, **{"federation.rounds": 4})


@pytest.fixture(scope="session")
def curvature_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every arm of H at one rate, measured at rounds 0, 5 and 10."""
    out = tmp_path_factory.mktemp("sweeps") / "curvature"
    return swept("curvature", out, **{"method.lr": 0.02, "diagnostics.every": 5})
