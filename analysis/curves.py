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

from hiso_ray.analysis import load, style
from hiso_ray.errors import UserError

X = {
    "round": "Communication round",
    "kib_per_client": "Up + down per client (KiB, cumulative)",
    "forward_passes": "Forward passes of all clients (cumulative)",
    "seconds": "Wall-clock time",
    "simulated_seconds": "Simulated time",
}
TIME_UNITS = {"h": 3600, "min": 60, "s": 1}
MANY_UNITS = 10  # a time axis uses a unit if it reaches this many of it
MARKS = 6  # markers on a line
# Methods' largest ÷ smallest end on an axis above which it is logarithmic: for bytes, those of
# methods that send weights against those that send scalars.
WIDE = 20
RUNAWAY = 5  # times the initial loss: larger losses are cut off
TRAINING: Any = {"lw": 0.8, "alpha": 0.5}
TRAINING_WINDOW = 25  # rounds
Looks = dict[str, style.Look]


def convergence(folders: Sequence[Path | str], out: Path | str) -> Figure:
    """Draws :func:`every_run` and saves it with :func:`~.style.save`."""
    figure = every_run(folders)
    style.save(figure, out)
    return figure


def every_run(folders: Sequence[Path | str]) -> Figure:
    """Score and loss against rounds and against protocol bytes; one look per method.

    Runs with a virtual clock are also shown against simulated time.

    Args:
        folders: run folders; each run is one line, runs of the same method share a look.
    """
    table = load.every_round(folders)
    looks = style.looks(table["method"])
    names = {x: X[x] for x in ("round", "kib_per_client")}
    if table["simulated_seconds"].max() > 0:
        table, names["simulated_seconds"] = against(table, "simulated_seconds")
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(3.5 * len(names), 4.8), layout="constrained")
        axes = figure.subplots(2, len(names), sharex="col", sharey="row")
        for row, (y, y_name) in enumerate((("score", score_name(table)), ("eval_loss", "Loss"))):
            for column, (x, x_name) in enumerate(names.items()):
                _panel(axes[row][column], table, x, y, looks)
                axes[1][column].set_xlabel(x_name)
                if wide(table, x):
                    style.log(axes[1][column], "x")
            cut = cut_runaways(axes[row][0], table) if y == "eval_loss" else ""
            axes[row][0].set_ylabel(y_name + cut)
        axes[0][0].yaxis.set_major_formatter(style.percent)
        style.legend(figure, _legend(looks))
    return figure


def score_name(table: pd.DataFrame) -> str:
    """The axis label for the scores of these runs."""
    metrics = [str(metric).replace("_", " ") for metric in table["metric"].unique()]
    return f"Test {' / '.join(metrics)}"


def against(table: pd.DataFrame, x: str) -> tuple[pd.DataFrame, str]:
    """The table with ``x`` ready to be drawn, and its axis label.

    Times are in a unit that suits the longest, and missing for runs without a clock.

    Raises:
        UserError: ``x`` is not a known axis.
    """
    if x not in X:
        raise UserError(f"x = {x}: choose one of {', '.join(X)}")
    if x not in ("seconds", "simulated_seconds"):
        return table, X[x]
    longest = table[x].max()
    unit = next((u for u, size in TIME_UNITS.items() if longest >= MANY_UNITS * size), "s")
    clocked = table[x].groupby(table["run"]).transform("max") > 0
    return table.assign(**{x: table[x].where(clocked) / TIME_UNITS[unit]}), f"{X[x]} ({unit})"


def wide(table: pd.DataFrame, x: str) -> bool:
    """Whether the methods end so far apart on this axis that it must be logarithmic."""
    ends = table.groupby("method")[x].max()
    return bool(ends.max() > WIDE * ends.min() > 0)


def cut_runaways(axes: Axes, table: pd.DataFrame) -> str:
    """Limits the loss axis if a run has diverged, so that the others can be seen.

    Returns:
        A suffix for the axis label; empty if nothing is cut off.
    """
    initial = table.loc[table["round"] == 0, "eval_loss"].max()
    if not table["eval_loss"].max() > RUNAWAY * initial:
        return ""
    axes.set_ylim(0, RUNAWAY / 2 * initial)
    return " (cut off)"


def _panel(axes: Axes, table: pd.DataFrame, x: str, y: str, looks: Looks) -> None:
    for _, run in table.groupby("run", sort=False):
        look = looks[run["method"].iloc[0]]
        if y == "eval_loss":
            training = run.dropna(subset=["train_loss"])
            mean = training["train_loss"].rolling(TRAINING_WINDOW, min_periods=1).mean()
            axes.plot(training[x], mean, color=look.colour, **TRAINING)
        points = run.dropna(subset=[y])
        every = max(1, round(len(points) / MARKS))
        axes.plot(points[x], points[y], **look.strokes(), markevery=every)
    axes.margins(x=0.02)


def _legend(looks: Looks) -> list[Line2D]:
    methods = [Line2D([], [], **look.strokes(4), label=style.name(m)) for m, look in looks.items()]
    return [
        *methods,
        Line2D([], [], color="0.3", lw=1.4, label="test"),
        Line2D([], [], color="0.3", label=f"training, {TRAINING_WINDOW}-round mean", **TRAINING),
    ]
