"""Accuracy against rounds: tuned methods, and one that finds its rate from several first rates."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

TUNED = {"DeComFL": "C0", "P = 20": "C2"}
FOUND = {"auto": "C1", "auto, P = 20": "C3"}
STYLES = ("-", "--", ":")  # of first rates, ascending


def draw(rows: pd.DataFrame, file: Path) -> None:
    """Means over seeds: tuned methods at the rate best after the last round, the others from
    every first rate."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    curves = rows.groupby(["candidate", "lr", "round"]).accuracy.mean()
    for name, colour in TUNED.items():
        lr = curves[name].xs(rows["round"].max(), level="round").idxmax()
        axes.plot(curves[name, lr] * 100, color=colour, label=f"{name}, best rate ({lr:g})")
    for name, colour in FOUND.items():
        starts = curves[name].index.unique("lr").sort_values()
        for lr, style in zip(starts, STYLES, strict=True):
            label = f"{name}, from {lr:g}"
            axes.plot(curves[name, lr] * 100, style, color=colour, lw=1, label=label)
    axes.set(xlabel="round", ylabel="test accuracy [%]", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=120)
