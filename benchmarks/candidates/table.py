"""Rows of runs -> rounds, forward passes and bytes to thresholds, relative to a baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

RESAMPLES = 10_000
AXES = ("round", "forwards", "bytes")


def read(folder: Path) -> pd.DataFrame:
    """All runs of a folder."""
    return pd.DataFrame(
        [row for f in sorted(folder.glob("*.json")) for row in json.loads(f.read_text())]
    )


def reached(rows: pd.DataFrame, threshold: float, axis: str) -> pd.Series:
    """What was used until a test accuracy was first seen, per candidate, rate and seed; infinite
    where it never was."""
    keys = ["candidate", "lr", "seed"]
    first = rows[rows.accuracy >= threshold].groupby(keys)[axis].min()
    every = pd.MultiIndex.from_frame(rows[keys].drop_duplicates())
    return first.reindex(every).fillna(np.inf)


def best(table: pd.Series) -> pd.DataFrame:
    """(candidate, seed) of the rate whose geometric mean over seeds is lowest.

    Returns:
        columns ``lr`` and one per seed.
    """
    wide = table.unstack("seed")
    mean = np.log(wide).mean(axis=1)
    chosen = mean.groupby("candidate").idxmin()
    out = wide.loc[list(chosen)].reset_index("lr")
    return out


def ratio(
    mine: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Geometric mean of paired ratios, and its 95 % interval over resampled seeds."""
    logs = np.log(mine) - np.log(other)
    if not np.isfinite(logs).all():
        return (np.nan,) * 3
    drawn = rng.choice(logs, (RESAMPLES, len(logs))).mean(1)
    return tuple(np.exp([logs.mean(), *np.quantile(drawn, [0.025, 0.975])]))


def compare(
    rows: pd.DataFrame, thresholds: Sequence[float], baseline: str = "DeComFL", axis: str = "round"
) -> pd.DataFrame:
    """Per candidate and threshold: best rate, geometric mean, ratio to the baseline."""
    out = {}
    for threshold in thresholds:
        found = best(reached(rows, threshold, axis))
        seeds = [c for c in found.columns if c != "lr"]
        base = found.loc[baseline, seeds].to_numpy(float)
        for name, row in found.iterrows():
            mine = row[seeds].to_numpy(float)
            have = ~np.isnan(mine)
            r, low, high = ratio(mine[have], base[have], np.random.default_rng(0))
            mean = np.exp(np.log(mine[have]).mean())
            out[name, threshold] = {
                "lr": row["lr"],
                "mean": mean,
                "ratio": r,
                "low": low,
                "high": high,
                "seeds": int(have.sum()),
            }
    return pd.DataFrame(out).T


def endings(rows: pd.DataFrame, at: Sequence[int]) -> pd.DataFrame:
    """Mean accuracy after some rounds at the rate best there."""
    out = {}
    for round_ in at:
        mean = rows[rows["round"] == round_].groupby(["candidate", "lr"]).accuracy.mean()
        out[round_] = mean.groupby("candidate").max()
        out[f"lr {round_}"] = mean.groupby("candidate").idxmax().map(lambda k: k[1])
    return pd.DataFrame(out)
