from __future__ import annotations

import pandas as pd
import pytest
from made_up_trials import trial

from hiso_ray.analysis import endings

TRIALS = pd.DataFrame(
    [
        trial("a", 0.1, 0, 0.5),
        trial("a", 0.1, 1),
        trial("a", 0.1, 2, error="whatever", error_kind="NonFiniteLoss"),
        trial("a", 0.1, 3, error="the update of round 3 has overflowed (inf)", error_kind=None),
        trial("a", 0.1, 4, error="the loss is not finite", error_kind="TurnFailed"),
        trial("a", 0.1, 5, status="stopped"),
        trial("a", 0.1, 6, status="unfinished"),
    ]
)


def test_the_kind_decides_and_where_there_is_none_the_words() -> None:
    table = endings.marked(TRIALS)
    assert table["failed"].tolist() == [False, True, True, True, True, False, False]
    assert table["diverged"].tolist() == [False, False, True, True, False, False, False]
    assert table["stopped"].tolist() == [False] * 5 + [True, False]
    assert table["unfinished"].tolist() == [False] * 6 + [True]


def test_tables_from_before_the_kind_was_recorded() -> None:
    table = endings.marked(TRIALS.drop(columns="error_kind"))
    assert table["diverged"].tolist() == [False, False, False, True, True, False, False]


def test_each_trial_is_told_once() -> None:
    assert endings.told(TRIALS) == "2 diverged, 2 failed, 1 stopped early, 1 unfinished"
    assert endings.told(TRIALS[:1]) == ""


@pytest.mark.parametrize("ended", ["finished", "stopped"])
def test_what_did_not_fail_did_not_diverge(ended: str) -> None:
    table = pd.DataFrame([trial("a", 0.1, 0, status=ended, error="non-finite loss")])
    assert not endings.marked(table)["diverged"].any()
