"""Methods against a baseline on the same test examples: a table, and sentences that sum it up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hiso_ray.analysis import endings, outcomes, paired, settings, style
from hiso_ray.analysis.outcomes import Outcomes
from hiso_ray.analysis.spread import before
from hiso_ray.errors import UserError

Row = dict[str, Any]
# Columns of a compared pair; missing if it could not be compared.
VALUES = ("score", "loss")
PARTS = {"difference": "mean", "low": "low", "high": "high", "detectable": "detectable"}
FOUND = (
    "examples", "one_score", "other_score",
    *(f"{value}_{part}" for value in VALUES for part in PARTS), "only_one", "only_other", "p",
)  # fmt: skip


def compared(trials: pd.DataFrame, baseline: str, within: Sequence[str] = ()) -> pd.DataFrame:
    """Every method against the baseline in every setting, seed by seed on the same examples.

    A method is compared over all of its seeds or not at all: leaving out the seeds that diverged
    would flatter it.

    Args:
        trials: one learning rate per method and setting, as from
            :func:`~.selection.at_best_rate`; their run folders hold the outcomes.
        baseline: label of the method that the others are measured against.
        within: configuration columns that make a setting.

    Returns:
        One row per setting and other method: ``within``; ``one`` (the method) and ``other`` (the
        baseline); ``metric``; ``seeds``; ``examples``; ``one_score`` and ``other_score``, shares;
        ``score_difference``, ``score_low``, ``score_high``, ``score_detectable``
        (:class:`~.paired.Difference`, shares) and the same of ``loss``; ``only_one``,
        ``only_other`` and ``p`` of McNemar's test, for a 0/1 metric and one seed; ``why``: in
        words, why they were not compared, else empty; ``runs``.

    Raises:
        UserError: no trial of the baseline.
    """
    if baseline not in set(trials["method"]):
        known = ", ".join(trials["method"].unique())
        raise UserError(f"no trial of {baseline!r}; there are {known}")
    rows: list[Row] = []
    groups = trials.groupby(list(within), dropna=False, sort=False) if within else [((), trials)]
    for place, here in groups:
        other = here[here["method"] == baseline]
        for method, one in here[here["method"] != baseline].groupby("method", sort=False):
            row = dict(zip(within, place, strict=True)) | {"one": method, "other": baseline}
            rows.append(row | _pair(one, other))
    return _table(rows, within)


def run_by_run(trials: pd.DataFrame) -> pd.DataFrame:
    """Every other trial against the first, whatever they are. The columns are those of
    :func:`compared`, with the names of run folders as methods and 1 as the number of seeds.

    Args:
        trials: two or more, of the same task.
    """
    first = trials.iloc[:1].assign(seed=0)
    rows = []
    for place in range(1, len(trials)):
        own = trials.iloc[[place]].assign(seed=0)
        names = {"one": Path(own["run"].item()).name, "other": Path(first["run"].item()).name}
        rows.append(names | _pair(own, first))
    return _table(rows, ())


def _table(rows: Sequence[Row], within: Sequence[str]) -> pd.DataFrame:
    names = [*within, "one", "other", "metric", "seeds", *FOUND, "why", "runs"]
    return pd.DataFrame(rows, columns=names)


def _pair(one: pd.DataFrame, other: pd.DataFrame) -> Row:
    """One row without its keys, from the trials of two methods."""
    metric = pd.concat([one["metric"], other["metric"]]).dropna()
    row: Row = {
        "metric": metric.iloc[0] if len(metric) else None,
        "seeds": one["seed"].nunique(),
        "why": "",
        "runs": [*one["run"], *other["run"]],
    }
    sides = [side.sort_values("seed") for side in (one, other)]
    try:
        _refuse_unpaired(*sides)
        ours, theirs = (_at_the_end(side) for side in sides)
        return row | measured(ours, theirs, row["metric"])
    except UserError as error:
        return row | {"why": str(error)}


def _refuse_unpaired(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """
    Raises:
        UserError: a seed did not finish, was run on one side only, or left no outcomes.
    """
    for side in (one, other):
        if lost := endings.told(side):
            raise UserError(f"{style.name(side['method'].iloc[0])}: {lost} of {len(side)}")
    seeds = [tuple(side["seed"]) for side in (one, other)]
    if seeds[0] != seeds[1]:
        listed = " and ".join(", ".join(map(str, some)) or "none" for some in seeds)
        raise UserError(f"they were run with other seeds ({listed})")
    runs = [*one["run"], *other["run"]]
    if without := sum(not outcomes.there(run) for run in runs):
        raise UserError(f"{without} of {len(runs)} runs have no {outcomes.FILE} ({outcomes.AGAIN})")


def _at_the_end(trials: pd.DataFrame) -> list[Outcomes]:
    """The outcomes of each trial.

    Raises:
        UserError: as :func:`~.outcomes.read`, or the outcomes are not those of the last round.
    """
    found = [outcomes.read(run) for run in trials["run"]]
    for own, last in zip(found, trials["federation.rounds"], strict=True):
        if own.round != last:
            raise UserError(
                f"the outcomes of {own.run} are of round {own.round}, the run ended with {last}: "
                f"remove them, and {outcomes.AGAIN}"
            )
    return found


def measured(one: Sequence[Outcomes], other: Sequence[Outcomes], metric: str) -> Row:
    """The numbers of one comparison, :data:`FOUND`.

    Args:
        one, other: outcomes by seed, the same seeds in the same order.
        metric: the score.

    Raises:
        UserError: different test examples, no test example, or no such metric.
    """
    outcomes.refuse_others([*one, *other])
    found: Row = {"examples": len(one[0].of("test"))}
    if found["examples"] == 0:
        raise UserError(f"{one[0].run} has no test example")
    for name, value in zip(VALUES, (metric, "loss"), strict=True):
        ours, theirs = outcomes.aligned(one, value), outcomes.aligned(other, value)
        apart = paired.difference(ours, theirs)
        found |= {f"{name}_{part}": getattr(apart, own) for part, own in PARTS.items()}
        if name == "score":
            found |= {"one_score": float(ours.mean()), "other_score": float(theirs.mean())}
            if len(ours) == 1 and paired.is_binary(ours) and paired.is_binary(theirs):
                test = paired.mcnemar(ours[0], theirs[0])
                found |= {"only_one": test.only_one, "only_other": test.only_other, "p": test.p}
    return found


def sentences(table: pd.DataFrame) -> list[str]:
    """One sentence per row of :func:`compared`, saying which is better or that the data do not
    tell; pairs that were not compared for the same reason share a sentence."""
    fields = before(table, "one")
    said = []
    for row in _rows(table[table["why"] == ""]):
        place = settings.in_words({name: row[name] for name in fields})
        said.append(f"{f'At {place}: ' if place else ''}{_sentence(row)}")
    for why, rows in table[table["why"] != ""].groupby("why", sort=False):
        what = "1 pair was" if len(rows) == 1 else f"{len(rows)} pairs were"
        said.append(f"{what} not compared: {why}.")
    return said


def _sentence(row: Row) -> str:
    one, other = style.name(row["one"]), style.name(row["other"])
    apart, low, high = (row[f"score_{part}"] for part in ("difference", "low", "high"))
    if pd.isna(low):
        return f"{one} and {other}: of {row['examples']} example nothing follows."
    if low == high == 0:
        return f"{one} and {other} have the same score on every example."
    by = f"{points(apart)} points [{points(low, False)}, {points(high, False)}]"
    if low > 0 or high < 0:
        return f"{one} is {'better' if apart > 0 else 'worse'} than {other}: {by}."
    found = points(row["score_detectable"], False)
    return (
        f"{one} and {other} cannot be told apart: {by}; a difference of {found} points would have "
        "been found."
    )


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: scores in per cent, differences of scores in points."""
    fields, rows = before(table, "one"), _rows(table)
    columns: dict[str, list[str]] = {
        style.field_name(name): [style.value_name(row[name]) for row in rows] for name in fields
    }
    columns |= {
        "method": [style.name(row["one"]) for row in rows],
        "baseline": [style.name(row["other"]) for row in rows],
        "seeds": [f"{row['seeds']}" for row in rows],
        "examples": [_cell(row["examples"], "{:,.0f}") for row in rows],
        "score": [_cell(row["one_score"], "{:.1%}") for row in rows],
        "baseline’s score": [_cell(row["other_score"], "{:.1%}") for row in rows],
        "difference (points)": [_interval(row, "score") for row in rows],
        "would have been found": [_cell(100 * row["score_detectable"], "{:.1f}") for row in rows],
        "difference of loss": [_interval(row, "loss") for row in rows],
    }
    if table["p"].notna().any():
        columns["right alone"] = [
            "–" if pd.isna(row["p"]) else f"{row['only_one']:.0f} : {row['only_other']:.0f}"
            for row in rows
        ]
        columns["McNemar p"] = [_cell(row["p"], "{:.2g}") for row in rows]
    if table["why"].any():
        columns["not compared"] = [row["why"] or "–" for row in rows]
    return pd.DataFrame(columns, dtype=object)


def _rows(table: pd.DataFrame) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def points(share: float, sign: bool = True) -> str:
    """0.004 -> +0.4."""
    return f"{100 * share:{'+' if sign else ''}.1f}".replace("-", "\N{MINUS SIGN}")


def _interval(row: Row, value: str) -> str:
    apart, low, high = (row[f"{value}_{part}"] for part in ("difference", "low", "high"))
    if pd.isna(apart):
        return "–"
    number = points if value == "score" else _loss
    if pd.isna(low):
        return number(apart)
    return f"{number(apart)} [{number(low, False)}, {number(high, False)}]"


def _loss(value: float, sign: bool = True) -> str:
    return f"{value:{'+' if sign else ''}.3g}".replace("-", "\N{MINUS SIGN}")


def _cell(value: float, number: str) -> str:
    return "–" if pd.isna(value) else number.format(value)
