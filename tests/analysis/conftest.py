"""A small sweep that was really run, for the tests that read one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps import run_sweep
from sweeps.ready import READY


@pytest.fixture(scope="session")
def stress_sweep(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clients × skew × method × two rates × two seeds, 40 rounds each."""
    folder = tmp_path_factory.mktemp("sweeps") / "stress"
    changes = {
        "resources.executor": "serial",
        "method.lr": [0.01, 0.02],
        "seed": [0, 1],
        "federation.rounds": 40,
        "eval.every": 4,
    }
    run_sweep(READY["stress"].smoked().changed(changes), folder)
    return folder


@pytest.fixture(scope="session")
def probe_sweep(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """μ, P and τ one at a time."""
    folder = tmp_path_factory.mktemp("sweeps") / "probe"
    changes = {"resources.executor": "serial", "federation.rounds": 4}
    run_sweep(READY["probe"].smoked().changed(changes), folder)
    return folder


@pytest.fixture(scope="session")
def curvature_sweep(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every arm of H at one rate, measured at rounds 0, 5 and 10."""
    folder = tmp_path_factory.mktemp("sweeps") / "curvature"
    changes = {"resources.executor": "serial", "method.lr": 0.02, "diagnostics.every": 5}
    run_sweep(READY["curvature"].smoked().changed(changes), folder)
    return folder
