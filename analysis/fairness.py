"""Whether trials may be compared: same conditions, learning rates, seeds and budgets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pandas as pd

from hiso_ray.analysis.settings import NO_RESULT
from hiso_ray.errors import UserError

# What a trial may spend, and how often it is evaluated: more evaluations find a higher best score
# and reach a threshold earlier.
BUDGET = (
    "federation.rounds",
    "federation.clients_per_round",
    "federation.local_steps",
    "method.num_perturbations",
    "method.probe",
    "eval.every",
)
# The other fields by their role in a comparison; names of whole sections end with a dot.
CONDITIONS = ("task.", "federation.", "devices.", "eval.", "attack.", "aggregation.", "privacy.")
LABELLED = (
    "method.name",
    "method.curvature",
    "uplink.precision",
)  # `identity.label`
SWEPT = ("seed", "method.lr")  # whose grids must be equal
OWN = ("method.",)  # a method's hyper-parameters; methods may differ in them
ALLOWANCES = ("rates", "seeds", "budgets")


def kind_of(field: str) -> str | None:
    """The role of a configuration field in a comparison: ``budget``, ``label``, ``swept``,
    ``condition``, ``own`` (of a method), ``harmless``; None if it has not been classified."""
    if field in BUDGET:
        return "budget"
    if field in LABELLED:
        return "label"
    if field in SWEPT:
        return "swept"
    sections = {"condition": CONDITIONS, "own": OWN, "harmless": NO_RESULT}
    return next((kind for kind, some in sections.items() if field.startswith(some)), None)


def refuse_unfair(trials: pd.DataFrame, within: Sequence[str], allow: Collection[str] = ()) -> None:
    """Raises if trials of one setting cannot be compared fairly.

    Args:
        trials: one row per trial.
        within: configuration columns; a setting is one combination of their values.
        allow: what may nevertheless differ between the methods of a setting: ``rates`` (their
            grids of ``method.lr``), ``seeds``, ``budgets`` (:data:`BUDGET`).

    Raises:
        UserError: no trials, an unknown column or allowance; only some trials have a validation
            score; within a setting, conditions, metrics, rates, seeds or budgets differ; within a
            method, a hyper-parameter other than the rate does; a seed was run twice. Failed trials
            count too.
    """
    if unknown := sorted(set(allow) - set(ALLOWANCES)):
        raise UserError(f"allow = {unknown}: choose from {', '.join(ALLOWANCES)}")
    needed = [*within, "method", "method.lr", "seed"]
    if missing := [name for name in needed if name not in trials]:
        raise UserError(f"trials have no column {', '.join(missing)}")
    if trials.empty:
        raise UserError("there are no trials to compare")
    if {"seed", "method", "method.lr"} & set(within):
        raise UserError(f"within = {list(within)}: a setting has all methods, rates and seeds")
    _same_choice(trials)
    for place, trials_there in settings(trials, within):
        _same_conditions(trials_there, place, within)
        _one_trial_per_seed(trials_there, place)
        if "budgets" not in allow:
            _same_budgets(trials_there, place, within)
        if "rates" not in allow:
            _same_rates(trials_there, place)
        if "seeds" not in allow:
            _same_seeds(trials_there, place)


def settings(trials: pd.DataFrame, within: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each setting in words ("federation.alpha = 0.1", "all trials"), and its rows."""
    if not within:
        yield "all trials", trials
        return
    for key, rows in trials.groupby(list(within), dropna=False, sort=False):
        values = key if isinstance(key, tuple) else (key,)
        yield ", ".join(f"{n} = {v}" for n, v in zip(within, values, strict=True)), rows


