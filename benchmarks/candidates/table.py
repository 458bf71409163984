"""Rows of runs -> rounds, forward passes and bytes to thresholds, relative to a baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

RESAMPLES = 10_000
BASELINE = "DeComFL"


def with_most_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each candidate the rates with the most seeds."""
    of_rate = rows.groupby(["candidate", "lr"]).seed.transform("nunique")
    return rows[of_rate == of_rate.groupby(rows.candidate).transform("max")]


def reached(rows: pd.DataFrame, threshold: float, axis: str) -> pd.DataFrame:
    """What was used until a look first showed a test accuracy; infinite where none did.

    Args:
        axis: round, forwards or bytes.

    Returns:
        A row per candidate and rate, a column per seed.
    """
    keys = ["candidate", "lr", "seed"]
    first = rows[rows.accuracy >= threshold].groupby(keys)[axis].min()
    runs = pd.MultiIndex.from_frame(rows[keys].drop_duplicates())
    return first.reindex(runs).fillna(np.inf).unstack("seed")


def at_best_rate(table: pd.DataFrame) -> pd.DataFrame:
    """Of each candidate the rate whose geometric mean over seeds is lowest."""
    mean = np.log(table).mean(axis=1)
    return table.loc[list(mean.groupby("candidate").idxmin())].reset_index("lr")


def within_reach(rows: pd.DataFrame, axis: str, first: pd.Series) -> pd.Series:
    """What the baseline had used until it first showed a threshold; all where it never did."""
    run = rows[(rows.candidate == BASELINE) & (rows.lr == first.lr)]
    seeds = first.drop("lr").astype(float)
    return seeds.replace(np.inf, np.nan).fillna(run.groupby("seed")[axis].max())


def ratio(mine: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Geometric mean of paired ratios, and its 95 % bootstrap interval over seeds; infinite where
    a run of mine did not get there."""
    if not np.isfinite(mine).all():
        return (np.inf,) * 3
    logs = np.log(mine) - np.log(other)
    drawn = np.random.default_rng(0).choice(logs, (RESAMPLES, len(logs))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high))


def compared(rows: pd.DataFrame, threshold: float, axis: str) -> pd.DataFrame:
    """Per candidate: its best rate for a threshold, the geometric mean there, and its ratio to the
    baseline's at the baseline's best rate; ``bound`` where the baseline did not get there with all
    seeds, so that the ratio is at most this."""
    best = at_best_rate(reached(rows, threshold, axis))
    seeds = best.columns.drop("lr")
    bound = not np.isfinite(best.loc[BASELINE, seeds].dropna().astype(float)).all()
    base, out = within_reach(rows, axis, best.loc[BASELINE]), {}
    for name, row in best.iterrows():
        mine = row[seeds].dropna().astype(float)
        mean, low, high = ratio(mine.to_numpy(), base[mine.index].to_numpy(float))
        used = float(np.exp(np.log(mine).mean()))
        found = {"lr": row.lr, "used": used, "ratio": mean, "low": low, "high": high}
        out[name] = found | {"bound": bound}
    return pd.DataFrame(out).T


def endings(rows: pd.DataFrame, round_: int | None = None) -> pd.DataFrame:
    """Per candidate and rate: mean, lowest and highest accuracy over seeds after some rounds; by
    default after the last."""
    runs = ["candidate", "lr", "seed"]
    last = rows.groupby(runs)["round"].transform("max") if round_ is None else round_
    return rows[rows["round"] == last].groupby(runs[:2]).accuracy.agg(["mean", "min", "max"])


def markdown(rows: pd.DataFrame, thresholds: Sequence[float], rounds: Sequence[int]) -> str:
    """A line per candidate, of the rates with most seeds."""
    rows = with_most_seeds(rows)
    to = {t: compared(rows, t, "round") for t in thresholds}
    last = thresholds[-1]
    forwards, used = compared(rows, last, "forwards"), compared(rows, last, "bytes")
    after = {r: endings(rows, r)["mean"] for r in rounds}
    head = [
        "candidate",
        *(f"rounds to {t:.0%}" for t in thresholds),
        f"forwards to {last:.0%}",
        f"bytes to {last:.0%}",
        *(f"accuracy after {r}" for r in rounds),
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in rows.candidate.drop_duplicates():
        cells = [name, *(_rounds(to[t].loc[name]) for t in thresholds)]
        cells += [_times(forwards.loc[name]), _times(used.loc[name])]
        for r in rounds:
            of = after[r].get(name)
            cells.append("–" if of is None else f"{of.max():.1%} ({of.idxmax():g})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rounds(row: pd.Series) -> str:
    if not np.isfinite(row.used):
        return "not all"
    return f"{row.used:.0f} ({row.lr:g}): {_times(row)}"


def _times(row: pd.Series) -> str:
    if not np.isfinite(row.ratio):
        return "–"
    interval = "" if row.low == row.high else f" ({row.low:.2f}–{row.high:.2f})"
    return f"{'≤ ' if row.bound else ''}×{row.ratio:.2f}{interval}"
