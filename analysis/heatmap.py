"""Maps of a value over two configuration fields, one panel per method."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hiso_ray.analysis import style
from hiso_ray.errors import UserError

SEQUENTIAL = colormaps["cividis"]
# Vermilion below the centre, blue above: equally dark, and distinct to colour-blind readers.
DIVERGING = LinearSegmentedColormap.from_list(
    "below-above", ["#7A3500", style.COLOURS[1], "white", style.COLOURS[0], "#003A5C"]
)
MISSING = "no run"
ACROSS = 6  # panels side by side
FONT = 8  # points
INK = 0.075  # inches per character of that size


def grid(
    table: pd.DataFrame,
    value: str,
    rows: str = "federation.num_clients",
    columns: str = "federation.alpha",
) -> pd.DataFrame:
    """A panel: ``value`` by the two fields, sorted; missing where there is no row.

    Args:
        table: one row per pair of values of the two fields.

    Raises:
        UserError: several rows for a pair.
    """
    twice = table[table.duplicated([rows, columns], keep=False)]
    if len(twice):
        row, column = twice[rows].iloc[0], twice[columns].iloc[0]
        raise UserError(
            f"{rows} = {row}, {columns} = {column} has several rows: keep one, such as the mean "
            "over seeds of one method"
        )
    return table.pivot(index=rows, columns=columns, values=value).sort_index().sort_index(axis=1)


def heatmap(
    panels: Mapping[str, pd.DataFrame],
    label: str,
    centre: float | None = None,
    *,
    ratio: bool = False,
    number: str = "{:.2f}",
    texts: Mapping[str, pd.DataFrame] | None = None,
) -> Figure:
    """Panels with one colour scale and colour bar, up to six side by side; every cell shows its
    number.

    Args:
        panels: method (or another title) -> (rows, columns) numbers, as :func:`grid` makes them. A
            missing cell is hatched, also if only another panel has its row.
        label: the colour bar's label.
        centre: the neutral value (0 for a difference, 1 for a speed-up), from which colours
            diverge.
        ratio: colours follow the logarithm.
        number: the format of cells and colour bar; ``{:.1%}`` for scores.
        texts: panel -> (rows, columns) texts that replace the number where not missing; in a
            hatched cell, the reason ("not reached").

    Raises:
        UserError: no cells at all, or a ratio that is not positive.
    """
    full = [panel for panel in panels.values() if panel.size]
    if not full:
        raise UserError("there are no cells to map: give panels with rows and columns")
    index, columns = full[0].index, full[0].columns
    for panel in full[1:]:
        index, columns = index.union(panel.index), columns.union(panel.columns)
    numbers = {m: panel.reindex(index=index, columns=columns) for m, panel in panels.items()}
    words = {m: _words(numbers[m], (texts or {}).get(m), number) for m in panels}
    values = np.concatenate([table.to_numpy(float).ravel() for table in numbers.values()])
    values = values[np.isfinite(values)]
    norm = _norm(values, centre, ratio)
    colours = SEQUENTIAL if centre is None else DIVERGING
    lines = [line for w in words.values() for text in w.ravel() for line in text.split("\n")]
    width = len(columns) * max(0.5, 0.14 + INK * max(map(len, lines)))
    across = min(len(panels), ACROSS)
    down = -(-len(panels) // across)
    with matplotlib.rc_context(style.STYLE):
        size = 1.5 + across * (0.15 + width), max(1.9, down * (0.95 + 0.36 * len(index)))
        figure = Figure(figsize=size, layout="constrained")
        grid_of_axes = figure.subplots(down, across, sharey=True, squeeze=False)
        axes, unused = np.split(grid_of_axes.ravel(), [len(panels)])
        for panel in unused:
            panel.remove()
        for panel, method in zip(axes, panels, strict=True):
            _draw(panel, numbers[method], words[method], norm, colours)
            title = textwrap.fill(style.name(method), round(width / INK), break_long_words=False)
            panel.set_title(title, fontsize="medium")
        for panel in axes[::across]:
            panel.set_ylabel(style.field_name(str(index.name)))
        if values.size:
            ticks = norm.inverse(np.linspace(0, 1, 5)) if ratio else None
            bar = figure.colorbar(ScalarMappable(norm, colours), ax=list(axes), ticks=ticks)
            bar.set_label(label)
            bar.ax.minorticks_off()
            bar.ax.yaxis.set_major_formatter(lambda value, _: _written(value, number))
    return figure


def ink(colour: tuple[float, ...]) -> str:
    """Black or white, whichever is easier to read on a colour (r, g, b in 0…1), by WCAG 2's
    contrast."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = float(np.dot((0.2126, 0.7152, 0.0722), linear))
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def _written(value: float, number: str) -> str:
    return number.format(value).replace("-", "\N{MINUS SIGN}")


def _words(numbers: pd.DataFrame, own: pd.DataFrame | None, number: str) -> np.ndarray:
    """(rows, columns) texts of the cells."""
    said = numbers.map(lambda value: MISSING if pd.isna(value) else _written(value, number))
    if own is not None:
        own = own.reindex_like(numbers)
        said = own.where(own.notna(), said)
    return said.to_numpy(object)


def _norm(values: np.ndarray, centre: float | None, ratio: bool) -> Normalize:
    """Values -> 0…1, symmetric about the centre."""
    if ratio and (values <= 0).any():
        raise UserError(f"a ratio is positive, {values.min():g} is not: map it without ratio")
    if not values.size:
        return Normalize(0, 1)
    low, high = values.min(), values.max()
    if ratio:
        if centre is not None:
            widest = max(high / centre, centre / low)
            low, high = centre / widest, centre * widest
        return LogNorm(low, high) if low < high else LogNorm(low / 2, high * 2)
    if centre is not None:
        widest = max(high - centre, centre - low)
        low, high = centre - widest, centre + widest
    return Normalize(low, high) if low < high else Normalize(low - 0.5, high + 0.5)


def _draw(
    axes: Axes, numbers: pd.DataFrame, words: np.ndarray, norm: Normalize, colours: Colormap
) -> None:
    values = np.ma.masked_invalid(numbers.to_numpy(float))
    axes.imshow(values, norm=norm, cmap=colours, aspect="auto", interpolation="nearest")
    for (row, column), text in np.ndenumerate(words):
        missing = np.ma.getmaskarray(values)[row, column]
        if missing:
            place = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(place, 1, 1, fc="white", ec="0.7", hatch="////", lw=0))
        axes.text(
            column, row, text, ha="center", va="center", fontsize=FONT, linespacing=1,
            color="black" if missing else ink(colours(norm(values[row, column]))),
            bbox={"fc": "white", "ec": "none", "pad": 1} if missing else None,
        )  # fmt: skip
    axes.set_xticks(range(len(numbers.columns)), map(style.value_name, numbers.columns))
    axes.set_yticks(range(len(numbers.index)), map(style.value_name, numbers.index))
    axes.set_xlabel(style.field_name(str(numbers.columns.name)))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
