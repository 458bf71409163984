from __future__ import annotations

import pandas as pd
import pytest
from made_up_trials import trial

from hiso_ray.analysis.selection import at_best_rate, best_rate, by_rate, chosen_by

NOT_A_NUMBER = {"error": "non-finite loss: client 3, round 2", "error_kind": "NonFiniteLoss"}


def trials(scores: dict[tuple[str, float], list[float | None]]) -> pd.DataFrame:
    """From {(method, rate): score of seed 0, 1, …}; None: diverged."""
    return pd.DataFrame(
        [
            trial(method, lr, seed, score, **({} if score is not None else NOT_A_NUMBER))
            for (method, lr), row in scores.items()
            for seed, score in enumerate(row)
        ]
    )


def test_every_rate_has_its_row_rates_ascending() -> None:
    table = by_rate(
        trials({("hiso", 0.3): [0.6, None, 0.8], ("hiso", 0.1): [0.1, 0.2, 0.6]}),
        ["federation.alpha"],
    )
    assert list(table.columns) == [
        "federation.alpha", "method", "method.lr", "seeds",
        "final_score_mean", "final_score_min", "final_score_max", "final_score_seeds",
        "failed", "diverged", "unfinished", "stopped", "runs",
    ]  # fmt: skip
    assert table["method.lr"].tolist() == [0.1, 0.3]
    assert table["final_score_mean"].tolist() == pytest.approx([0.3, 0.7])
    assert table["final_score_min"].tolist() == [0.1, 0.6]
    assert table["final_score_max"].tolist() == [0.6, 0.8]
    assert table["seeds"].tolist() == [3, 3]
    assert table["final_score_seeds"].tolist() == [3, 2]
    assert table["failed"].tolist() == table["diverged"].tolist() == [0, 1]
    assert table["runs"][1] == ["runs/hiso-0.3-0", "runs/hiso-0.3-1", "runs/hiso-0.3-2"]


def test_failures_are_told_apart() -> None:
    rows = [
        trial("hiso", 0.1, 0, None),
        trial("hiso", 0.1, 1, None, **NOT_A_NUMBER),
        trial("hiso", 0.1, 2, 0.9, status="unfinished"),  # what it has is not its final score
        trial("hiso", 0.1, 3, 0.5, status="stopped"),
    ]
    row = by_rate(pd.DataFrame(rows), []).iloc[0]
    assert row[["failed", "diverged", "unfinished", "stopped"]].tolist() == [2, 1, 1, 1]
    assert row["final_score_mean"] == 0.5
    assert row["final_score_seeds"] == 1


def test_the_best_mean_wins_and_the_edge_is_said() -> None:
    grid = {0.1: [0.2, 0.4], 0.3: [0.5, 0.5], 1.0: [0.1, 0.8]}
    scores = {("hiso", lr): row for lr, row in grid.items()}
    scores |= {("decomfl", lr): row for lr, row in zip(grid, ([0.9], [0.2], [0.1]), strict=True)}
    both = trials({key: row * 2 if len(row) == 1 else row for key, row in scores.items()})
    best = best_rate(both, [])
    assert best["method"].tolist() == ["hiso", "decomfl"]
    assert best["method.lr"].tolist() == [0.3, 0.1]
    assert best["edge"].tolist() == ["", "lowest"]
    assert best["grid"].tolist() == [(0.1, 0.3, 1.0)] * 2


def test_the_top_and_the_only_rate_are_edges_too() -> None:
    assert best_rate(trials({("a", 1.0): [0.2], ("a", 2.0): [0.3]}), [])["edge"][0] == "highest"
    assert best_rate(trials({("a", 1.0): [0.2]}), [])["edge"][0] == "only"


def test_of_equal_means_the_lower_rate_wins() -> None:
    table = best_rate(trials({("a", 2.0): [0.5], ("a", 1.0): [0.5], ("a", 0.5): [0.1]}), [])
    assert table["method.lr"].tolist() == [1.0]


def test_a_rate_that_lost_a_seed_cannot_win() -> None:
    lucky = trials({("a", 1.0): [0.2, 0.2], ("a", 2.0): [0.9, None], ("a", 3.0): [None, None]})
    assert best_rate(lucky, [])["method.lr"].tolist() == [1.0]


def test_a_rate_that_lost_a_seed_wins_where_all_did() -> None:
    all_lost = trials({("a", 1.0): [0.2, None], ("a", 2.0): [0.9, None], ("a", 3.0): [None] * 2})
    row = best_rate(all_lost, []).iloc[0]
    assert (row["method.lr"], row["failed"], row["seeds"]) == (2.0, 1, 2)


