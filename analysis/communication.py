"""What a turn costs on the wire, by the three rules of ``hiso_ray/traffic.py``.

A turn is one sampled client in one round. The paper's rule counts a client that has a turn in
every round; the protocol adds seeds, and every record that a client missed since its last turn;
Ray's are the messages that were measured, of whatever batching the driver chose.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from analysis import settings, style, tables
from analysis.spread import HOW, before, over_seeds

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
    """The finished trials with what they sent per sampled client and round.

    Returns:
        the columns of ``trials`` and, in bytes, ``paper_bytes`` (up and down), ``up_bytes``,
        ``down_bytes`` (protocol) and ``ray_bytes`` (up and down; missing with the serial executor,
        which sends nothing).
    """
    done = trials[trials["status"] == "finished"]
    turns = done["rounds"] * done["federation.clients_per_round"]
    measured = done["ray_bytes"].where(done["ray_bytes"] > 0)
    return done.assign(
        paper_bytes=done["paper_bytes_per_client"] / done["rounds"],
        up_bytes=done["uplink_bytes"] / turns,
        down_bytes=done["downlink_bytes"] / turns,
        ray_bytes=measured / turns,
    )


def costs(trials: pd.DataFrame, within: Sequence[str]) -> pd.DataFrame:
    """:func:`per_turn` over seeds, and ``initial_model_bytes_per_client`` beside it.

    Args:
        trials: one learning rate per method and setting.
        within: configuration columns that make a setting.
    """
    sent = per_turn(trials)
    once = "initial_model_bytes_per_client"
    return over_seeds(sent.assign(x_0=sent[once]), [*RULES, "x_0"], [*within, "method"])


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: bytes with their range over seeds where they differ, x_0 in KiB."""
    settings_and_method = before(table, "seeds")
    cells = tables.formatted(table[[*settings_and_method, "seeds", "runs"]])
    for rule, header in RULES.items():
        if table[f"{rule}_seeds"].any():
            cells[f"{header} (B)"] = [
                _spread(*values)
                for values in zip(*(table[f"{rule}_{how}"] for how in HOW), strict=True)
            ]
    cells["initial model (KiB)"] = [_number(value / 1024) for value in table["x_0_mean"]]
    return cells


def _spread(mean: float, low: float, high: float) -> str:
    if pd.isna(mean):
        return "not finished"
    return _number(mean) if low == high else f"{_number(mean)} ({_number(low)}–{_number(high)})"


def _number(value: float) -> str:
    return "not finished" if pd.isna(value) else f"{value:,.0f}"


def bytes_against(
    trials: pd.DataFrame, panels: Sequence[settings.View], fields: Sequence[str]
) -> Figure:
    """Bytes per turn against fields such as τ and P; one panel each, one line per rule.

    Methods are not told apart: they send the same scalars, so the band is over all trials.

    Args:
        trials: as loaded.
        panels: for each field, the settings to show.
        fields: the x axes.
    """
    sent = per_turn(trials)
    shown = [rule for rule in RULES if sent[rule].notna().any()]
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(1.0 + 2.7 * len(fields), 3.4), layout="constrained")
        axes = figure.subplots(1, len(fields), sharey=True, squeeze=False)[0]
        for panel, view, field in zip(axes, panels, fields, strict=True):
            here = view.of(sent)
            for rule in shown:
                line = here.groupby(field)[rule].agg(["mean", "min", "max"]).dropna()
                look = LOOKS[rule]
                panel.fill_between(
                    line.index, line["min"], line["max"], color=look.colour, alpha=0.2, lw=0
                )
                panel.plot(line.index, line["mean"], color=look.colour, marker=look.marker, ms=4)
            panel.set(xscale="log", yscale="log", xlabel=AXES.get(field, style.field_name(field)))
            panel.set_title(view.label, fontsize="medium")
            values = sorted(here[field].unique())
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_xticks(values, map(style.value_name, values))
        axes[0].set_ylabel("Bytes per client and round")
        axes[0].yaxis.set_major_formatter("{x:,.0f}")
        entries = [
            Line2D([], [], color=LOOKS[r].colour, marker=LOOKS[r].marker, ms=4, label=RULES[r])
            for r in shown
        ]
        band = Patch(color="0.5", alpha=0.3, lw=0, label="mean, min–max of trials")
        style.legend(figure, [*entries, band])
    return figure
