"""Forest plot: differences with their intervals, a line per comparison."""

from __future__ import annotations

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from hiso_ray.analysis import settings, style
from hiso_ray.analysis.spread import before
from hiso_ray.errors import UserError

LINE = 0.26  # inches
BAR = 0.6  # height of a grey bar (undetectable differences), in lines
AXES = {"score": "Difference of {} (points)", "loss": "Difference of test loss"}
SCALE = {"score": 100, "loss": 1}


def forest(table: pd.DataFrame) -> Figure:
    """Score and loss side by side: methods minus the baseline, per setting from top to bottom.

    Behind each interval, a grey bar covers the true differences that would be missed more than one
    time in five.

    Args:
        table: from :func:`~.comparison.compared`; pairs that were not compared are left out
            (the table lists them).

    Raises:
        UserError: no pair was compared, or there are several baselines.
    """
    shown = table[table["why"] == ""].reset_index(drop=True)
    if shown.empty:
        raise UserError("no pair was compared, so there is no difference to draw")
    if shown["other"].nunique() > 1:
        raise UserError("several baselines: draw the rows of one")
    looks = style.looks(shown["one"])
    labels = _labels(shown)
    with matplotlib.rc_context(style.STYLE):
        height = 1.2 + LINE * len(shown)
        figure = Figure(figsize=(6.5, height), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, value in zip(panels, AXES, strict=True):
            _draw(panel, shown, value, looks)
            panel.use_sticky_edges = False
            panel.xaxis.set_major_locator(MaxNLocator(5))
            metrics = " / ".join(m.replace("_", " ") for m in shown["metric"].unique())
            panel.set_xlabel(AXES[value].format(metrics))
        panels[0].set_yticks(range(len(shown)), labels)
        panels[0].set_ylim(len(shown) - 0.4, -0.6)
        for panel in panels:
            panel.grid(visible=False, axis="y")
            panel.tick_params(axis="y", length=0)
        style.legend(figure, _legend(looks, shown["other"].iloc[0]))
    return figure


def _labels(shown: pd.DataFrame) -> list[str]:
    """Labels of the lines: the setting at its first line, or the method if there are none."""
    fields = before(shown, "one")
    if not fields:
        return [style.name(method) for method in shown["one"]]
    places = [
        settings.in_words({str(name): value for name, value in row.items()})
        for row in shown[fields].to_dict("records")
    ]
    return [here if i == 0 or here != places[i - 1] else "" for i, here in enumerate(places)]


def _draw(axes: Axes, shown: pd.DataFrame, value: str, looks: dict[str, style.Look]) -> None:
    scale = SCALE[value]
    axes.axvline(0, color="0.3", lw=0.8)
    for place, row in enumerate(shown.to_dict("records")):
        look = looks[row["one"]]
        found = scale * row[f"{value}_detectable"]
        axes.barh(place, 2 * found, left=-found, height=BAR, color="0.9", zorder=0)
        low, high = scale * row[f"{value}_low"], scale * row[f"{value}_high"]
        axes.plot([low, high], [place, place], color=look.colour, lw=1.6, solid_capstyle="butt")
        strokes = look.strokes(5) | {"ls": "none"}
        axes.plot(scale * row[f"{value}_difference"], place, **strokes)


def _legend(looks: dict[str, style.Look], baseline: str) -> list[Artist]:
    other = style.name(baseline)
    bare: Any = {"ls": "none"}
    return [
        *(
            Line2D([], [], **look.strokes(5) | bare, label=f"{style.name(method)} − {other}")
            for method, look in looks.items()
        ),
        Line2D([], [], color="0.3", lw=1.6, label="95 % interval"),
        Patch(color="0.9", label="missed more than 1 time in 5"),
    ]
