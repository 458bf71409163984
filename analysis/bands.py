"""Methods over seeds: the mean as a line, in a band from the lowest seed to the highest.

Lowest to highest, because of three seeds a standard deviation says little.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from analysis import style
from analysis.curves import against, cut_runaways, score_name, wide

MARKS = 6  # markers on a line
APART = 4  # x axes whose ends differ by more than so many times are not shared: it would squeeze
Y = Literal["score", "eval_loss"]
Grid = list[list[pd.DataFrame]]


def bands(
    table: pd.DataFrame,
    x: str = "round",
    y: Y = "score",
    columns: str | None = None,
    rows: str | None = None,
) -> Figure:
    """One line and band per method; one panel, or one for each value of the fields given.

    Panels share the y axis, and the x axis as far as that leaves their curves wide enough.

    Args:
        table: of :func:`analysis.load.rounds`, with one cell per method and panel.
        x: ``round``, ``kib_per_client``, ``forward_passes``, ``seconds`` or ``simulated_seconds``.
        columns: a field with a column of panels for each of its values (``federation.alpha``).
        rows: the same for rows of panels (``federation.num_clients``).

    Raises:
        ValueError: an unknown axis or field, several cells of a method in one panel, or nothing to
            show.
    """
    table, x_name = against(table, x)
    table = table.dropna(subset=[x, y])
    if table.empty:
        raise ValueError(
            f"no round has both {x} and {y}: choose another axis"
            + " (only runs with devices.profile have a virtual clock)" * (x == "simulated_seconds")
        )
    across, down = _values(table, columns), _values(table, rows)
    grid = [
        [over_seeds(_part(_part(table, rows, r), columns, c), x, y) for c in across] for r in down
    ]
    one = len(across) == len(down) == 1
    looks = style.looks(table["method"])
    panels_take = 1.1 + 1.5 * len(across), 1.1 + 1.3 * len(down)
    width, height = style.single(looks) if one else panels_take
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(max(3.5, width), height), layout="constrained")
        sharing = _sharing(grid)
        axes = figure.subplots(len(down), len(across), sharex=sharing, sharey=True, squeeze=False)
        for panels, tables in zip(axes, grid, strict=True):
            for panel, lines in zip(panels, tables, strict=True):
                _draw(panel, lines, looks)
                if wide(table, x):
                    style.log(panel, "x")
                    continue
                panel.xaxis.set_major_locator(MaxNLocator(6 if one else 4, steps=[1, 2, 5, 10]))
                if x == "forward_passes":
                    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        if y == "score":
            axes[0][0].yaxis.set_major_formatter(style.percent)
        for panel, value in zip(axes[0], across, strict=True):
            panel.set_title(_says(columns, value), fontsize="medium")
        for panel, value in zip(axes[:, 0], down, strict=True):
            panel.set_ylabel(_says(rows, value))
        y_name = score_name(table)
        if y == "eval_loss":
            y_name = f"Test loss{cut_runaways(axes[0][0], table)}"
        if one:
            axes[0][0].set(xlabel=x_name, ylabel=y_name)
        else:
            figure.supxlabel(x_name, fontsize="medium")
            figure.supylabel(y_name, fontsize="medium")
        style.legend(figure, _legend(looks, pd.concat(chain.from_iterable(grid))))
    return figure


def over_seeds(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """The lines of one panel.

    Args:
        table: rows of ``rounds``.

    Returns:
        ``method``, ``round``, ``x`` (the seeds' mean), ``mean``, ``low`` and ``high`` of ``y`` over
        the seeds that evaluated the round, ``seeds`` (how many), sorted by method and round.

    Raises:
        ValueError: several cells of a method, whose mean would be of no method.
    """
    for method, runs in table.groupby("method"):
        if runs["cell"].nunique() > 1:
            varied = map(str, runs.columns[runs.nunique(dropna=False) > 1])
            fields = [c for c in varied if "." in c and not c.startswith("resources.")]
            raise ValueError(
                f"{method} has {runs['cell'].nunique()} cells in one panel (they differ in "
                f"{', '.join(fields) or 'their configuration'}): keep one, or give each a panel"
            )
    return table.groupby(["method", "round"], as_index=False).agg(
        x=(x, "mean"), mean=(y, "mean"), low=(y, "min"), high=(y, "max"), seeds=("seed", "nunique")
    )


def _values(table: pd.DataFrame, field: str | None) -> list[Any]:
    if field is None:
        return [None]
    if field not in table:
        raise ValueError(f"{field} is no column of the rounds: choose a configuration field")
    return sorted(table[field].dropna().unique())


def _part(table: pd.DataFrame, field: str | None, value: Any) -> pd.DataFrame:
    return table if field is None else table[table[field] == value]


def _says(field: str | None, value: Any) -> str:
    return "" if field is None else f"{style.field_name(field)} = {style.value_name(value)}"


def _sharing(grid: Grid) -> Literal["all", "row", "col", "none"]:
    """The most that panels can share of their x axes with none squeezed."""
    ends = np.array([[lines["x"].max() for lines in tables] for tables in grid])  # NaN: no runs
    if np.nanmax(ends) <= APART * np.nanmin(ends):
        return "all"
    axes: tuple[tuple[Literal["row", "col"], int], ...] = (("row", 1), ("col", 0))
    for sharing, axis in axes:
        if (np.nanmax(ends, axis) <= APART * np.nanmin(ends, axis)).all():
            return sharing
    return "none"


def _draw(axes: Axes, lines: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    for method, line in lines.groupby("method", sort=False):
        look = looks[str(method)]
        axes.fill_between(line["x"], line["low"], line["high"], color=look.colour, alpha=0.2, lw=0)
        # Markers where they do not hide the line, for readers without colours.
        every = max(1, round(len(line) / MARKS))
        axes.plot(line["x"], line["mean"], **look.strokes(), markevery=every)
    if lines.empty:
        axes.text(0.5, 0.5, "no runs", transform=axes.transAxes, ha="center", color="0.4")
    axes.margins(x=0.02)


def _legend(looks: dict[str, style.Look], lines: pd.DataFrame) -> list[Artist]:
    """The methods with their number of seeds, and what a band is."""
    entries: list[Artist] = []
    for method, look in looks.items():
        seeds = lines.loc[lines["method"] == method, "seeds"]
        n = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()}–{seeds.max()}"
        label = f"{style.name(method)} (n = {n})"
        entries.append(Line2D([], [], **look.strokes(4), label=label))
    what = "mean, min–max of n seeds"
    return [*entries, Patch(color="0.5", alpha=0.3, lw=0, label=what)]
