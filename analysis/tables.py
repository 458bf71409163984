"""Formats tables for readers: one function for the cells, one each for Markdown and LaTeX.

The frames that the other files compute keep their numbers, and go to CSV unrounded, with the runs
that each row came from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from hiso_ray.analysis import endings, speedup, style
from hiso_ray.analysis.spread import before
from hiso_ray.errors import UserError

Row = dict[str, Any]
HEADERS = {
    "final_score": "final score",
    "best_score": "best score",
    "round": "rounds",
    "kib_per_client": "KiB per client",
    "forward_passes": "forward passes",
    "one": "speedup of",
    "other": "over",
    "cost": "counted in",
    "grid": "rates tried",
}
COUNTS = endings.COUNTS
EDGES = {"lowest": "lowest tried", "highest": "highest tried", "only": "only one tried"}
LATEX = {
    " \\%": "~\\%",
    "–": "--",
    "≥ ": r"$\geq$~",
    "≤ ": r"$\leq$~",
    "×": r"$\times$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "η": r"$\eta$",
    "μ": r"$\mu$",
    "τ": r"$\tau$",
}


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """Cells as text: ``91.2 % (90.8–91.6)``, ``1,200 (1,100–1,300)``, ``not reached``.

    The range is over seeds, and left out if there is one seed. If only some seeds have the number,
    ``2 of 3 seeds`` stands beside it or (where the number would mislead) instead of it.

    Args:
        table: from ``selection``, ``thresholds``, ``speedup`` or ``course``: settings, a method,
            values as ``V_mean``, ``V_min``, ``V_max``, ``V_seeds``.

    Returns:
        As many rows of text, without ``runs``; counts of failures and the like only where there
        are any.
    """
    names = [str(name) for name in table.columns]
    values = [name.removesuffix("_mean") for name in names if name.endswith("_mean")]
    taken = {f"{value}_{part}" for value in values for part in ("min", "max", "seeds")}
    rows = _rows(table)
    cells: dict[str, list[str]] = {}
    for name in names:
        if name in taken or name in ("runs", "edge", "bound"):
            continue
        if name in COUNTS and not table[name].any():
            continue
        value = name.removesuffix("_mean")
        if value in values:
            cells[_header(value)] = [_spread(row, value) for row in rows]
        else:
            header = _header(name)
            shown = [_cell(row, name) for row in rows]
            cells[name if header in cells else header] = shown
    return pd.DataFrame(cells, index=range(len(table)), dtype=object)


def cautions(best: pd.DataFrame) -> list[str]:
    """Caveats about the rates that :func:`~.selection.best_rate` chose.

    Returns:
        A sentence for each winner at the edge of its grid, and for each that lost a seed.
    """
    said = []
    fields = before(best, "method")
    for row in _rows(best):
        place = ", ".join(f"{style.field_name(n)} = {_cell(row, n)}" for n in fields)
        who = f"{style.name(row['method'])}{' at ' + place if place else ''}"
        rate, grid = style.value_name(row["method.lr"]), _cell(row, "grid")
        if row["edge"] == "only":
            said.append(f"{who}: {rate} is the only learning rate that was tried.")
        elif row["edge"]:
            said.append(
                f"{who}: the best learning rate, {rate}, is the {row['edge']} of those tried "
                f"({grid}); a better one may lie beyond."
            )
        if how := endings.in_words(row):
            lost = row["failed"] + row["unfinished"] + row["stopped"]
            said.append(f"{who}: at {rate}, {lost} of {row['seeds']} seeds did not finish ({how}).")
    return said


def of_some_seeds(best: pd.DataFrame, score: str) -> pd.Series:
    """The lines in a map's cell if some seeds lack the score: the mean and its number of seeds, or
    how all seeds ended; None elsewhere.

    Args:
        best: from :func:`~.selection.best_rate`.
    """
    said: list[str | None] = []
    for row in _rows(best):
        count, seeds = row[f"{score}_seeds"], row["seeds"]
        ended = (endings.in_words(row) or "no score").replace(", ", "\n")
        some = f"{row[f'{score}_mean']:.1%}\n{count} of {seeds}" if count else ended
        said.append(None if count == seeds else some)
    return pd.Series(said, best.index, dtype=object)


def markdown(cells: pd.DataFrame) -> str:
    """A Markdown table of text cells (:func:`formatted`)."""
    bars = cells.map(lambda cell: str(cell).replace("|", r"\|"))
    return bars.to_markdown(index=False, disable_numparse=True)


def latex(cells: pd.DataFrame) -> str:
    """A LaTeX tabular of text cells (:func:`formatted`); needs the package booktabs."""
    text = cells.to_latex(index=False, escape=True, column_format="l" * cells.shape[1])
    for sign, command in LATEX.items():
        text = text.replace(sign, command)
    return text


def csv(table: pd.DataFrame) -> str:
    """The numbers themselves, unrounded; ``runs`` names the run folders, separated by ``;``.

    Args:
        table: a computed frame, not a formatted one.

    Raises:
        UserError: the table has no column ``runs``.
    """
    if "runs" not in table:
        raise UserError(
            f"no column runs among {', '.join(table.columns)}: give the frame that was computed, "
            "not the formatted one"
        )
    flat = table.copy()
    for name in {"runs", "grid"} & set(flat.columns):
        flat[name] = flat[name].map(lambda items: ";".join(map(str, items)))
    return flat.to_csv(index=False)


def _rows(table: pd.DataFrame) -> list[Row]:
    """Each row as a mapping from column names; unlike in a frame's row, integers stay integers."""
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _header(name: str) -> str:
    return HEADERS.get(name, style.field_name(name))


