from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hiso_ray import config
from hiso_ray.config import DevicesConfig, Experiment
from hiso_ray.fields import explain, known_fields


def mistake(values: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(values)
    return explain(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": {"lrr": 1}}, ["method.lrr", "unknown field", "method.lr?"]),
        ({"metod": {}}, ["metod", "unknown field", "allowed: "]),
        ({"method": {"lr": 0}}, ["method.lr = 0", "greater than 0"]),
        ({"method": {"lr": -1.5}}, ["method.lr = -1.5", "greater than 0"]),
        ({"method": {"mu": 0}}, ["method.mu = 0", "greater than 0"]),
        ({"method": {"num_perturbations": 0}}, ["method.num_perturbations = 0"]),
        ({"federation": {"local_steps": 0}}, ["federation.local_steps = 0"]),
        ({"federation": {"rounds": 2.5}}, ["federation.rounds = 2.5", "integer"]),
        ({"federation": {"rounds": True}}, ["federation", "rounds = True"]),
        ({"method": {"lr": "fast"}}, ["method.lr = 'fast'", "number"]),
        ({"method": {"lr": float("nan")}}, ["method.lr", "finite"]),
        ({"method": {"name": "hisso"}}, ["method.name = 'hisso'", "'hiso' or 'decomfl'"]),
        ({"method": {"hessian_retention": 1}}, ["method.hessian_retention = 1", "less than 1"]),
        (
            {"federation": {"num_clients": 4, "clients_per_round": 5}},
            ["clients_per_round = 5", "larger than the federation", "num_clients = 4"],
        ),
        ({"method": {"name": "decomfl", "curvature": "diagonal"}}, ["decomfl has none", "hiso"]),
        ({"resources": {"gpus_per_client": 1.5}}, ["gpus_per_client = 1.5", "whole GPUs"]),
        ({"seed": -1}, ["seed = -1"]),
        ({"federation": {"alpha": 1e308}}, ["federation.alpha = 1e+308"]),
        (
            {"federation": {"num_clients": 9, "clients_per_round": 3, "participation": "cyclic"}},
            ["federation.cycle_groups = 4", "leaves 2 clients", "at most 3 groups"],
        ),
        ({"federation": {"cycle_groups": 3}}, ["cycle_groups = 3", "participation to cyclic"]),
        ({"federation": {"dropout": 1}}, ["federation.dropout = 1", "less than 1"]),
        ({"federation": {"participation": "zyclic"}}, ["participation = 'zyclic'", "'cyclic'"]),
        ({"devices": {"profile": "drawn", "deadline": 0}}, ["devices.deadline = 0"]),
        ({"devices": {"profile": "drawn", "uplink_mbps": 0}}, ["devices.uplink_mbps = 0"]),
        (
            {"devices": {"deadline": 4}},
            ["devices.deadline = 4.0", "no clock", "leave deadline out"],
        ),
        (
            {"devices": {"profile": "p.csv", "speed_spread": 1, "uplink_mbps": 1}},
            ["speed_spread = 1.0, uplink_mbps = 1.0", "those of p.csv", "leave speed_spread, up"],
        ),
    ],
)
def test_mistakes_name_field_value_and_what_is_allowed(values: Any, words: list[str]) -> None:
    text = mistake(values)
    assert all(word in text for word in words), text


def test_yaml_round_trip_and_digest() -> None:
    one = Experiment().changed(**{"method.lr": 6e-4, "seed": 3})
    again = Experiment.model_validate(yaml.safe_load(one.to_yaml()))
    assert again == one
    assert again.digest() == one.digest()


def test_digest_covers_what_decides_the_weights_and_nothing_else() -> None:
    base = Experiment().digest()
    assert (
        Experiment().changed(**{"resources.executor": "serial", "eval.every": 3}).digest() == base
    )
    assert Experiment().changed(**{"federation.rounds": 1000}).digest() == base
    for name, value in {"seed": 1, "method.mu": 1e-4, "federation.alpha": 0.1}.items():
        assert Experiment().changed(**{name: value}).digest() != base


def test_digest_covers_the_clock_but_not_where_a_profile_lies() -> None:
    base = Experiment().changed(**{"devices.profile": "here.csv", "devices.deadline": 4})
    assert base.changed(**{"devices.profile": "there.csv"}).digest() == base.digest()
    for name, value in {
        "devices.deadline": 5,
        "devices.jitter": 0,
        "federation.dropout": 0.1,
    }.items():
        assert base.changed(**{name: value}).digest() != base.digest()


@pytest.mark.parametrize("name", sorted(set(DevicesConfig.model_fields) - {"profile"}))
def test_no_option_of_devices_is_ignored(name: str) -> None:
    """Each needs a profile, and is refused where a file stands for it."""
    value = {"deadline": 9.0}.get(name, 0.75)
    assert f"{name} = {value}" in mistake({"devices": {name: value}})
    drawn = Experiment.model_validate({"devices": {"profile": "drawn", name: value}})
    assert getattr(drawn.devices, name) == value
    of_file = {"speed_spread", "uplink_mbps", "downlink_mbps", "bandwidth_spread"}
    values = {"devices": {"profile": "phones.csv", name: value}}
    if name in of_file:
        assert "those of phones.csv" in mistake(values)
    else:
        assert Experiment.model_validate(values).devices.profile == "phones.csv"


def test_a_saved_default_is_not_an_option_given() -> None:
    saved = Experiment().changed(**{"devices.profile": "phones.csv"}).to_yaml()
    assert Experiment.model_validate(yaml.safe_load(saved)).devices.profile == "phones.csv"


def test_changed_explains_an_unknown_section() -> None:
    with pytest.raises(ValidationError, match="metod"):
        Experiment().changed(**{"metod.lr": 1})


def test_method_decides_the_curvature_unless_told() -> None:
    assert Experiment().curvature == "diagonal"
    assert Experiment().changed(**{"method.name": "decomfl"}).curvature == "none"
    assert Experiment().changed(**{"method.curvature": "scalar"}).curvature == "scalar"


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        config.load(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="holds a list"):
        config.load(tmp_path / "list.yaml")
    (tmp_path / "torn.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match="not YAML"):
        config.load(tmp_path / "torn.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert config.load(tmp_path / "empty.yaml") == {}


def test_every_field_explains_itself() -> None:
    fields = known_fields()
    assert "seed" in fields
    assert "federation.alpha" in fields
    assert all(info.description for info in fields.values())
