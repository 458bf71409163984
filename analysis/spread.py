"""One number per trial -> its mean and range over the seeds."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from hiso_ray.errors import UserError

HOW = ("mean", "min", "max")


def over_seeds(
    trials: pd.DataFrame,
    values: Sequence[str],
    by: Sequence[str],
    counts: Sequence[str] = (),
    partial: bool = False,
    ratios: Collection[str] = (),
) -> pd.DataFrame:
    """Mean, lowest and highest over seeds.

    A mean over the surviving seeds flatters a method that lost its worst ones. So unless
    ``partial``, all three are missing if any seed's value is.

    Args:
        trials: columns ``run``, ``seed`` and those below.
        values: numeric columns to describe; missing if a trial has no value.
        by: columns; one row of the result for each combination.
        counts: boolean columns, such as ``failed``.
        partial: describe the seeds that have a value, however few.
        ratios: the values whose mean is geometric.

    Returns:
        The columns of ``by``, in order of appearance; ``seeds``, how many were tried; for each
        value ``V_mean``, ``V_min``, ``V_max`` and ``V_seeds``, how many have one; each of
        ``counts`` as the number of seeds for which it is true; ``runs``, a list of the run folders.

    Raises:
        UserError: a seed occurs twice in one row of the result.
    """
    twice = trials[trials.duplicated([*by, "seed"], keep=False)]
    if not twice.empty:
        where = ", ".join(f"{name} = {twice.iloc[0][name]}" for name in (*by, "seed"))
        raise UserError(
            f"several trials with {where} (runs {', '.join(twice['run'].head(3))}): choose one "
            "learning rate per method first (best_rate, at_best_rate)"
        )
    grouped = trials.groupby(list(by), dropna=False, sort=False)
    table = pd.DataFrame({"seeds": grouped["seed"].nunique()})
    for value in values:
        count = grouped[value].count()
        for how in HOW:
            geometric = how == "mean" and value in ratios
            described = grouped[value].agg(geometric_mean if geometric else how)
            table[f"{value}_{how}"] = (
                described if partial else described.where(count == table["seeds"])
            )
        table[f"{value}_seeds"] = count
    for name in counts:
        table[name] = grouped[name].sum().astype(int)
    table["runs"] = grouped["run"].agg(list)
    return table.reset_index()


def geometric_mean(ratios: pd.Series) -> float:
    """Of positive numbers: 2 and 1/2 average to 1, as ratios must whichever side is the
    denominator."""
    return float(np.exp(np.log(ratios).mean()))


def before(table: pd.DataFrame, column: str) -> list[str]:
    """The columns to the left of ``column``: a table begins with the keys of its rows."""
    names = [str(name) for name in table.columns]
    return names[: names.index(column)]
