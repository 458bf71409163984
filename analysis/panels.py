"""Small panels: one per column with all methods in it, or one per method."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiso_ray.analysis import style

ROUND = "Communication round"
ACROSS = 4  # panels of methods side by side
MARKS = 6  # markers on a line
RUNAWAY = 10  # times the 90th percentile of the values: beyond it, an axis is cut


def over_rounds(
    rows: pd.DataFrame,
    names: Mapping[str, str],
    columns: int = 3,
    also: Callable[[Axes], None] | None = None,
    entries: Sequence[Artist] = (),
) -> Figure:
    """A panel per column with a line and band per method (and cell) that has numbers.

    A line has points only at rounds that all measured seeds of its cell have.
    """
    looks = style.looks(rows["method"])
    across = min(columns, len(names))
    down = -(-len(names) // across)
    with matplotlib.rc_context(style.STYLE):
        size = style.single(looks) if len(names) == 1 else (0.6 + 2.9 * across, 0.9 + 2.3 * down)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(down, across, sharex=True, squeeze=False).ravel()
        drawn: set[str] = set()
        for panel, (column, title) in zip(panels, names.items(), strict=True):
            for (method, _), own in rows.groupby(["method", "cell"], sort=False):
                rounds = own.dropna(subset=[column]).groupby("round")
                line = rounds[column].agg(["mean", "min", "max"])
                line = line[rounds["seed"].nunique() == own["seed"].nunique()]
                if line.empty:
                    continue
                drawn.add(str(method))
                _line(panel, line, looks[str(method)])
            panel.set_title(title, fontsize="medium")
            panel.margins(x=0.02)
            if also is not None:
                also(panel)
            _cut_runaways(panel, rows[column])
        for panel in panels[-across:]:
            panel.set_xlabel(ROUND)
        legend = [
            Line2D([], [], **look.strokes(4), label=style.name(method))
            for method, look in looks.items()
            if method in drawn
        ]
        style.legend(figure, [*legend, *entries])
    return figure


def per_method(
    rows: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame, style.Look], None],
    y: str,
    *,
    x: str = ROUND,
    log: bool = False,
    sharey: bool = True,
) -> Figure:
    """A panel per method, up to four side by side, with the same axes."""
    looks = style.looks(rows["method"])
    across = min(ACROSS, len(looks))
    down = -(-len(looks) // across)
    with matplotlib.rc_context(style.STYLE):
        size = max(3.5, 0.6 + 1.9 * across), 1.0 + 1.6 * down
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(down, across, sharex=True, sharey=sharey, squeeze=False).ravel()
        for panel in axes[len(looks) :]:
            panel.remove()
        for panel, (method, look) in zip(axes, looks.items(), strict=False):
            draw(panel, rows[rows["method"] == method], look)
            title = textwrap.fill(style.name(method), 26, break_long_words=False)
            panel.set_title(title, fontsize="medium")
            panel.margins(x=0.02)
        for panel in axes[max(0, len(looks) - across) : len(looks)]:
            panel.tick_params(labelbottom=True)
        if log:
            style.log(axes[0], "y")
        figure.supxlabel(x, fontsize="medium")
        figure.supylabel(y, fontsize="medium")
    return figure


def _line(axes: Axes, line: pd.DataFrame, look: style.Look) -> None:
    axes.fill_between(line.index, line["min"], line["max"], color=look.colour, alpha=0.2, lw=0)
    axes.plot(line.index, line["mean"], **look.strokes(),
              markevery=max(1, round(len(line) / MARKS)))  # fmt: skip


def _cut_runaways(axes: Axes, values: pd.Series) -> None:
    """Cuts a linear axis that a single run would dominate, and says so in the title."""
    most = float(values.abs().quantile(0.9))
    if axes.get_yscale() == "linear" and values.abs().max() > RUNAWAY * most > 0:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -2 * most), min(high, 2 * most))
        axes.set_title(f"{axes.get_title()} (cut off)", fontsize="medium")
