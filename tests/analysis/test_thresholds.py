from __future__ import annotations

import pytest
from made_up_trials import frames

from hiso_ray.analysis.endings import COUNTS
from hiso_ray.analysis.thresholds import reached, to_threshold

# Rounds 0, 10, 20, 30. Seed 2 of "slow" failed before its first evaluation.
COURSES = {
    ("fast", 0): [0.1, 0.5, 0.4, 0.9],
    ("fast", 1): [0.1, 0.3, 0.6, 0.8],
    ("fast", 2): [0.1, 0.5, 0.5, 0.7],
    ("slow", 0): [0.1, 0.2, 0.5, 0.4],
    ("slow", 1): [0.1, 0.2, 0.3, 0.6],
    ("slow", 2): [],
}


def test_the_first_evaluated_round_at_or_above_counts() -> None:
    trials, rounds = frames(COURSES)
    shuffled = rounds.sample(frac=1, random_state=0)
    table = reached(trials, shuffled, [0.5, 0.9], ["federation.alpha"])
    assert len(table) == 12
    half = table[table["threshold"] == 0.5].set_index(["method", "seed"])
    assert half["round"].fillna(-1).tolist() == [10, 20, 10, 20, 30, -1]
    assert half["kib_per_client"].fillna(-1).tolist() == [20, 40, 20, 40, 60, -1]
    assert half["forward_passes"].fillna(-1).tolist() == [1000, 2000, 1000, 2000, 3000, -1]
    assert half["last_round"].fillna(-1).tolist() == [30, 30, 30, 30, 30, -1]
    most = table[table["threshold"] == 0.9]
    assert most["round"].fillna(-1).tolist() == [30, -1, -1, -1, -1, -1]


def test_a_mean_needs_every_seed() -> None:
    table = to_threshold(reached(*frames(COURSES), [0.5, 0.9], ["federation.alpha"]))
    row = table.set_index(["method", "threshold"])
    fast = row.loc[("fast", 0.5)]
    assert fast["round_mean"] == pytest.approx(40 / 3)
    assert (fast["round_min"], fast["round_max"], fast["round_seeds"]) == (10, 20, 3)
    assert (fast["kib_per_client_max"], fast["forward_passes_min"]) == (40, 1000)
    for lost, count in ((("slow", 0.5), 2), (("fast", 0.9), 1), (("slow", 0.9), 0)):
        assert row.loc[lost, "seeds"] == 3
        assert row.loc[lost, "round_seeds"] == count
        means = [f"{cost}_{how}" for cost in ("round", "forward_passes") for how in ("mean", "min")]
        assert row.loc[lost, means].isna().all()
    assert row.loc[("slow", 0.5), list(COUNTS)].tolist() == [1, 0, 0, 0]
    assert fast[list(COUNTS)].tolist() == [0, 0, 0, 0]
    assert fast["runs"] == [f"runs/fast-0.1-{seed}" for seed in range(3)]


def test_a_round_without_a_score_is_not_one() -> None:
    trials, rounds = frames({("a", 0): [0.1, 0.6, 0.7]})
    rounds.loc[1, "score"] = None
    assert reached(trials, rounds, [0.5], [])["round"].tolist() == [20]


def test_rounds_of_other_runs_are_left_out() -> None:
    trials, rounds = frames(COURSES)
    table = reached(trials[trials["seed"] == 1], rounds, [0.6], [])
    assert table["round"].tolist() == [20, 30]


def test_frames_that_do_not_belong_together_are_refused() -> None:
    trials, rounds = frames(COURSES)
    rounds["run"] = "elsewhere/" + rounds["run"]
    with pytest.raises(ValueError, match="no evaluated round of 5 of 6 trials"):
        reached(trials, rounds, [0.5], [])


def test_one_rate_per_method() -> None:
    trials, rounds = frames(COURSES)
    trials["seed"] = 0
    with pytest.raises(ValueError, match="choose one learning rate per method"):
        to_threshold(reached(trials, rounds, [0.5], []))


@pytest.mark.parametrize("thresholds", [[], [90], [0.0], [0.5, float("nan")]])
def test_thresholds_are_shares(thresholds: list[float]) -> None:
    with pytest.raises(ValueError, match="as shares"):
        reached(*frames(COURSES), thresholds, [])
