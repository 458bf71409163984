from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import pytest
from made_up_trials import frames

from hiso_ray.analysis import speedup
from hiso_ray.analysis.thresholds import reached

NEVER = [0.1, 0.1, 0.1, 0.1]
AT_10, AT_20, AT_30 = [0.1, 0.9, 0.9, 0.9], [0.1, 0.1, 0.9, 0.9], [0.1, 0.1, 0.1, 0.9]
AT_0 = [0.9, 0.9, 0.9, 0.9]


def ratios(*pairs: tuple[Sequence[float], Sequence[float]], cost: str = "round") -> pd.DataFrame:
    """Speedups of ``one`` to 0.5 from the scores of (one, other), a pair per seed."""
    courses = {}
    for seed, (one, other) in enumerate(pairs):
        courses |= {("one", seed): one, ("other", seed): other}
    arrivals = reached(*frames(courses), [0.5], ["federation.alpha"])
    return speedup.by_seed(arrivals, "one", "other", cost)


@pytest.mark.parametrize(
    ("one", "other", "ratio", "bound"),
    [
        (AT_10, AT_30, 3.0, "="),
        (AT_30, AT_10, 1 / 3, "="),
        (AT_20, NEVER, 1.5, "≥"),
        (AT_20, NEVER[:2], 0.5, "≥"),  # the other stopped at round 10
        (NEVER, AT_20, 2 / 3, "≤"),
        (NEVER[:2], AT_20, 2.0, "≤"),
        (NEVER, NEVER, None, "neither"),
        (AT_0, AT_0, None, "at once"),
        (AT_10, [], None, "unseen"),
        (NEVER[:1], AT_10, None, "unseen"),
        ([], NEVER, None, "neither"),
    ],
)
def test_one_seed(one: list[float], other: list[float], ratio: float | None, bound: str) -> None:
    row = ratios((one, other), (AT_10, AT_10)).iloc[0]
    assert row["bound"] == bound
    assert math.isnan(row["ratio"]) if ratio is None else row["ratio"] == pytest.approx(ratio)
    assert row["runs"] == ["runs/one-0.1-0", "runs/other-0.1-0"]


@pytest.mark.parametrize(
    ("pairs", "bound", "mean", "low", "high", "seeds"),
    [
        ([(AT_10, AT_20), (AT_20, AT_10)], "=", 1.0, 0.5, 2.0, 2),  # of 2 and 1/2
        ([(AT_10, AT_30), (AT_20, AT_20)], "=", 3**0.5, 1.0, 3.0, 2),
        ([(AT_10, AT_20), (AT_10, NEVER)], "≥", 6**0.5, 2.0, None, 2),
        ([(AT_20, AT_10), (NEVER, AT_30)], "≤", 0.5**0.5, None, 1.0, 2),
        ([(AT_10, NEVER), (NEVER, AT_10)], "mixed", None, None, None, 2),
        ([(AT_10, AT_20), (NEVER, NEVER)], "mixed", None, None, None, 1),
        ([(NEVER, NEVER), (NEVER, NEVER)], "neither", None, None, None, 0),
    ],
)
def test_over_seeds(
    pairs: list[tuple[list[float], list[float]]],
    bound: str,
    mean: float | None,
    low: float | None,
    high: float | None,
    seeds: int,
) -> None:
    (row,) = speedup.mean_ratios(ratios(*pairs)).to_dict("records")
    assert (row["one"], row["other"], row["cost"], row["threshold"]) == (
        "one", "other", "round", 0.5,
    )  # fmt: skip
    assert (row["federation.alpha"], row["bound"], row["seeds"]) == (1.0, bound, 2)
    assert row["speedup_seeds"] == seeds
    for name, expected in (("mean", mean), ("min", low), ("max", high)):
        found = row[f"speedup_{name}"]
        assert math.isnan(found) if expected is None else found == pytest.approx(expected), name
    assert len(row["runs"]) == 4


def test_seeds_are_paired_whatever_their_order() -> None:
    trials, rounds = frames(
        {("one", 0): AT_10, ("other", 1): AT_10, ("other", 0): AT_30, ("one", 1): AT_20}
    )
    table = speedup.by_seed(reached(trials, rounds, [0.5], []), "one", "other")
    assert dict(zip(table["seed"], table["ratio"], strict=True)) == {0: 3.0, 1: 0.5}


def test_other_costs() -> None:
    trials, rounds = frames({("one", 0): AT_10, ("other", 0): AT_20})
    rounds.loc[rounds["run"].str.contains("one"), "forward_passes"] *= 4  # per round
    arrivals = reached(trials, rounds, [0.5], [])
    assert speedup.by_seed(arrivals, "one", "other")["ratio"].tolist() == [2.0]
    passes = speedup.by_seed(arrivals, "one", "other", "forward_passes")
    assert passes["ratio"].tolist() == [0.5]


def test_what_cannot_be_paired_is_refused() -> None:
    trials, rounds = frames({("one", 0): AT_10, ("other", 0): AT_20, ("one", 1): AT_10})
    arrivals = reached(trials, rounds, [0.5], [])
    with pytest.raises(ValueError, match="seed = 1: a trial of one has no partner"):
        speedup.by_seed(arrivals, "one", "other")
    with pytest.raises(ValueError, match="no trial of 'two'; there are one, other"):
        speedup.by_seed(arrivals, "one", "two")
    with pytest.raises(ValueError, match="choose from round, kib_per_client, forward_passes"):
        speedup.by_seed(arrivals, "one", "other", "seconds")
    with pytest.raises(ValueError, match="choose one learning rate"):
        speedup.by_seed(arrivals.assign(seed=0), "one", "other")
