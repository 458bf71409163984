"""The bytes of a turn, counted by the three rules of ``hiso_ray/federation/traffic.py``.

A turn is one sampled client in one round. The paper's rule assumes a client that takes part in
every round; the protocol adds seeds, and every record that the client missed since its last turn;
Ray's bytes are those of the measured messages, as the driver batched them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from hiso_ray.analysis import endings, settings, style, tables
from hiso_ray.analysis.spread import HOW, before, over_seeds

RULES = {
    "paper_bytes": "paper's rule (up + down)",
    "up_bytes": "protocol, up",
    "down_bytes": "protocol, down",
    "ray_bytes": "measured, Ray's messages",
}
AXES = {
    "federation.local_steps": "Local steps τ",
    "method.num_perturbations": "Perturbations P",
}
LOOKS = {
    "paper_bytes": style.Look(style.COLOURS[6], "D"),
    "up_bytes": style.Look(style.COLOURS[2], "^"),
    "down_bytes": style.Look(style.COLOURS[4], "v"),
    "ray_bytes": style.Look(style.COLOURS[3], "P"),
}


def per_turn(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with their bytes per sampled client and round, missing unless they finished.

    Returns:
        the columns of ``trials`` and, in bytes, ``paper_bytes`` (up and down), ``up_bytes``,
        ``down_bytes`` (protocol) and ``ray_bytes`` (up and down; missing with the serial executor,
        which sends nothing).
    """
    done = trials.where(trials["status"] == "finished")
    turns = done["rounds"] * done["federation.clients_per_round"]
    measured = done["ray_bytes"].where(done["ray_bytes"] > 0)
    return trials.assign(
        paper_bytes=done["paper_bytes_per_client"] / done["rounds"],
        up_bytes=done["uplink_bytes"] / turns,
        down_bytes=done["downlink_bytes"] / turns,
        ray_bytes=measured / turns,
    )


def costs(trials: pd.DataFrame, within: Sequence[str]) -> pd.DataFrame:
    """:func:`per_turn` over the seeds that finished, ``initial_model_bytes_per_client``, and how
    many trials ``failed``, ``diverged``, are ``unfinished`` or were ``stopped``.

    Args:
        trials: one learning rate per method and setting.
        within: configuration columns that make a setting.
    """
    sent = endings.marked(per_turn(trials))
    sent["x_0"] = pd.to_numeric(sent["initial_model_bytes_per_client"])
    by = [*within, "method"]
    return over_seeds(sent, [*RULES, "x_0"], by, endings.COUNTS, partial=True)


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: bytes with their range over seeds where they differ, x_0 in KiB."""
    settings_and_method = before(table, "seeds")
    cells = tables.formatted(table[[*settings_and_method, "seeds", *endings.COUNTS, "runs"]])
    for rule, header in RULES.items():
        if table[f"{rule}_seeds"].any():
            cells[f"{header} (B)"] = [
                _spread(*values)
                for values in zip(
                    *(table[f"{rule}_{part}"] for part in (*HOW, "seeds")),
                    table["seeds"],
                    strict=True,
                )
            ]
    cells["initial model (KiB)"] = [_number(value / 1024) for value in table["x_0_mean"]]
    return cells


def _spread(mean: float, low: float, high: float, count: int, seeds: int) -> str:
    if pd.isna(mean):
        return "not finished"
    some = f", {count} of {seeds} seeds" if count < seeds else ""
    range_ = "" if low == high else f" ({_number(low)}–{_number(high)})"
    return f"{_number(mean)}{range_}{some}"


def _number(value: float) -> str:
    return "not finished" if pd.isna(value) else f"{value:,.0f}"


def bytes_against(
    trials: pd.DataFrame, panels: Sequence[settings.View], fields: Sequence[str]
) -> Figure:
    """Bytes per turn against fields such as τ and P; one panel each, one line per rule.

    Methods that send the same bytes share a row of panels and a band over all their trials. Others
    have rows of their own.

    Args:
        trials: as loaded.
        panels: for each field, the settings to show.
        fields: the x axes.
    """
    sent = per_turn(trials)
    rows = alike(sent)
    shown = [rule for rule in RULES if sent[rule].notna().any()]
    with matplotlib.rc_context(style.STYLE):
        size = 1.0 + 2.7 * len(fields), 1.2 + 2.2 * len(rows)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(rows), len(fields), sharex="col", sharey="row", squeeze=False)
        for row, methods in zip(axes, rows, strict=True):
            own = sent[sent["method"].isin(methods)]
            for panel, view, field in zip(row, panels, fields, strict=True):
                _draw(panel, view.of(own), field, shown)
            names = ", ".join(map(style.name, methods))
            row[0].set_ylabel(textwrap.fill(names, 30, break_long_words=False))
        for panel, view, field in zip(axes[0], panels, fields, strict=True):
            panel.set_title(view.label, fontsize="medium")
            values = sorted(view.of(sent)[field].unique())
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_xticks(values, map(style.value_name, values))
        for panel, field in zip(axes[-1], fields, strict=True):
            panel.set_xlabel(AXES.get(field, style.field_name(field)))
        figure.supylabel("Bytes per client and round", fontsize="medium")
        entries = [
            Line2D([], [], color=LOOKS[r].colour, marker=LOOKS[r].marker, ms=4, label=RULES[r])
            for r in shown
        ]
        band = Patch(color="0.5", alpha=0.3, lw=0, label="mean, min–max of trials")
        style.legend(figure, [*entries, band])
    return figure


def alike(sent: pd.DataFrame) -> list[list[str]]:
    """Groups of methods that send the same: equal bytes up, and equal by the paper's rule, for
    every number of scalars. Methods without a finished trial are left out.

    Args:
        sent: from :func:`per_turn`.
    """
    done = sent.dropna(subset=["paper_bytes"])
    groups: dict[tuple[tuple[float, ...], ...], list[str]] = {}
    for method, own in done.groupby("method", sort=False):
        bytes_ = own[[*AXES, "paper_bytes", "up_bytes"]].drop_duplicates().sort_values([*AXES])
        key = tuple(bytes_.round(3).itertuples(index=False, name=None))
        groups.setdefault(key, []).append(str(method))
    return list(groups.values())


def _draw(axes: Axes, sent: pd.DataFrame, field: str, rules: Sequence[str]) -> None:
    for rule in rules:
        line = sent.groupby(field)[rule].agg(["mean", "min", "max"]).dropna()
        look = LOOKS[rule]
        axes.fill_between(line.index, line["min"], line["max"], color=look.colour, alpha=0.2, lw=0)
        axes.plot(line.index, line["mean"], color=look.colour, marker=look.marker, ms=4)
    axes.set_xscale("log")
    style.log(axes, "y")
