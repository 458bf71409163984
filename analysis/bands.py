"""Methods over seeds: the mean as a line, in a band from the lowest seed to the highest.

The band is the range because a standard deviation of three seeds says little. A line ends at the
last round that all seeds of a method have, with a cross if one of them diverged, failed or was
stopped: the mean of the remaining seeds would rise only because the worst one is gone.
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

from hiso_ray.analysis import endings, style
from hiso_ray.analysis.curves import against, cut_runaways, score_name, wide
from hiso_ray.errors import UserError

MARKS = 6  # markers on a line
APART = 4  # x axes whose ends differ by more than this factor are not shared, to avoid squeezing
Y = Literal["score", "eval_loss"]
Grid = list[list[pd.DataFrame]]
CROSS: Any = {"marker": "x", "ms": 6, "mew": 1.6, "ls": "none"}


def bands(
    table: pd.DataFrame,
    trials: pd.DataFrame,
    x: str = "round",
    y: Y = "score",
    columns: str | None = None,
    rows: str | None = None,
) -> Figure:
    """One line and band per method; one panel, or one for each value of the fields given.

    Panels share the y axis, and the x axis unless that squeezes their curves.

    Args:
        table: of :func:`~.load.rounds`, with one cell per method and panel.
        trials: the trials of these rounds, including those without any.
        x: ``round``, ``kib_per_client``, ``forward_passes``, ``seconds`` or ``simulated_seconds``.
        columns: a field with a column of panels for each of its values (``federation.alpha``).
        rows: the same for rows of panels (``federation.num_clients``).

    Raises:
        UserError: an unknown axis or field, several cells of a method in one panel, or nothing to
            show.
    """
    table, x_name = against(table, x)
    table = table.dropna(subset=[x, y])
    if table.empty:
        simulated = x == "simulated_seconds"
        hint = " (only runs with devices.profile have a virtual clock)" if simulated else ""
        raise UserError(f"no round has both {x} and {y}: choose another axis{hint}")
    across, down = _values(trials, columns), _values(trials, rows)
    tried = [[_part(_part(trials, rows, r), columns, c) for c in across] for r in down]
    grid = [
        [
            means_and_ranges(_part(_part(table, rows, r), columns, c), here, x, y)
            for c, here in zip(across, row, strict=True)
        ]
        for r, row in zip(down, tried, strict=True)
    ]
    one = len(across) == len(down) == 1
    looks = style.looks(trials["method"])
    panels_take = 1.1 + 1.5 * len(across), 1.1 + 1.3 * len(down)
    width, height = style.single(looks) if one else panels_take
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(max(3.5, width), height), layout="constrained")
        sharing = _sharing(grid)
        axes = figure.subplots(len(down), len(across), sharex=sharing, sharey=True, squeeze=False)
        for panels, tables, row in zip(axes, grid, tried, strict=True):
            for panel, lines, here in zip(panels, tables, row, strict=True):
                _draw(panel, lines, looks)
                if lines.empty:
                    why = "no runs" if here.empty else "no round that\nall seeds have"
                    panel.text(0.5, 0.5, why, transform=panel.transAxes, ha="center", color="0.4")
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
        cut = any(lines["cut"].any() for lines in chain.from_iterable(grid))
        style.legend(figure, _legend(looks, list(chain.from_iterable(tried)), cut))
    return figure


def means_and_ranges(table: pd.DataFrame, trials: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """The lines of one panel.

    Args:
        table: rows of ``rounds``.
        trials: those of the panel.

    Returns:
        One row per method and round that all its seeds evaluated, sorted: ``method``, ``round``,
        ``x`` (the seeds' mean), ``mean``, ``low`` and ``high`` of ``y`` over the seeds, ``seeds``
        (how many), ``cut``: whether the line ends here because a seed did.

    Raises:
        UserError: a method has several cells, which must not be averaged.
    """
    for method, runs in table.groupby("method"):
        if runs["cell"].nunique() > 1:
            varied = map(str, runs.columns[runs.nunique(dropna=False) > 1])
            fields = [c for c in varied if "." in c and not c.startswith("resources.")]
            raise UserError(
                f"{method} has {runs['cell'].nunique()} cells in one panel (they differ in "
                f"{', '.join(fields) or 'their configuration'}): keep one, or give each a panel"
            )
    lines = table.groupby(["method", "round"], as_index=False).agg(
        x=(x, "mean"), mean=(y, "mean"), low=(y, "min"), high=(y, "max"), seeds=("seed", "nunique")
    )
    lines = lines[lines["seeds"] == lines["method"].map(_seeds(trials))].reset_index(drop=True)
    lost = trials.loc[trials["status"] != "finished", "method"].unique()
    last = ~lines.duplicated("method", keep="last")
    return lines.assign(cut=last & lines["method"].isin(lost))


def _seeds(trials: pd.DataFrame) -> pd.Series:
    """How many seeds each method was tried with."""
    return trials.groupby("method")["seed"].nunique()


def _values(table: pd.DataFrame, field: str | None) -> list[Any]:
    if field is None:
        return [None]
    if field not in table:
        raise UserError(f"{field} is no column of the trials: choose a configuration field")
    return sorted(table[field].dropna().unique())


def _part(table: pd.DataFrame, field: str | None, value: Any) -> pd.DataFrame:
    return table if field is None else table[table[field] == value]


def _says(field: str | None, value: Any) -> str:
    return "" if field is None else f"{style.field_name(field)} = {style.value_name(value)}"


def _sharing(grid: Grid) -> Literal["all", "row", "col", "none"]:
    """How widely panels can share x axes without squeezing any of them."""
    ends = np.array([[lines["x"].max() for lines in tables] for tables in grid])  # NaN: no line
    if np.isnan(ends).all():
        return "all"
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
        cut = line[line["cut"]]
        axes.plot(cut["x"], cut["mean"], color=look.colour, **CROSS)
    axes.margins(x=0.02)


def _legend(looks: dict[str, style.Look], panels: list[pd.DataFrame], cut: bool) -> list[Artist]:
    """The methods with their numbers of seeds and of unfinished runs, and what a band means.

    Args:
        panels: the trials of each panel.
    """
    entries: list[Artist] = []
    trials, seeds = pd.concat(panels), pd.concat([_seeds(panel) for panel in panels])
    for method, look in looks.items():
        n = _range(seeds[seeds.index == method])
        own = trials[trials["method"] == method]
        lost = endings.told(own)
        of = f"; of {len(own)} runs {lost}" if lost else ""
        label = f"{style.name(method)} (n = {n}{of})"
        entries.append(Line2D([], [], **look.strokes(4), label=label))
    entries.append(Patch(color="0.5", alpha=0.3, lw=0, label="mean, min–max of n seeds"))
    if cut:
        entries.append(Line2D([], [], color="0.3", label="not all seeds went on", **CROSS))
    return entries


def _range(numbers: pd.Series) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low}" if low == high else f"{low}–{high}"
