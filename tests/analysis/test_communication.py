from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from made_up_trials import trial

from hiso_ray.analysis import communication
from hiso_ray.analysis.settings import View

TAU, P = communication.AXES


def sent(method: str, p: int, up: int, seed: int = 0, **changed: Any) -> dict[str, Any]:
    """A trial of 10 rounds with 8 clients each, that sent so many bytes up per turn."""
    results: dict[str, Any] = {
        "rounds": 10, "paper_bytes_per_client": 20 * up, "uplink_bytes": 80 * up,
        "downlink_bytes": 160 * up, "ray_bytes": 0, "initial_model_bytes_per_client": 2048,
    }  # fmt: skip
    if changed:  # results are missing unless finished
        results = dict.fromkeys(results)
    row = trial(method, 0.1, seed, None if changed else 0.5, **{P: p}, **results, **changed)
    return row | {"run": f"{row['run']}-{p}"}


TRIALS = pd.DataFrame(
    [
        *(sent(method, p, 4 * p) for method in ("hiso", "decomfl") for p in (1, 5)),
        *(sent("fedavg", p, 2440) for p in (1, 5)),
    ]
)


def test_methods_that_send_the_same_are_told_from_others() -> None:
    per_turn = communication.per_turn(TRIALS)
    assert communication.alike(per_turn) == [["hiso", "decomfl"], ["fedavg"]]
    assert per_turn["paper_bytes"].tolist()[:2] == [8, 40]


def test_the_picture_pools_no_others() -> None:
    figure = communication.bytes_against(TRIALS, [View(P)], [P])
    scalars, weights = figure.axes
    assert (scalars.get_ylabel(), weights.get_ylabel()) == ("HiSo, DeComFL", "FedAvg")
    up = [list(line.get_ydata()) for line in scalars.lines]
    assert [4, 20] in up
    assert all(low == high for line in weights.lines for low, high in [line.get_ydata()])


@pytest.mark.parametrize(
    ("status", "count"), [("stopped", "stopped"), ("failed", "failed"), ("unfinished",) * 2]
)
def test_what_did_not_finish_is_in_the_table(status: str, count: str) -> None:
    rows = [
        sent("hiso", 1, 4),
        sent("hiso", 1, 4, 1, status=status),
        sent("mezo", 1, 4, 0, status=status),
    ]
    table = communication.costs(pd.DataFrame(rows), []).set_index("method")
    assert table.loc["hiso", ["seeds", "up_bytes_seeds", count]].tolist() == [2, 1, 1]
    assert table.loc["mezo", ["seeds", "up_bytes_seeds", count]].tolist() == [1, 0, 1]
    assert table.loc["hiso", "up_bytes_mean"] == 4
    cells = communication.cells(table.reset_index())
    assert cells[count].tolist() == ["1", "1"]
    assert cells["protocol, up (B)"].tolist() == ["4, 1 of 2 seeds", "not finished"]
