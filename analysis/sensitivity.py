"""Score against learning rate: how much a method's result depends on the rate."""

from __future__ import annotations

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from hiso_ray.analysis import settings, style

LOST: Any = {"marker": "x", "ms": 5, "mew": 1.4, "ls": "none"}


def sensitivity(
    table: pd.DataFrame,
    label: str,
    columns: str | None = None,
    rows: str | None = None,
    score: str = "final_score",
) -> Figure:
    """One line and band per method over its rates, the best ringed, in panels as in ``bands``.

    A rate at which seeds were lost (failed, unfinished) has a cross at the bottom.

    Args:
        table: from :func:`~.selection.by_rate`, one row per method, rate and panel.
        label: what the score is, for the axis.
        columns: a field with a column of panels for each of its values.
        rows: the same for rows of panels.
    """
    across = sorted(table[columns].unique()) if columns else [None]
    down = sorted(table[rows].unique()) if rows else [None]
    one = len(across) == len(down) == 1
    looks = style.looks(table["method"])
    panels_take = max(3.5, 1.1 + 1.5 * len(across)), 1.3 + 1.3 * len(down)
    size = style.single(looks) if one else panels_take
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(down), len(across), sharex=True, sharey=True, squeeze=False)
        for panels, row in zip(axes, down, strict=True):
            for panel, column in zip(panels, across, strict=True):
                here = {n: v for n, v in ((columns, column), (rows, row)) if n is not None}
                _draw(panel, settings.View(fixed=here).of(table), looks, score)
        for panel, column in zip(axes[0], across, strict=True):
            panel.set_title(settings.in_words({columns: column} if columns else {}), size="medium")
        for panel, row in zip(axes[:, 0], down, strict=True):
            panel.set_ylabel(settings.in_words({rows: row} if rows else {}))
        axes[0][0].yaxis.set_major_formatter(style.percent)
        rates = sorted(table["method.lr"].unique())
        axes[0][0].set_xscale("log")
        axes[0][0].set_xlim(rates[0] / 1.25, rates[-1] * 1.25)
        axes[0][0].xaxis.set_minor_locator(NullLocator())
        slant = 0 if one and len(rates) < 6 else 90
        for panel in axes[-1]:
            panel.set_xticks(rates, map(style.value_name, rates), rotation=slant)
        if one:
            axes[0][0].set(xlabel="Learning rate η", ylabel=label)
        else:
            figure.supxlabel("Learning rate η", fontsize="medium")
            figure.supylabel(label, fontsize="medium")
        style.legend(figure, _legend(looks, table, score))
    return figure


def _draw(axes: Axes, table: pd.DataFrame, looks: dict[str, style.Look], score: str) -> None:
    for place, (method, look) in enumerate(looks.items()):
        line = table[table["method"] == method].sort_values("method.lr")
        x, mean = line["method.lr"], line[f"{score}_mean"]
        axes.fill_between(
            x, line[f"{score}_min"], line[f"{score}_max"], color=look.colour, alpha=0.2, lw=0
        )
        axes.plot(x, mean, **look.strokes())
        lost = _lost(line, score)
        # stack the crosses of several methods
        height = 0.05 + min(0.07, 0.6 / len(looks)) * place
        axes.plot(
            x[lost], [height] * int(lost.sum()), color=look.colour, **LOST,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
        # As best_rate chooses: among the rates that lost the fewest seeds.
        sure = line[_missing(line, score) == _missing(line, score).min()].dropna(
            subset=[f"{score}_mean"]
        )
        if len(sure):
            best = sure.loc[sure[f"{score}_mean"].idxmax()]
            axes.plot(
                best["method.lr"], best[f"{score}_mean"], "o", ms=9, mfc="none", mec=look.colour
            )
    if table.empty:
        axes.text(0.5, 0.5, "no runs", transform=axes.transAxes, ha="center", color="0.4")


def _missing(table: pd.DataFrame, score: str) -> pd.Series:
    return table["seeds"] - table[f"{score}_seeds"]


def _lost(table: pd.DataFrame, score: str) -> pd.Series:
    return _missing(table, score) > 0


def _legend(looks: dict[str, style.Look], table: pd.DataFrame, score: str) -> list[Artist]:
    entries: list[Artist] = []
    for method, look in looks.items():
        seeds = table.loc[table["method"] == method, "seeds"]
        n = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()}–{seeds.max()}"
        label = f"{style.name(method)} (n = {n})"
        entries.append(Line2D([], [], **look.strokes(4), label=label))
    ring: Any = {"marker": "o", "ms": 8, "mfc": "none", "ls": "none", "color": "0.3"}
    entries += [
        Patch(color="0.5", alpha=0.3, lw=0, label="mean, min–max of n seeds"),
        Line2D([], [], label="best", **ring),
    ]
    if _lost(table, score).any():
        entries.append(Line2D([], [], label="lost seeds", color="0.3", **LOST))
    return entries
