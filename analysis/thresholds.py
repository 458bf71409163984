"""When a score is first reached: the same fixed scores for every method."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hiso_ray.analysis import endings
from hiso_ray.analysis.spread import before, over_seeds
from hiso_ray.errors import UserError

# Cumulative columns of the rounds: the costs of reaching a threshold.
COSTS = ("round", "kib_per_client", "forward_passes")


def reached(
    trials: pd.DataFrame, rounds: pd.DataFrame, thresholds: Sequence[float], within: Sequence[str]
) -> pd.DataFrame:
    """The first evaluated round of each trial whose score is at least the threshold.

    Rounds between two evaluations are not seen, so arrivals are up to ``eval.every`` rounds late.

    Args:
        trials: one that failed before its first evaluation reached nothing.
        rounds: evaluated rounds; those of other runs are ignored.
        thresholds: scores, shares in 0..1.
        within: configuration columns to keep.

    Returns:
        One row per trial and threshold: ``within``, ``method``, ``threshold``, ``seed``, ``run``;
        ``round``, ``kib_per_client`` (protocol bytes up and down, over the number of clients) and
        ``forward_passes`` there, all missing if it was not reached; ``last_round``,
        ``last_kib_per_client``, ``last_forward_passes``: the same at the trial's last evaluation;
        whether it ``failed``, ``diverged``, is ``unfinished`` or was ``stopped``.

    Raises:
        UserError: a threshold outside 0..1, or rounds that do not belong to the trials.
    """
    if len(thresholds) == 0 or any(not 0 < threshold <= 1 for threshold in thresholds):
        raise UserError(
            f"thresholds = {list(thresholds)}: give scores as shares, above 0 and up to 1 "
            "(0.9 for 90 %)"
        )
    seen = evaluated(trials, rounds)
    last = seen.groupby("run")[list(COSTS)].max().add_prefix("last_")
    kept = endings.marked(trials)[[*within, "method", "seed", "run", *endings.COUNTS]]
    frames = []
    for threshold in thresholds:
        first = seen[seen["score"] >= threshold].drop_duplicates("run").set_index("run")
        there = kept.assign(threshold=float(threshold))
        frames.append(there.join(first[list(COSTS)], on="run").join(last, on="run"))
    table = pd.concat(frames, ignore_index=True)
    names = [*within, "method", "threshold", "seed", "run", *COSTS, *last.columns]
    return table[[*names, *endings.COUNTS]]


def evaluated(trials: pd.DataFrame, rounds: pd.DataFrame) -> pd.DataFrame:
    """The evaluated rounds of these trials, each trial's in order.

    Raises:
        UserError: a trial that ended has none, so the frames do not belong together.
    """
    ended = trials.loc[trials["status"].isin(endings.ENDED), "run"]
    if without := sorted(set(ended) - set(rounds["run"])):
        raise UserError(
            f"no evaluated round of {len(without)} of {len(trials)} trials ({without[0]}, …): load "
            "trials and rounds from the same place, and do not filter the rounds"
        )
    ours = rounds[rounds["run"].isin(trials["run"]) & rounds["score"].notna()]
    return ours.sort_values(["run", "round"], kind="stable")


def to_threshold(arrivals: pd.DataFrame) -> pd.DataFrame:
    """The cost to reach each threshold: mean and range, only if every seed reached it.

    Args:
        arrivals: from :func:`reached`, one learning rate per method and setting.

    Returns:
        One row per setting, method and threshold: :func:`~.spread.over_seeds` of
        ``round``, ``kib_per_client`` and ``forward_passes``; ``round_seeds`` says how many of
        ``seeds`` reached it; how many ``failed``, ``diverged``, are ``unfinished`` or were
        ``stopped``.
    """
    by = before(arrivals, "seed")
    return over_seeds(arrivals, COSTS, by, endings.COUNTS)