def _same_choice(trials: pd.DataFrame) -> None:
    """Raises if only some trials have a validation score to choose rates by."""
    scored = trials[trials["final_score"].notna()] if "final_score" in trials else trials[:0]
    if "final_validation_score" not in trials or scored.empty:
        return
    have = scored["final_validation_score"].notna()
    if have.any() and not have.all():
        raise UserError(
            f"{int(have.sum())} of {len(scored)} trials have a validation score "
            f"({scored.loc[~have, 'run'].iloc[0]} has none): rates would be chosen on other "
            "examples; keep the trials of one task.validation_examples"
        )


def _differing(rows: pd.DataFrame, names: Collection[str]) -> list[str]:
    return [name for name in names if rows[name].nunique(dropna=False) > 1]


def _same_conditions(rows: pd.DataFrame, place: str, within: Sequence[str]) -> None:
    fixed = [n for n in map(str, rows) if n.startswith(CONDITIONS) and n not in (*BUDGET, *within)]
    if names := _differing(rows, fixed):
        raise UserError(
            f"{place}: trials differ in {', '.join(names)}; add that to `within`, or keep the "
            "trials of one value"
        )
    if "metric" in rows and rows["metric"].nunique() > 1:
        metrics = ", ".join(map(str, rows["metric"].dropna().unique()))
        raise UserError(f"{place}: trials have different metrics ({metrics}); compare one")
    for method, own in rows.groupby("method", sort=False):
        loose = (*SWEPT, *LABELLED, *BUDGET, *within)  # budgets are checked separately
        ours = [n for n in map(str, own) if n.startswith(OWN) and n not in loose]
        if names := _differing(own, ours):
            raise UserError(
                f"{place}: trials of {method} differ in {', '.join(names)}; add that to `within`, "
                "or keep the trials of one value"
            )


def _one_trial_per_seed(rows: pd.DataFrame, place: str) -> None:
    twice = rows[rows.duplicated(["method", "method.lr", "seed"], keep=False)]
    if twice.empty:
        return
    first = twice.iloc[0]
    keys = ["method", "method.lr", "seed"]
    same = twice[(twice[keys] == first[keys]).all(axis=1)]
    names = _differing(same, [n for n in BUDGET if n in same])
    why = f", with different {', '.join(names)}: add that to `within`" if names else ""
    raise UserError(
        f"{place}: {first['method']} at method.lr = {first['method.lr']:g} was run {len(same)} "
        f"times with seed {first['seed']}{why or '; keep one'}"
    )


def _same_budgets(rows: pd.DataFrame, place: str, within: Sequence[str]) -> None:
    for name in _differing(rows, [n for n in BUDGET if n in rows and n not in within]):
        raise UserError(
            _unequal(place, name, _per(rows, "method", name), "budgets", "give all the same")
        )


def _same_rates(rows: pd.DataFrame, place: str) -> None:
    rates = _per(rows, "method", "method.lr")
    if len(set(rates.values())) > 1:
        what = "the grids of method.lr"
        raise UserError(_unequal(place, what, rates, "rates", "tune all over the same grid"))


def _same_seeds(rows: pd.DataFrame, place: str) -> None:
    arms = rows["method"] + " at " + rows["method.lr"].map("{:g}".format)
    seeds = _per(rows.assign(arm=arms), "arm", "seed")
    if len(set(seeds.values())) > 1:
        raise UserError(_unequal(place, "the seeds", seeds, "seeds", "run all with the same"))


def _per(rows: pd.DataFrame, by: str, name: str) -> dict[str, tuple[Any, ...]]:
    """``by`` -> its values of ``name``, sorted."""
    return {
        str(key): tuple(sorted(values.unique(), key=lambda v: (isinstance(v, str), v)))
        for key, values in rows.groupby(by, sort=False)[name]
    }


def _unequal(place: str, what: str, per: dict[str, tuple[Any, ...]], kind: str, do: str) -> str:
    listed = "; ".join(f"{key}: {', '.join(map(str, values))}" for key, values in per.items())
    return f'{place}: {what} differ ({listed}); {do}, or pass allow=["{kind}"] and say so'
