"""Choosing each method's learning rate: over the same grid, seeds and budget.

If the trials held out validation examples (``task.validation_examples``), the rate is chosen by the
validation score, so the test score that is shown is independent of the choice. Otherwise the rate
is chosen by the score that is shown. That flatters all methods equally if they have the same number
of rates to choose from, so unequal grids are refused, as are trials of which only some have a
validation score (:mod:`~.fairness`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import pandas as pd

from hiso_ray.analysis import endings
from hiso_ray.analysis.fairness import refuse_unfair
from hiso_ray.analysis.spread import before, over_seeds
from hiso_ray.errors import UserError

Score = Literal["final_score", "best_score", "score_at_best_validation"]
# The score shown -> the score that rates are chosen by, with a validation set.
VALIDATION: dict[str, str] = {
    "final_score": "final_validation_score",
    "best_score": "best_validation_score",
    "score_at_best_validation": "best_validation_score",
}


def chosen_by(trials: pd.DataFrame, score: Score = "final_score") -> str:
    """The column that rates are chosen by: the validation score where there is one, else
    ``score`` itself."""
    own = VALIDATION[score]
    return own if own in trials and trials[own].notna().any() else score


def by_rate(
    trials: pd.DataFrame,
    within: Sequence[str],
    score: Score = "final_score",
    allow: Collection[str] = (),
) -> pd.DataFrame:
    """Every learning rate of every method in every setting.

    Args:
        trials: one row per trial.
        within: configuration columns that make a setting, such as ``["federation.alpha"]``.
        score: the score to describe.
        allow: differences to permit (``rates``, ``seeds``, ``budgets``).

    Returns:
        One row per setting, method and rate, rates ascending. Columns: ``within``, ``method``,
        ``method.lr``, then ``seeds``, ``SCORE_mean``, ``SCORE_min``, ``SCORE_max`` and
        ``SCORE_seeds`` over the trials that ended with a score, and the same of the validation
        score where that is what rates are chosen by; ``failed`` trials, the ``diverged`` among
        them, ``unfinished`` and ``stopped`` ones; ``runs``.

    Raises:
        UserError: trials that cannot be compared; see :func:`~.fairness.refuse_unfair`.
    """
    refuse_unfair(trials, within, allow)
    keys = [*within, "method", "method.lr"]
    scores = list(dict.fromkeys([score, chosen_by(trials, score)]))
    ended = trials["status"].isin(endings.ENDED)
    numbers = {name: pd.to_numeric(trials[name]).where(ended) for name in scores}
    marked = endings.marked(trials).assign(**numbers)
    table = over_seeds(marked, scores, keys, endings.COUNTS, partial=True)
    # Settings and methods in the order given, rates ascending.
    arm = table.groupby(keys[:-1], dropna=False, sort=False).ngroup()
    order = table.assign(arm=arm).sort_values(["arm", "method.lr"], kind="stable").index
    return table.loc[order].reset_index(drop=True)


def best_rate(
    trials: pd.DataFrame,
    within: Sequence[str],
    score: Score = "final_score",
    allow: Collection[str] = (),
) -> pd.DataFrame:
    """Each method's learning rate with the best mean score over seeds (:func:`chosen_by`).

    A rate that lost a seed (failed, stopped, unfinished) cannot win against one that lost fewer; if
    means are equal, the lower rate wins. A method whose trials all failed keeps its row, without a
    score.

    Returns:
        The winning rows of :func:`by_rate`, and ``grid``, a tuple of the rates tried; ``edge``:
        ``lowest`` or ``highest`` if the winner is at the end of its grid, so that a better one may
        lie beyond, ``only`` if there was no choice, else ``""``.

    Raises:
        UserError: as :func:`by_rate`.
    """
    table = by_rate(trials, within, score, allow)
    arms = [*within, "method"]
    chosen = chosen_by(trials, score)
    table["lost"] = table["seeds"] - table[f"{chosen}_seeds"]
    rates = table.groupby(arms, dropna=False, sort=False)["method.lr"]
    table["grid"] = table[arms].merge(rates.agg(tuple).reset_index(), on=arms, how="left")[
        "method.lr"
    ]
    table["edge"] = [_edge(r, g) for r, g in zip(table["method.lr"], table["grid"], strict=True)]
    order = ["lost", f"{chosen}_mean", "method.lr"]
    ranked = table.sort_values(order, ascending=[True, False, True])
    winners = ranked.drop_duplicates(arms).sort_index()
    return winners.drop(columns="lost").reset_index(drop=True)


def _edge(rate: float, grid: tuple[float, ...]) -> str:
    if len(grid) == 1:
        return "only"
    return {min(grid): "lowest", max(grid): "highest"}.get(rate, "")


def at_best_rate(frame: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """The rows of trials or rounds that belong to each method's best rate in its setting.

    Args:
        frame: trials or rounds, with the configuration columns that ``best`` was made within.
        best: from :func:`best_rate`.

    Raises:
        UserError: ``frame`` lacks one of those columns.
    """
    keys = [*before(best, "method.lr"), "method.lr"]
    if missing := [name for name in keys if name not in frame]:
        raise UserError(f"the frame has no column {', '.join(missing)}; load it with its fields")
    return frame.merge(best[keys], on=keys, how="inner")
