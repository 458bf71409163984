"""Scores during a run: the best within a budget, and the mean over the rounds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hiso_ray.analysis import endings
from hiso_ray.analysis.spread import over_seeds
from hiso_ray.analysis.thresholds import COSTS, evaluated
from hiso_ray.errors import UserError


def best_within(
    trials: pd.DataFrame,
    rounds: pd.DataFrame,
    budgets: Sequence[float],
    within: Sequence[str],
    cost: str = "round",
) -> pd.DataFrame:
    """The best evaluated score that cost no more than the budget.

    Args:
        trials: one learning rate per method and setting.
        rounds: evaluated rounds; those of other runs are ignored.
        budgets: in units of ``cost``.
        within: configuration columns that make a setting.
        cost: ``round``, ``kib_per_client`` (protocol, up and down) or ``forward_passes``.

    Returns:
        One row per setting, method and budget: ``within``, ``method``, ``cost``, ``budget``;
        :func:`~.spread.over_seeds` of ``best``; ``short``, the number of seeds that ended before
        the budget was spent, and might have scored higher with the rest; how many ``failed``,
        ``diverged``, are ``unfinished`` or were ``stopped``; ``runs``.

    Raises:
        UserError: an unknown cost, a negative budget, rounds that do not belong to the trials, or
            several trials of one method with the same seed.
    """
    if cost not in COSTS:
        raise UserError(f"cost = {cost!r}: choose from {', '.join(COSTS)}")
    if len(budgets) == 0 or min(budgets) < 0:
        raise UserError(f"budgets = {list(budgets)}: give at least one, none below 0")
    seen = evaluated(trials, rounds)
    last = seen.groupby("run")[cost].max()
    kept = endings.marked(trials)[[*within, "method", "seed", "run", *endings.COUNTS]]
    frames = []
    for budget in budgets:
        best = seen[seen[cost] <= budget].groupby("run")["score"].max()
        frames.append(
            kept.assign(
                cost=cost,
                budget=budget,
                best=trials["run"].map(best),
                short=~(trials["run"].map(last) >= budget),
            )
        )
    table = pd.concat(frames, ignore_index=True)
    by = [*within, "method", "cost", "budget"]
    return over_seeds(table, ["best"], by, ["short", *endings.COUNTS])


def mean_course(trials: pd.DataFrame, rounds: pd.DataFrame, within: Sequence[str]) -> pd.DataFrame:
    """The area under the score over rounds, divided by its span: a mean score.

    Computed by trapezoids between evaluated rounds. The span is that of the setting, from its first
    to its last evaluated round; a trial that was not evaluated at both (it broke down, or stopped
    early) has no area, because a mean over a shorter span is a different quantity.

    Args:
        trials: one learning rate per method and setting.
        rounds: evaluated rounds; those of other runs are ignored.
        within: configuration columns that make a setting.

    Returns:
        One row per setting and method: ``within``, ``method``, ``first_round``, ``last_round``
        (of the setting), :func:`~.spread.over_seeds` of ``area``, and how many trials
        ``failed``, ``diverged``, are ``unfinished`` or were ``stopped``.

    Raises:
        UserError: rounds that do not belong to the trials, or several trials of one method with
            the same seed.
    """
    seen = evaluated(trials, rounds)
    areas = pd.DataFrame(
        [
            {
                "run": run,
                "first": course["round"].iloc[0],
                "last": course["round"].iloc[-1],
                "area": _mean_height(course["round"], course["score"]),
            }
            for run, course in seen.groupby("run")
        ],
        columns=["run", "first", "last", "area"],
    ).set_index("run")
    kept = endings.marked(trials)[[*within, "method", "seed", "run", *endings.COUNTS]]
    table = kept.join(areas, on="run")
    setting = table.groupby(list(within), dropna=False) if within else table.groupby(lambda _: 0)
    table["first_round"] = setting["first"].transform("min")
    table["last_round"] = setting["last"].transform("max")
    whole = (table["first"] == table["first_round"]) & (table["last"] == table["last_round"])
    table["area"] = table["area"].where(whole)
    by = [*within, "method", "first_round", "last_round"]
    return over_seeds(table, ["area"], by, endings.COUNTS)


def _mean_height(x: pd.Series, y: pd.Series) -> float:
    """(n,), (n,) -> the area under the line through the points ÷ its width; nan for one point."""
    trapezoids = x.diff() * (y + y.shift()) / 2
    width = x.iloc[-1] - x.iloc[0]
    return float(trapezoids.sum() / width) if width > 0 else float("nan")
