"""Speedups: how many times fewer rounds one method takes to a threshold than another, per seed.

Over seeds, ratios have a geometric mean: 2 and 1/2 average to 1, whichever is the numerator.
"""

from __future__ import annotations

import math

import pandas as pd

from hiso_ray.analysis import endings
from hiso_ray.analysis.spread import before, geometric_mean
from hiso_ray.analysis.thresholds import COSTS
from hiso_ray.errors import UserError

EXACT, AT_LEAST, AT_MOST = "=", "≥", "≤"
NEITHER = "neither"  # neither method reached it
AT_ONCE = "at once"  # reached before the first round of training: nothing to compare
UNSEEN = "unseen"  # one reached it; the other was never evaluated after a round of training


def by_seed(arrivals: pd.DataFrame, one: str, other: str, cost: str = "round") -> pd.DataFrame:
    """The cost of ``other`` over the cost of ``one``; above 1, ``one`` is faster.

    The cost of a method that did not reach the threshold is above that of its last evaluated round,
    which bounds the ratio: from below if ``other`` did not reach it, from above if ``one`` did not.

    Args:
        arrivals: from :func:`~.thresholds.reached`, one learning rate per method.
        one: label of the method whose speedup is measured.
        other: label of the method it is compared with.
        cost: ``round``, ``kib_per_client`` or ``forward_passes``.

    Returns:
        One row per setting, threshold and seed: ``one``, ``other``, ``cost``, ``seed``;
        ``ratio``; ``bound``: ``=``, ``≥``, ``≤``, or, without a ratio, ``neither``, ``at once``
        (before training) or ``unseen`` (one of them broke down too early for a bound); how many of
        the two ``failed``, ``diverged``, are ``unfinished`` or were ``stopped``; ``runs``.

    Raises:
        UserError: an unknown method or cost; a seed that only one of them was run with; several
            trials of one method with the same seed.
    """
    if cost not in COSTS:
        raise UserError(f"cost = {cost!r}: choose from {', '.join(COSTS)}")
    for method in (one, other):
        if method not in set(arrivals["method"]):
            known = ", ".join(arrivals["method"].unique())
            raise UserError(f"no trial of {method!r}; there are {known}")
    pairs = _pairs(arrivals, one, other)
    found = [
        _ratio(*costs)
        for costs in zip(
            pairs[f"{cost}_one"],
            pairs[f"last_{cost}_one"],
            pairs[f"{cost}_other"],
            pairs[f"last_{cost}_other"],
            strict=True,
        )
    ]
    settings = before(arrivals, "method")
    return pairs[settings].assign(
        one=one,
        other=other,
        cost=cost,
        threshold=pairs["threshold"],
        seed=pairs["seed"],
        ratio=[ratio for ratio, _ in found],
        bound=[bound for _, bound in found],
        **{n: pairs[f"{n}_one"].astype(int) + pairs[f"{n}_other"] for n in endings.COUNTS},
        runs=pd.Series(pairs[["run_one", "run_other"]].to_numpy().tolist(), index=pairs.index),
    )


def _pairs(arrivals: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    settings = before(arrivals, "method")
    keys = [*settings, "threshold", "seed"]
    sides = [arrivals[arrivals["method"] == m].drop(columns="method") for m in (one, other)]
    for method, side in zip((one, other), sides, strict=True):
        if side.duplicated(keys).any():
            raise UserError(
                f"several trials of {method} with the same seed: choose one learning rate per "
                "method first (best_rate, at_best_rate)"
            )
    pairs = sides[0].merge(
        sides[1], on=keys, how="outer", suffixes=("_one", "_other"), indicator="sides", sort=False
    )
    alone = pairs[pairs["sides"] != "both"]
    if not alone.empty:
        has = one if alone.iloc[0]["sides"] == "left_only" else other
        where = ", ".join(f"{name} = {alone.iloc[0][name]}" for name in keys)
        raise UserError(
            f"{where}: a trial of {has} has no partner; compare {one} and {other} where both were "
            "run, with the same seeds"
        )
    return pairs


def _ratio(one: float, one_last: float, other: float, other_last: float) -> tuple[float, str]:
    """The ratio of two costs (nan: not reached), or its bound from each last evaluation."""
    if math.isnan(one) and math.isnan(other):
        return math.nan, NEITHER
    if one == 0 or other == 0:
        return math.nan, AT_ONCE
    if math.isnan(other):
        return (other_last / one, AT_LEAST) if other_last > 0 else (math.nan, UNSEEN)
    if math.isnan(one):
        return (other / one_last, AT_MOST) if one_last > 0 else (math.nan, UNSEEN)
    return other / one, EXACT


def mean_ratios(ratios: pd.DataFrame) -> pd.DataFrame:
    """The geometric mean of the ratio over seeds and its band, as far as they are known.

    Bounds in one direction make the mean a bound in that direction, and leave the band open there:
    with a ``≥`` among the seeds the highest is missing, with a ``≤`` the lowest. If bounds point
    both ways, or a seed has no ratio, all three are missing.

    Args:
        ratios: from :func:`by_seed`.

    Returns:
        One row per setting and threshold: ``one``, ``other``, ``cost``, ``threshold``, ``seeds``,
        ``speedup_mean`` (geometric), ``speedup_min``, ``speedup_max``, ``speedup_seeds`` (how many
        have a ratio or a bound), ``bound``: as for one seed, or ``mixed``; how many trials of both
        methods ``failed``, ``diverged``, are ``unfinished`` or were ``stopped``; ``runs``.
    """
    by = before(ratios, "seed")
    rows = []
    for key, seeds in ratios.groupby(by, dropna=False, sort=False):
        bounds = set(seeds["bound"])
        bound = _common(bounds)
        known = bound in (EXACT, AT_LEAST, AT_MOST)
        ratio = seeds["ratio"]
        rows.append(
            dict(zip(by, key, strict=True))
            | {
                "seeds": len(seeds),
                "speedup_mean": geometric_mean(ratio) if known else math.nan,
                "speedup_min": ratio.min() if known and bound != AT_MOST else math.nan,
                "speedup_max": ratio.max() if known and bound != AT_LEAST else math.nan,
                "speedup_seeds": int(ratio.notna().sum()),
                "bound": bound,
                **{name: int(seeds[name].sum()) for name in endings.COUNTS},
                "runs": [run for pair in seeds["runs"] for run in pair],
            }
        )
    return pd.DataFrame(rows)


def _common(bounds: set[str]) -> str:
    if len(bounds) == 1:
        return next(iter(bounds))
    for direction in (AT_LEAST, AT_MOST):
        if bounds == {EXACT, direction}:
            return direction
    return "mixed"
