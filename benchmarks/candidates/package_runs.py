"""Runs of the package as rows of the laboratory's tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from candidates.table import BASELINE
from hiso_ray.analysis import load

USUAL = 5  # directions, which a name does not mention


def rows(sweep: Path, task: str) -> pd.DataFrame:
    """A row per evaluation after round 0 of the finished runs of a sweep folder of DeComFL."""
    trials, rounds = load.both([sweep])
    finished = trials.run[trials.status == "finished"]
    rounds = rounds[(rounds["round"] > 0) & rounds.run.isin(finished)].reset_index(drop=True)
    count = rounds["method.num_perturbations"]
    several = count.map(", P = {}".format).where(count != USUAL, "")
    return pd.DataFrame(
        {
            "candidate": rounds.method.str.replace("decomfl", BASELINE) + several,
            "lr": rounds["method.lr"],
            "seed": rounds.seed,
            "round": rounds["round"],
            "accuracy": rounds.score,
            "forwards": rounds.forward_passes,
            "bytes": rounds.uplink_bytes + rounds.downlink_bytes,
            "task": task,
        }
    )
