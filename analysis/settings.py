"""Settings: the fields that vary within a study, and how its pictures lay them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from hiso_ray.analysis import style
from hiso_ray.analysis.identity import NO_RESULT

# Fields that are compared within a setting.
COMPARED = ("method.name", "method.curvature", "method.lr")
# The fields to put across and down a picture first; others follow in their own order.
ACROSS, DOWN = "federation.alpha", "federation.num_clients"


@dataclass(frozen=True)
class View:
    """The settings that one picture shows.

    Attributes:
        columns: the field that has a column of panels per value, if any.
        rows: the same for rows.
        fixed: the one value of each other field.
    """

    columns: str | None = None
    rows: str | None = None
    fixed: dict[str, Any] = field(default_factory=dict)

    def of(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of this view in a frame that has the setting's columns."""
        mine = pd.Series(True, frame.index)
        for name, value in self.fixed.items():
            mine &= frame[name] == value
        return frame[mine]

    @property
    def label(self) -> str:
        """``clients per round = 8``; empty if nothing else varies."""
        return in_words(self.fixed)


def in_words(values: dict[str, Any]) -> str:
    """``clients per round = 8, α = 0.1`` of ``{"federation.clients_per_round": 8, ...}``."""
    return ", ".join(f"{style.field_name(n)} = {style.value_name(v)}" for n, v in values.items())


def setting_fields(trials: pd.DataFrame) -> list[str]:
    """The configuration fields that vary within a method, except its learning rate.

    A field that differs only between methods is not a setting: it makes the comparison unfair.
    """
    fields = [
        name
        for name in map(str, trials.columns)
        if "." in name and name not in COMPARED and not name.startswith(NO_RESULT)
    ]
    varied = trials.groupby("method")[fields].nunique(dropna=False).max()
    return [name for name in fields if varied[name] > 1]


def views(trials: pd.DataFrame, within: Sequence[str]) -> list[View]:
    """Pictures that show every setting.

    If both vary, skew goes across and clients go down; each value of other varying fields has a
    picture. If fields were varied one at a time, each field has a picture.

    Args:
        trials: with the columns of ``within``.
        within: from :func:`setting_fields`.
    """
    places = trials[list(within)].drop_duplicates()
    fields = _independent(places, sorted(within, key=lambda name: _order(name)))
    if not fields:
        return [View()]
    usual = {name: places[name].mode().iloc[0] for name in fields}
    changed = sum((places[name] != value).astype(int) for name, value in usual.items())
    if len(fields) > 1 and (changed <= 1).all():
        return [View(name, None, {n: v for n, v in usual.items() if n != name}) for name in fields]
    columns, rows, *others = [*fields, None][: max(2, len(fields))]
    if not others:
        return [View(columns, rows)]
    found = []
    for values in places[others].drop_duplicates().to_dict("records"):
        fixed = {str(name): value for name, value in values.items()}
        there = View(columns, rows, fixed).of(places)
        for name in (columns, rows):
            if name and there[name].nunique() == 1:
                fixed[name] = there[name].iloc[0]
        left = [n for n in (columns, rows) if n and n not in fixed]
        across, down, *_ = [*left, None, None]
        found.append(View(across, down, fixed))
    return found


def _order(name: str) -> int:
    return {ACROSS: 0, DOWN: 1}.get(name, 2)


def _independent(places: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    """The fields that earlier ones do not determine, as a task determines its model."""
    kept: list[str] = []
    for name in fields:
        groups = places.groupby(kept or (lambda _: 0), dropna=False)[name]
        if groups.nunique(dropna=False).max() > 1:
            kept.append(name)
    return kept