def test_a_method_that_always_failed_keeps_its_row() -> None:
    table = best_rate(trials({("a", 1.0): [0.2], ("b", 1.0): [None]}), [])
    assert table["method"].tolist() == ["a", "b"]
    assert table["final_score_mean"].isna().tolist() == [False, True]


def test_the_best_score_on_request() -> None:
    rows = trials({("a", 1.0): [0.5], ("a", 2.0): [0.4]})
    rows["best_score"] = [0.6, 0.7]
    assert best_rate(rows, [])["method.lr"].tolist() == [1.0]
    best = best_rate(rows, [], score="best_score")
    assert best["method.lr"].tolist() == [2.0]
    assert best["best_score_mean"].tolist() == [0.7]


def two_settings() -> pd.DataFrame:
    """The first setting's best rate is 1, that of the second, whose α is missing, is 2."""
    first = trials({("a", 1.0): [0.5], ("a", 2.0): [0.4]})
    second = trials({("a", 1.0): [0.2], ("a", 2.0): [0.4]})
    second["federation.alpha"] = None
    second["run"] += "-second"
    return pd.concat([first, second.astype({"federation.alpha": float})], ignore_index=True)


def test_rows_at_the_best_rate_of_their_own_setting() -> None:
    both = two_settings()
    best = best_rate(both, ["federation.alpha"])
    assert best["method.lr"].tolist() == [1.0, 2.0]
    assert at_best_rate(both, best)["run"].tolist() == ["runs/a-1-0", "runs/a-2-0-second"]
    rounds = both[["run", "method", "method.lr", "federation.alpha"]].loc[[3, 3, 0, 1, 2]]
    assert at_best_rate(rounds, best)["run"].tolist() == ["runs/a-2-0-second"] * 2 + ["runs/a-1-0"]


def test_a_frame_without_the_fields_is_refused() -> None:
    both = two_settings()
    best = best_rate(both, ["federation.alpha"])
    with pytest.raises(ValueError, match=r"no column federation.alpha, method.lr"):
        at_best_rate(both[["run", "method"]], best)


def test_unfair_trials_are_refused() -> None:
    rows = trials({("a", 1.0): [0.5], ("b", 2.0): [0.4]})
    for choose in (by_rate, best_rate):
        with pytest.raises(ValueError, match=r"the grids of method.lr differ"):
            choose(rows, [])
        assert len(choose(rows, [], allow=["rates"])) == 2


def validated(scores: dict[float, list[tuple[float, float] | None]]) -> pd.DataFrame:
    """From {rate: (validation score, test score) of seed 0, 1, …}; None: it failed."""
    rows = []
    for lr, row in scores.items():
        for seed, both in enumerate(row):
            validation, test = both or (None, None)
            own = {"final_validation_score": validation, "best_validation_score": validation}
            rows.append(trial("a", lr, seed, test, score_at_best_validation=test, **own))
    return pd.DataFrame(rows)


def test_chosen_by_the_validation_score_and_shown_by_the_test_score() -> None:
    rows = validated({1.0: [(0.8, 0.5), (0.9, 0.5)], 2.0: [(0.7, 0.9), (0.7, 0.9)]})
    (row,) = best_rate(rows, []).to_dict("records")
    assert row["method.lr"] == 1.0  # though the other has the better test score
    assert row["final_score_mean"] == 0.5
    assert row["final_validation_score_mean"] == pytest.approx(0.85)
    (row,) = best_rate(rows, [], "score_at_best_validation").to_dict("records")
    assert (row["method.lr"], row["score_at_best_validation_mean"]) == (1.0, 0.5)
    assert (chosen_by(rows), chosen_by(rows, "best_score")) == (
        "final_validation_score", "best_validation_score",
    )  # fmt: skip


def test_a_failed_trial_needs_no_validation_score() -> None:
    rows = validated({1.0: [(0.8, 0.5), None], 2.0: [(0.7, 0.4), (0.7, 0.4)]})
    assert best_rate(rows, [])["method.lr"].tolist() == [2.0]


def test_a_validation_score_of_some_trials_is_refused() -> None:
    rows = validated({1.0: [(0.8, 0.5), (0.9, 0.5)]})
    rows.loc[1, "final_validation_score"] = None
    with pytest.raises(ValueError, match=r"1 of 2 trials have a validation score \(runs/a-1-1 has"):
        best_rate(rows, [])
    rows["final_validation_score"] = None
    assert chosen_by(rows) == "final_score"
