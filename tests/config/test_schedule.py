from __future__ import annotations

from typing import Any

import pytest

from hiso_ray import Experiment
from hiso_ray.config.schedule import rate, resolve


def rates(rounds: int, upto: int | None = None, **method: Any) -> list[float]:
    dotted = {f"method.{name}": value for name, value in method.items()}
    e = resolve(Experiment().changed(**{"method.lr": 8.0, "federation.rounds": rounds} | dotted))
    return [rate(e.method, r) for r in range(upto or rounds)]


@pytest.mark.parametrize(
    ("method", "by_hand"),
    [
        ({}, [8, 8, 8, 8]),
        ({"warmup_rounds": 2}, [4, 8, 8, 8]),
        ({"warmup_rounds": 4}, [2, 4, 6, 8]),
        ({"schedule": "linear"}, [8, 6, 4, 2]),  # 0 when the run has ended
        ({"schedule": "linear", "schedule_floor": 0.5}, [8, 7, 6, 5]),
        ({"schedule": "linear", "warmup_rounds": 2}, [4, 8, 8, 4]),
        ({"schedule": "cosine"}, [8, 4 + 2 * 2**0.5, 4, 4 - 2 * 2**0.5]),
        (
            {"schedule": "cosine", "schedule_rounds": 2, "schedule_floor": 0.25},
            [8, 5, 2, 2],
        ),
    ],
    ids=str,
)
def test_rates_are_those_by_hand(method: dict[str, Any], by_hand: list[float]) -> None:
    assert rates(4, **method) == pytest.approx(by_hand, rel=1e-15)


def test_a_constant_rate_is_the_one_given_to_the_last_bit() -> None:
    assert set(rates(9, lr=0.1, warmup_rounds=3)[2:]) == {0.1}


def test_a_longer_run_of_a_resolved_experiment_keeps_its_rates() -> None:
    e = resolve(
        Experiment().changed(
            **{"method.schedule": "linear", "method.schedule_floor": 0.1, "federation.rounds": 50}
        )
    )
    longer = resolve(e.changed(**{"federation.rounds": 80}))
    assert [rate(longer.method, r) for r in range(50)] == [rate(e.method, r) for r in range(50)]
    assert {rate(longer.method, r) for r in range(50, 80)} == {0.1 * e.method.lr}
    assert longer.digest() == e.digest()
