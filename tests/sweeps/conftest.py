"""A small sweep for the tests that run one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hiso_ray.sweeps import Sweep

SMALL: dict[str, Any] = {
    "task": {"name": "digits", "model": "mlp-8"},
    "federation.num_clients": 12,
    "federation.clients_per_round": 3,
    "federation.rounds": 6,
    "eval.every": 3,
    "method.num_perturbations": 2,
    "method.lr": 0.02,
    "resources.executor": "serial",
}


@pytest.fixture
def small() -> Callable[..., Sweep]:
    """Digits, 12 clients, 3 a round, six rounds, serial; the rest is the table's."""

    def make(**table: Any) -> Sweep:
        return Sweep.model_validate({"name": "small", "base": SMALL} | table)

    return make
