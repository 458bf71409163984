from __future__ import annotations

import pytest
from made_up_trials import frames

from hiso_ray.analysis.course import best_within, mean_course

# Rounds 0, 10, 20, 30; 2 KiB per client and 100 forward passes a round.
COURSES = {
    ("a", 0): [0.1, 0.6, 0.4, 0.9],
    ("a", 1): [0.1, 0.2, 0.3, 0.7],
    ("b", 0): [0.1, 0.3, 0.3, 0.3],
    ("b", 1): [0.1, 0.5],
}


@pytest.mark.parametrize(
    ("cost", "budgets"),
    [("round", (25, 30)), ("kib_per_client", (50, 60)), ("forward_passes", (2500, 3000))],
)
def test_the_best_evaluated_score_up_to_the_budget(cost: str, budgets: tuple[int, int]) -> None:
    table = best_within(*frames(COURSES), budgets, ["federation.alpha"], cost)
    keys = ["federation.alpha", "method", "cost", "budget"]
    assert list(table.columns[:4]) == keys
    row = table.set_index(["method", "budget"])
    assert row.loc[("a", budgets[0]), "best_mean"] == pytest.approx(0.45)
    assert row.loc[("a", budgets[0]), ["best_min", "best_max"]].tolist() == [0.3, 0.6]
    assert row.loc[("a", budgets[1]), ["best_min", "best_max"]].tolist() == [0.7, 0.9]
    assert row.loc[("b", budgets[1]), "best_mean"] == pytest.approx(0.4)
    assert table["cost"].unique().tolist() == [cost]


def test_who_ended_before_the_budget_is_counted() -> None:
    table = best_within(*frames(COURSES), [10, 30, 31], [])
    short = table.set_index(["method", "budget"])["short"]
    assert short["a"].tolist() == [0, 0, 2]
    assert short["b"].tolist() == [0, 1, 2]


def test_no_mean_over_some_of_the_seeds() -> None:
    table = best_within(*frames(COURSES | {("b", 1): []}), [30], []).set_index("method")
    assert table.loc["b", ["seeds", "best_seeds", "short"]].tolist() == [2, 1, 1]
    assert table.loc["b", ["best_mean", "best_min", "best_max"]].isna().all()


def test_budgets_and_costs_are_checked() -> None:
    with pytest.raises(ValueError, match="choose from round"):
        best_within(*frames(COURSES), [10], [], "seconds")
    for budgets in ([], [-1]):
        with pytest.raises(ValueError, match="none below 0"):
            best_within(*frames(COURSES), budgets, [])


def test_the_area_is_a_mean_score() -> None:
    table = mean_course(*frames(COURSES), []).set_index("method")
    # seed 0: (0.35 + 0.5 + 0.65) / 3, seed 1: (0.15 + 0.25 + 0.5) / 3
    assert table.loc["a", "area_mean"] == pytest.approx((0.5 + 0.3) / 2)
    assert table.loc["a", ["area_min", "area_max"]].tolist() == pytest.approx([0.3, 0.5])
    assert table.loc["a", ["first_round", "last_round"]].tolist() == [0, 30]


def test_uneven_evaluations_weigh_by_their_width() -> None:
    trials, rounds = frames({("a", 0): [0.0, 0.4, 0.8]})
    rounds["round"] = [0, 10, 50]
    area = mean_course(trials, rounds, [])["area_mean"]
    assert area.tolist() == pytest.approx([(10 * 0.2 + 40 * 0.6) / 50])


def test_a_shorter_course_has_no_area() -> None:
    table = mean_course(*frames(COURSES), []).set_index("method")
    assert table.loc["b", ["seeds", "area_seeds"]].tolist() == [2, 1]
    assert table.loc["b", ["area_mean", "area_min", "area_max"]].isna().all()


def test_each_setting_has_its_own_span() -> None:
    trials, rounds = frames({("a", 0): [0.2, 0.4, 0.6], ("a", 1): [0.5, 0.5]})
    trials["federation.alpha"] = [1.0, 0.1]
    table = mean_course(trials, rounds, ["federation.alpha"])
    assert table["last_round"].tolist() == [20, 10]
    assert table["area_mean"].tolist() == pytest.approx([0.4, 0.5])
