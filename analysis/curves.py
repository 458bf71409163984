"""Convergence curves: score and loss against rounds, bytes and simulated time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from analysis import load

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
NAMES = {"hiso": "HiSo", "decomfl": "DeComFL"}
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "savefig.dpi": 200,
}
X = {"round": "Communication round", "kib_per_client": "Up + down per client (KiB, cumulative)"}
TIME_UNITS = {"h": 3600, "min": 60, "s": 1}
MANY_UNITS = 10  # a time axis that reaches this many of a unit is in that unit
TEST: Any = {"marker": ".", "ms": 3, "lw": 1.4}
TRAINING: Any = {"lw": 0.8, "alpha": 0.5}
TRAINING_WINDOW = 25  # rounds


def convergence(folders: Sequence[Path | str], out: Path | str) -> Figure:
    """Score and loss against rounds and against protocol bytes; one colour per method.

    Runs that had a virtual clock are shown against its time too.

    Args:
        folders: run folders; each run is one line, runs of the same method share a colour.
        out: the picture's file; the ending chooses the format (png, pdf, svg).
    """
    table = load.rounds(folders)
    colours = {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(table["method"].unique())}
    names = dict(X)
    if table["simulated_seconds"].max() > 0:
        table["simulated_time"], names["simulated_time"] = _simulated_time(table)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.5 * len(names), 4.8), layout="constrained")
        axes = figure.subplots(2, len(names), sharex="col", sharey="row")
        for row, (y, y_name) in enumerate((("score", _score_name(table)), ("eval_loss", "Loss"))):
            for column, (x, x_name) in enumerate(names.items()):
                _panel(axes[row][column], table, x, y, colours)
                axes[1][column].set_xlabel(x_name)
            axes[row][0].set_ylabel(y_name)
        axes[0][0].yaxis.set_major_formatter(PercentFormatter(1.0))
        figure.legend(handles=_legend(colours), loc="outside upper center", ncols=4)
        figure.savefig(out)
    return figure


def _score_name(table: pd.DataFrame) -> str:
    metrics = [str(metric).replace("_", " ") for metric in table["metric"].unique()]
    return f"Test {' / '.join(metrics)}"


def _simulated_time(table: pd.DataFrame) -> tuple[pd.Series, str]:
    """The cumulative time in a unit that suits it, missing for runs without a clock; its name."""
    seconds = table["simulated_seconds"]
    longest = seconds.max()
    unit = next((u for u, size in TIME_UNITS.items() if longest >= MANY_UNITS * size), "s")
    clocked = seconds.groupby(table["run"]).transform("max") > 0
    return seconds.where(clocked) / TIME_UNITS[unit], f"Simulated time ({unit})"


def _panel(axes: Axes, table: pd.DataFrame, x: str, y: str, colours: dict[str, str]) -> None:
    for _, run in table.groupby("run", sort=False):
        colour = colours[run["method"].iloc[0]]
        if y == "eval_loss":
            training = run.dropna(subset=["train_loss"])
            mean = training["train_loss"].rolling(TRAINING_WINDOW, min_periods=1).mean()
            axes.plot(training[x], mean, color=colour, **TRAINING)
        points = run.dropna(subset=[y])
        axes.plot(points[x], points[y], color=colour, **TEST)
    axes.margins(x=0.02)


def _legend(colours: dict[str, str]) -> list[Line2D]:
    methods = [Line2D([], [], color=c, lw=2, label=NAMES.get(m, m)) for m, c in colours.items()]
    return [
        *methods,
        Line2D([], [], color="0.3", label="test", **TEST),
        Line2D([], [], color="0.3", label=f"training, {TRAINING_WINDOW}-round mean", **TRAINING),
    ]
