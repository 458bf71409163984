"""Small sweeps that were really run, for the tests that read one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Swept = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_pictures() -> None:
    """Here they are drawn."""


@pytest.fixture(scope="session")
def stress_sweep(swept: Swept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clients × skew × method × two rates × two seeds, 40 rounds each."""
    changes = {"method.lr": [0.01, 0.02], "seed": [0, 1], "federation.rounds": 40, "eval.every": 4}
    return swept("stress", tmp_path_factory.mktemp("sweeps") / "stress", **changes)


@pytest.fixture(scope="session")
def probe_sweep(swept: Swept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """μ, P and τ one at a time."""
    out = tmp_path_factory.mktemp("sweeps") / "probe"
    return swept("probe", out, **{"federation.rounds": 4})


@pytest.fixture(scope="session")
def curvature_sweep(swept: Swept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every arm of H at one rate, measured at rounds 0, 5 and 10."""
    out = tmp_path_factory.mktemp("sweeps") / "curvature"
    return swept("curvature", out, **{"method.lr": 0.02, "diagnostics.every": 5})