def _cell(row: Row, name: str) -> str:
    """One cell that is not a spread over seeds."""
    value: Any = row[name]
    if name in ("method", "one", "other"):
        return style.name(value)
    if name == "cost":
        return HEADERS[value]
    if name == "threshold":
        return f"{100 * value:.6g} %"
    if name == "grid":
        return ", ".join(map(style.value_name, value))
    if pd.isna(value):
        return "missing"
    edge = EDGES.get(row.get("edge", ""))
    if name == "method.lr" and edge:
        return f"{style.value_name(value)} ({edge})"
    return style.value_name(value)


def _spread(row: Row, value: str) -> str:
    if value == "speedup":
        return _speedup(row)
    count, seeds = row[f"{value}_seeds"], row["seeds"]
    if count == 0:
        return "not reached" if "threshold" in row else "no score"
    some = f"{count} of {seeds} seeds"
    mean, low, high = (row[f"{value}_{part}"] for part in ("mean", "min", "max"))
    if pd.isna(mean):
        return some
    number, unit = _number(value)
    range_ = f" ({number(low)}–{number(high)})" if count > 1 else ""
    return f"{number(mean)}{unit}{range_}{f', {some}' if count < seeds else ''}"


def _number(value: str) -> tuple[Callable[[float], str], str]:
    """The number format of a value, and the unit after the mean."""
    if value in ("round", "forward_passes"):
        return "{:,.0f}".format, ""
    if value == "kib_per_client":
        return lambda kib: f"{kib:,.0f}" if kib >= 99.95 else f"{kib:#.3g}", ""
    return lambda share: f"{100 * share:.1f}", " %"


def _speedup(row: Row) -> str:
    mean, low, high = (row[f"speedup_{part}"] for part in ("mean", "min", "max"))
    several = row["seeds"] > 1
    match row["bound"]:
        case speedup.EXACT:
            return f"{mean:.2f}×{f' ({low:.2f}–{high:.2f})' if several else ''}"
        case speedup.AT_LEAST:
            return f"≥ {mean:.2f}×{f' (from {low:.2f})' if several else ''}"
        case speedup.AT_MOST:
            return f"≤ {mean:.2f}×{f' (up to {high:.2f})' if several else ''}"
        case speedup.NEITHER:
            return "neither"
        case speedup.AT_ONCE:
            return "reached before training"
        case speedup.UNSEEN:
            return "broke down"
    if row["speedup_seeds"] == row["seeds"]:
        return "bounds both ways"
    return f"{row['speedup_seeds']} of {row['seeds']} seeds"
