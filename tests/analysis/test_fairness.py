from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from made_up_trials import trial

from hiso_ray import Experiment
from hiso_ray.analysis.fairness import kind_of, refuse_unfair
from hiso_ray.analysis.identity import fields_of, label

FAIR = [
    trial(method, lr, seed, 0.5) for method in ("hiso", "decomfl") for lr in (0.1, 0.3)
    for seed in (0, 1)
]  # fmt: skip


def changed(where: dict[str, Any], **fields: Any) -> pd.DataFrame:
    rows = [row | (fields if all(row[k] == v for k, v in where.items()) else {}) for row in FAIR]
    return pd.DataFrame(rows)


def test_equal_grids_seeds_and_budgets_are_fair() -> None:
    refuse_unfair(pd.DataFrame(FAIR), ["federation.alpha"])


def test_a_failed_trial_was_tried() -> None:
    refuse_unfair(changed({"seed": 1, "method": "hiso"}, status="failed", final_score=None), [])


def test_unequal_grids_are_refused_and_named() -> None:
    trials = changed({"method": "hiso", "method.lr": 0.3}, **{"method.lr": 0.2})
    with pytest.raises(ValueError, match=r"alpha = 1.0: the grids .*hiso: 0.1, 0.2; decomfl: 0.1"):
        refuse_unfair(trials, ["federation.alpha"])
    refuse_unfair(trials, ["federation.alpha"], allow=["rates"])


def test_unequal_seeds_are_refused_even_within_a_method() -> None:
    trials = changed({"method": "hiso", "method.lr": 0.3, "seed": 1}, seed=2)
    with pytest.raises(ValueError, match=r"the seeds differ .*hiso at 0.3: 0, 2"):
        refuse_unfair(trials, [])
    with pytest.raises(ValueError, match="the seeds differ"):
        refuse_unfair(trials[trials["method"] == "hiso"], [], allow=["rates", "budgets"])
    refuse_unfair(trials, [], allow=["seeds"])


@pytest.mark.parametrize(
    "field",
    [
        "federation.rounds",
        "federation.clients_per_round",
        "federation.local_steps",
        "method.num_perturbations",
        "eval.every",
    ],
)
def test_unequal_budgets_are_refused(field: str) -> None:
    trials = changed({"method": "hiso"}, **{field: 99})
    with pytest.raises(ValueError, match=f"{field} differ .*hiso: 99"):
        refuse_unfair(trials, [])
    refuse_unfair(trials, [], allow=["budgets"])
    refuse_unfair(trials, [field])  # a setting each


def test_budgets_may_differ_between_settings() -> None:
    trials = pd.concat(
        [pd.DataFrame(FAIR), changed({}, **{"federation.rounds": 60, "federation.alpha": 0.1})]
    )
    refuse_unfair(trials, ["federation.alpha"])


def test_other_conditions_are_never_mixed() -> None:
    trials = changed({"method": "hiso"}, **{"federation.alpha": 0.1})
    with pytest.raises(ValueError, match=r"differ in federation.alpha; add that to `within`"):
        refuse_unfair(trials, [], allow=["rates", "seeds", "budgets"])
    with pytest.raises(ValueError, match=r"different metrics \(f1, accuracy\)"):
        refuse_unfair(changed({"method": "hiso"}, metric="f1"), [])


def test_a_method_has_one_set_of_hyper_parameters() -> None:
    refuse_unfair(changed({"method": "hiso"}, **{"method.mu": 0.1}), [])
    with pytest.raises(ValueError, match=r"trials of hiso differ in method.mu"):
        refuse_unfair(changed({"method": "hiso", "seed": 1}, **{"method.mu": 0.1}), [])


def test_a_seed_that_ran_twice_is_refused() -> None:
    more = trial("hiso", 0.1, 0, 0.5, **{"federation.rounds": 60})
    with pytest.raises(ValueError, match=r"2 times with seed 0, with different federation.rounds"):
        refuse_unfair(pd.DataFrame([*FAIR, more]), [], allow=["budgets"])


def test_arguments_are_checked() -> None:
    trials = pd.DataFrame(FAIR)
    with pytest.raises(ValueError, match="choose from rates, seeds, budgets"):
        refuse_unfair(trials, [], allow=["grids"])
    with pytest.raises(ValueError, match=r"no column federation.beta"):
        refuse_unfair(trials, ["federation.beta"])
    with pytest.raises(ValueError, match="all methods, rates and seeds"):
        refuse_unfair(trials, ["seed"])
    with pytest.raises(ValueError, match="no trials"):
        refuse_unfair(trials.head(0), [])


def other(value: Any) -> Any:
    return f"not {value}" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("field", list(fields_of(Experiment())))
def test_every_field_is_looked_at_or_known_to_be_harmless(field: str) -> None:
    usual = fields_of(Experiment())
    shared = {name: usual[name] for name in usual if kind_of(name) in ("condition", "harmless")}
    fair = [shared | {field: usual[field]} | row for row in FAIR]
    kind = kind_of(field)
    unlike = {field: other(fair[0][field])}

    def where(row: dict[str, Any]) -> bool:
        return row["method"] == "hiso" and (kind != "own" or row["seed"] == 1)

    trials = pd.DataFrame([row | (unlike if where(row) else {}) for row in fair])
    if kind == "label":
        assert field in ("method.name", "method.curvature", "uplink.precision")
    elif kind == "swept":
        assert field in ("seed", "method.lr")
    elif kind == "harmless":
        refuse_unfair(trials, [])
    else:
        assert kind in ("budget", "condition", "own")
        with pytest.raises(ValueError, match=field.replace(".", r"\.")):
            refuse_unfair(trials, [])


def test_what_is_in_the_label_tells_methods_apart() -> None:
    labels = {
        label(Experiment().changed(**{"method.name": "hiso", **fields}))
        for fields in ({}, {"uplink.precision": "int8"}, {"method.curvature": "scalar"})
    }
    assert len(labels | {label(Experiment().changed(**{"method.name": "decomfl"}))}) == 4


def test_a_run_under_attack_is_not_compared_with_one_that_is_not() -> None:
    for unlike in ({"attack.kind": "sign_flip"}, {"aggregation.rule": "median"},
                   {"privacy.noise": 1.0}):  # fmt: skip
        (name,) = unlike
        rows = [{name: "none" if name != "privacy.noise" else 0.0} | row for row in FAIR]
        trials = pd.DataFrame([r | (unlike if r["method"] == "hiso" else {}) for r in rows])
        with pytest.raises(ValueError, match=f"differ in {name}"):
            refuse_unfair(trials, [])
