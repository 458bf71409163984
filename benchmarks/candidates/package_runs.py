"""Runs of the package as rows of the laboratory's tables: DeComFL on the published model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from candidates.table import BASELINE, with_most_seeds
from hiso_ray.analysis import comparison, load, outcomes

USUAL = 5  # directions, which a name does not mention
CHOSEN_BY = "final_validation_score"


def rows(sweeps: Sequence[Path], task: str) -> pd.DataFrame:
    """A row per evaluation after round 0 of the finished runs of sweep folders."""
    trials, rounds = load.both(sweeps)
    finished = trials.run[trials.status == "finished"]
    rounds = rounds[(rounds["round"] > 0) & rounds.run.isin(finished)].reset_index(drop=True)
    return pd.DataFrame(
        {
            "candidate": _names(rounds),
            "lr": rounds["method.lr"],
            "seed": rounds.seed,
            "round": rounds["round"],
            "accuracy": rounds.score,
            "forwards": rounds.forward_passes,
            "bytes": rounds.uplink_bytes + rounds.downlink_bytes,
            "task": task,
        }
    )


def differences(sweeps: Sequence[Path]) -> pd.DataFrame:
    """Each candidate's last weights against the baseline's, on the same sentences and seeds, both
    at their best rates by validation."""
    trials = load.trials(sweeps)
    trials = trials[trials.status == "finished"]
    trials = trials.assign(candidate=_names(trials), lr=trials["method.lr"])
    trials = with_most_seeds(trials)
    of_rate = trials.groupby(["candidate", "lr"])[CHOSEN_BY].transform("mean")
    best = trials[of_rate == of_rate.groupby(trials.candidate).transform("max")]
    table = comparison.compared(best.assign(method=best.candidate), BASELINE)
    points = table[["score_difference", "score_low", "score_high"]] * 100
    rates = best.groupby("candidate").lr.first()
    return pd.DataFrame(
        {
            "candidate": table.one,
            "lr": table.one.map(rates),
            "accuracy": table.one_score.map("{:.1%}".format),
            f"{BASELINE}'s": table.other_score.map("{:.1%}".format),
            "difference, points": [f"{d:+.1f} [{a:.1f}, {b:.1f}]" for d, a, b in points.to_numpy()],
        }
    )


def answers(sweeps: Sequence[Path], data: Path) -> pd.DataFrame:
    """What the last weights of each run answer on both splits, on a task of two classes.

    Args:
        data: the task's folder, whose ``dev.tsv`` has text and label.

    Returns:
        A row per run: the share of sentences that get the answer of label 1, and the accuracy
        among sentences of each label.
    """
    lines = (data / "dev.tsv").read_text(encoding="utf-8").splitlines()
    labels = np.array([int(line.rpartition("\t")[2]) for line in lines])
    trials = load.trials(sweeps)
    trials = trials[trials.status == "finished"]
    rows = []
    for run, name, seed in zip(trials.run, _names(trials), trials.seed, strict=True):
        right = outcomes.read(run).examples.sort_values("example").accuracy.to_numpy() == 1
        answered = np.where(right, labels, 1 - labels)
        row = {"candidate": name, "seed": seed, "answers 1": answered.mean()}
        rows.append(row | {f"right of {label}": right[labels == label].mean() for label in (0, 1)})
    return pd.DataFrame(rows).assign(lr=trials["method.lr"].to_numpy())


def _names(table: pd.DataFrame) -> pd.Series:
    count = table["method.num_perturbations"]
    several = count.map(", P = {}".format).where(count != USUAL, "")
    return table.method.str.replace("decomfl", BASELINE) + several
