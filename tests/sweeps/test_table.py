"""A sweep's table becomes experiments, or says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hiso_ray.sweeps.ready import READY
from hiso_ray.sweeps.table import Sweep, read_sweep

SMALL: dict[str, Any] = {
    "task": {"name": "digits", "model": "mlp-8"},
    "federation.num_clients": 12,
    "federation.clients_per_round": 3,
    "federation.rounds": 4,
}


def sweep(**table: Any) -> Sweep:
    return Sweep.model_validate({"name": "s", "base": SMALL} | table)


def test_arms_are_crossed_with_the_grid_in_the_tables_order() -> None:
    found = sweep(
        arms=[{"method.name": "hiso", "method.curvature": "scalar"}, {"method.name": "decomfl"}],
        grid={"method.lr": [0.1, 0.2], "seed": [0, 1]},
    ).trials()
    seen = [
        (
            t.experiment.method.name,
            t.experiment.method.curvature,
            t.experiment.method.lr,
            t.experiment.seed,
        )
        for t in found
    ]
    assert seen == [
        (name, curvature, lr, seed)
        for name, curvature in (("hiso", "scalar"), ("decomfl", "none"))
        for lr in (0.1, 0.2)
        for seed in (0, 1)
    ]
    assert all(t.experiment.task.model == "mlp-8" for t in found)
    assert found[0].label == "name=hiso curvature=scalar lr=0.1 seed=0"


def test_sections_are_dotted_names_wherever_they_stand() -> None:
    table = {
        "base": SMALL | {"method": {"lr": 0.5, "mu": 0.002}},
        "arms": [{"method": {"name": "hiso"}}, {"method.name": "decomfl"}],
        "grid": {"method": {"num_perturbations": [2, 3]}, "federation.rounds": [10, 20]},
        "smoke": {"federation": {"rounds": 3}, "arms": [{"method": {"name": "hiso"}}]},
    }
    found = sweep(**table)
    assert found.arms == [{"method.name": "hiso"}, {"method.name": "decomfl"}]
    methods = [t.experiment.method for t in found.trials()]
    assert {(m.lr, m.mu) for m in methods} == {(0.5, 0.002)}
    assert {(m.name, m.num_perturbations) for m in methods} == {
        (name, p) for name in ("hiso", "decomfl") for p in (2, 3)
    }
    small = found.smoked().trials()
    assert [t.experiment.federation.rounds for t in small] == [3, 3]
    assert found.arms == [{"method.name": "hiso"}, {"method.name": "decomfl"}]
    with pytest.raises(ValueError, match="is in grid and in arms"):
        sweep(arms=[{"method": {"lr": 0.1}}], grid={"method.lr": [0.1]})


def test_values_of_numpy_and_paths_become_plain(tmp_path: Path) -> None:
    found = sweep(
        grid={"method.lr": np.logspace(-3, -1, 3), "seed": list(np.arange(2))},
        base=SMALL | {"task.data": Path("auto")},
    )
    assert yaml.safe_load(found.to_yaml())["grid"]["method.lr"] == [0.001, 0.01, 0.1]
    assert [t.experiment.seed for t in found.trials()] == [0, 1] * 3


def test_an_id_is_of_what_decides_the_result() -> None:
    (plain,) = sweep().trials()
    (same,) = sweep(name="other", base=SMALL | {"resources.executor": "serial"}).trials()
    assert plain.id == same.id
    changes = {"method.lr": 0.5, "federation.rounds": 5, "eval.every": 2, "seed": 1}
    others = {sweep().changed({name: value}).trials()[0].id for name, value in changes.items()}
    assert len(others | {plain.id}) == 5
    (seeded,) = sweep().changed({"seed": 1}).trials()
    assert seeded.id.replace("-seed1", "-seed0") == plain.id  # the cell is the same


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"grid": {"method.lr": ["fast"]}}, "method.lr = 'fast'.*\n  with method.lr = fast"),
        ({"grid": {"method.lrr": [0.1]}}, "did you mean method.lr"),
        ({"base": SMALL | {"method.lr": [0.1]}}, "method.lr"),
        ({"grid": {"method.lr": []}}, "grid.method.lr is empty, so the sweep has no trials"),
        ({"arms": []}, "arms is empty, so the sweep has no trials"),
        ({"arms": [{"seed": 1}], "grid": {"seed": [1]}}, "seed is in grid and in arms"),
        ({"grid": {"federation.clients_per_round": [3, 13]}}, "larger than the federation.*\n.*13"),
        ({"grid": {"task.name": ["digits", "cats"]}}, "unknown task.*\n  with task.name = cats"),
        ({"grid": {"seed": [1, 1]}}, "two trials are the same run: seed=1 and seed=1"),
        ({"grid": {"resources.tries": [3, 4]}}, "the same run.*resources decide no result"),
        ({"name": "a b"}, "name"),
        ({"grids": {}}, "grids"),
    ],
)
def test_what_cannot_be_is_said(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)" + message):
        sweep(**table).trials()


def test_mistakes_are_told_once_and_not_all_of_many() -> None:
    with pytest.raises(ValueError, match="clients_per_round") as caught:
        sweep(grid={"federation.clients_per_round": [13, 14], "seed": [0, 1]}).trials()
    assert str(caught.value).count("with federation") == 2
    with pytest.raises(ValueError, match="and 3 more"):
        sweep(grid={"federation.clients_per_round": list(range(13, 21))}).trials()


def test_a_value_fixes_a_field_and_a_list_makes_it_an_axis() -> None:
    before = sweep(grid={"method.lr": [0.1, 0.2], "seed": [0, 1]})
    after = before.changed({"method.lr": 0.3, "federation.alpha": [1.0, 10.0]})
    assert after.grid == {"seed": [0, 1], "federation.alpha": [1.0, 10.0]}
    assert {t.experiment.method.lr for t in after.trials()} == {0.3}
    assert before.grid["method.lr"] == [0.1, 0.2]
    nested = before.changed({"task.name": "reviews", "task.model": "auto"})
    assert {t.experiment.task.name for t in nested.trials()} == {"reviews"}


def test_a_changed_field_leaves_the_arms() -> None:
    pairs = [
        {"federation.num_clients": n, "federation.clients_per_round": m}
        for n, m in ((8, 8), (64, 8), (64, 32))
    ]
    before = sweep(arms=pairs)
    fewer = before.changed({"federation.num_clients": [40, 50]})
    assert fewer.arms == [{"federation.clients_per_round": 8}, {"federation.clients_per_round": 32}]
    assert len(fewer.trials()) == 4
    none = fewer.changed({"federation.clients_per_round": 5})
    assert none.arms == [{}]
    assert [t.experiment.federation.num_clients for t in none.trials()] == [40, 50]


def test_a_table_survives_its_yaml(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    before = sweep(arms=[{"method.name": "hiso"}], grid={"seed": [0, 1]}, smoke={"seed": 0})
    path.write_text(before.to_yaml())
    after = read_sweep(str(path))
    assert after == before
    assert [t.id for t in after.trials()] == [t.id for t in before.trials()]


def test_a_python_file_defines_a_sweep(tmp_path: Path) -> None:
    path = tmp_path / "s.py"
    path.write_text(
        "from hiso_ray.sweeps import Sweep\n"
        "SWEEP = Sweep(name='py', grid={'seed': list(range(3))})\n"
    )
    assert len(read_sweep(str(path)).trials()) == 3
    path.write_text("TABLE = 1\n")
    with pytest.raises(ValueError, match="defines no SWEEP"):
        read_sweep(str(path))
    with pytest.raises(ValueError, match="no such file"):
        read_sweep(str(tmp_path / "none.py"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "holds a list"),
        ("name: s\ngrid: {method.lr: 0.1}", "grid.method.lr = 0.1"),
        ("name: s\nbas: {}", r"bas: unknown \(allowed: name, about, base"),
        ("name: s\narms: []", "arms is empty"),
        ("name: [", "is not YAML"),
    ],
)
def test_a_file_that_is_no_sweep_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_sweep(str(path))


@pytest.mark.parametrize("name", READY)
def test_ready_sweeps_are_fair_and_small_when_they_smoke(name: str) -> None:
    ready = READY[name]
    trials = ready.trials()
    grids: dict[str, set[Any]] = {}
    budgets: dict[str, set[Any]] = {}
    for trial in trials:
        e = trial.experiment
        arm = e.changed(**{"method.lr": 1.0, "seed": 0}).digest()
        grids.setdefault(arm, set()).add((e.method.lr, e.seed, e.federation.rounds))
        steps = e.federation.local_steps, e.method.num_perturbations
        budget = (e.seed, e.federation.rounds, e.federation.clients_per_round, *steps)
        budgets.setdefault(e.method.name, set()).add(budget)
    assert len({frozenset(grid) for grid in grids.values()}) == 1  # the same for every arm
    if name != "weights":  # fedprox has no proximal term in one local step
        assert len({frozenset(budget) for budget in budgets.values()}) == 1
    small = ready.smoked()
    assert small.name == f"{name}-smoke"
    tiny = small.trials()
    assert len(tiny) <= 16
    assert sum(t.experiment.federation.rounds for t in tiny) <= 160
    assert yaml.safe_load(ready.to_yaml())["name"] == name


def test_smoke_must_say_what_tiny_is() -> None:
    with pytest.raises(ValueError, match="give it a table `smoke`"):
        sweep().smoked()
