"""Convergence curves: accuracy and loss against rounds and against bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import load

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "savefig.dpi": 200,
}
Y = (("eval_accuracy", "Test accuracy"), ("eval_loss", "Loss"))
X = (("round", "Communication round"), ("kib_per_client", "Up + down per client (KiB, cumulative)"))


def convergence(folders: Sequence[Path | str], out: Path | str) -> Figure:
    """Accuracy and loss against rounds and against protocol bytes; one colour per method.

    Args:
        folders: run folders; runs of the same method share a colour.
        out: the picture's file; the ending chooses the format (png, pdf, svg).
    """
    table = load.rounds(folders)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 4.6), layout="constrained")
        axes = figure.subplots(2, 2, sharex="col", sharey="row")
        colours = {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(table["method"].unique())}
        for row, (y, y_name) in enumerate(Y):
            for column, (x, x_name) in enumerate(X):
                _panel(axes[row][column], table, x, y, colours)
                if row == 1:
                    axes[row][column].set_xlabel(x_name)
                if column == 0:
                    axes[row][column].set_ylabel(y_name)
        axes[0][0].legend(loc="lower right")
        axes[1][0].legend(loc="upper right")
        figure.savefig(out)
    return figure


def _panel(axes: Axes, table: pd.DataFrame, x: str, y: str, colours: dict[str, str]) -> None:
    labelled: set[str] = set()
    for _, run in table.groupby("run", sort=False):
        method = str(run["method"].iloc[0])
        points = run.dropna(subset=[y])
        losses = y == "eval_loss"
        name = f"{method}, test" if losses else method
        label = name if method not in labelled else None
        axes.plot(
            points[x], points[y], color=colours[method], marker=".", ms=3, lw=1.4, label=label
        )
        if losses:
            train = run.dropna(subset=["train_loss"])
            smooth = train["train_loss"].rolling(25, min_periods=1).mean()
            label = f"{method}, training (25-round mean)" if label else None
            axes.plot(train[x], smooth, color=colours[method], lw=0.8, alpha=0.5, label=label)
        labelled.add(method)
    axes.margins(x=0.02)
