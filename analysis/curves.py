"""Convergence curves of runs: score and loss against rounds, bytes and simulated time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import load, style

X = {
    "round": "Communication round",
    "kib_per_client": "Up + down per client (KiB, cumulative)",
    "forward_passes": "Forward passes of all clients (cumulative)",
    "seconds": "Wall-clock time",
    "simulated_seconds": "Simulated time",
}
TIME_UNITS = {"h": 3600, "min": 60, "s": 1}
MANY_UNITS = 10  # a time axis that reaches this many of a unit is in that unit
TEST: Any = {"marker": ".", "ms": 3, "lw": 1.4}
TRAINING: Any = {"lw": 0.8, "alpha": 0.5}
TRAINING_WINDOW = 25  # rounds


def convergence(folders: Sequence[Path | str], out: Path | str) -> Figure:
    """:func:`every_run` of run folders, in a file as :func:`analysis.style.save` takes it."""
    figure = every_run(folders)
    style.save(figure, out)
    return figure


def every_run(folders: Sequence[Path | str]) -> Figure:
    """Score and loss against rounds and against protocol bytes; one colour per method.

    Runs that had a virtual clock are shown against its time too.

    Args:
        folders: run folders; each run is one line, runs of the same method share a colour.
    """
    table = load.every_round(folders)
    colours = {method: look.colour for method, look in style.looks(table["method"]).items()}
    names = {x: X[x] for x in ("round", "kib_per_client")}
    if table["simulated_seconds"].max() > 0:
        table, names["simulated_seconds"] = against(table, "simulated_seconds")
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(3.5 * len(names), 4.8), layout="constrained")
        axes = figure.subplots(2, len(names), sharex="col", sharey="row")
        for row, (y, y_name) in enumerate((("score", score_name(table)), ("eval_loss", "Loss"))):
            for column, (x, x_name) in enumerate(names.items()):
                _panel(axes[row][column], table, x, y, colours)
                axes[1][column].set_xlabel(x_name)
            axes[row][0].set_ylabel(y_name)
        axes[0][0].yaxis.set_major_formatter(style.percent)
        style.legend(figure, _legend(colours))
    return figure


def score_name(table: pd.DataFrame) -> str:
    """What the scores of these runs are, for an axis."""
    metrics = [str(metric).replace("_", " ") for metric in table["metric"].unique()]
    return f"Test {' / '.join(metrics)}"


def against(table: pd.DataFrame, x: str) -> tuple[pd.DataFrame, str]:
    """The table with ``x`` ready to be drawn, and the name of its axis.

    Times are in a unit that suits the longest, and missing for runs without a clock.

    Raises:
        ValueError: ``x`` is none of the axes there are.
    """
    if x not in X:
        raise ValueError(f"x = {x}: choose one of {', '.join(X)}")
    if x not in ("seconds", "simulated_seconds"):
        return table, X[x]
    longest = table[x].max()
    unit = next((u for u, size in TIME_UNITS.items() if longest >= MANY_UNITS * size), "s")
    clocked = table[x].groupby(table["run"]).transform("max") > 0
    return table.assign(**{x: table[x].where(clocked) / TIME_UNITS[unit]}), f"{X[x]} ({unit})"


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
    methods = [Line2D([], [], color=c, lw=2, label=style.name(m)) for m, c in colours.items()]
    return [
        *methods,
        Line2D([], [], color="0.3", label="test", **TEST),
        Line2D([], [], color="0.3", label=f"training, {TRAINING_WINDOW}-round mean", **TRAINING),
    ]
