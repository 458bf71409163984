from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hiso_ray import config
from hiso_ray.config import METHODS, DevicesConfig, Experiment, MethodConfig, fits, own_value
from hiso_ray.config.fields import explain, known_fields

ROOT = Path(__file__).parents[2]


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
        ({"method": {"name": "hisso"}}, ["method.name = 'hisso'", *(f"'{n}'" for n in METHODS)]),
        ({"method": {"name": ["hiso"]}}, ["method.name = ['hiso']", "'hiso'"]),
        ({"method": {"hessian_retention": 1}}, ["method.hessian_retention = 1", "less than 1"]),
        (
            {"federation": {"num_clients": 4, "clients_per_round": 5}},
            ["clients_per_round = 5", "larger than the federation", "num_clients = 4"],
        ),
        (
            {"method": {"name": "decomfl", "curvature": "diagonal"}},
            ["method.curvature = diagonal", "decomfl: it is none there", "use hiso or hizoo"],
        ),
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


# Where the methods differ from HiSo, by their papers.
ONE_CENTRAL = {"num_perturbations": 1, "probe": "central"}
PLAIN = {"curvature": "none"}
OWN_VALUES: dict[str, dict[str, Any]] = {
    "hiso": {},
    "decomfl": PLAIN,
    "mezo": PLAIN | ONE_CENTRAL,
    "hizoo": ONE_CENTRAL | {"hessian_retention": 0.999, "hessian_update": "all"},
    "feedsign": PLAIN | ONE_CENTRAL,
    "fedkseed": PLAIN | ONE_CENTRAL | {"directions": "per_client", "seed_pool": 4096},
    "ferret": PLAIN,
    "fedzo": PLAIN | {"directions": "per_client"},
    "fedavg": PLAIN,
    "fedadam": PLAIN | {"server_lr": 0.01},
    "fedyogi": PLAIN | {"server_lr": 0.01},
    "fedadagrad": PLAIN | {"server_lr": 0.01, "server_beta1": 0.0},
    "fedprox": PLAIN | {"prox": 0.01},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_own_values_unless_told(name: str) -> None:
    hiso, found = MethodConfig().model_dump(), MethodConfig(name=name).model_dump()
    own = OWN_VALUES[name]
    assert found == hiso | {"name": name} | own
    assert {field: own_value(name, field) for field in own} == own
    given = dict.fromkeys(set().union(*OWN_VALUES.values()), "auto")
    assert MethodConfig.model_validate({"name": name} | given).model_dump() == found


def test_method_decides_the_curvature_unless_told() -> None:
    assert Experiment().method.curvature == "diagonal"
    assert Experiment().changed(**{"method.name": "decomfl"}).method.curvature == "none"
    assert Experiment().changed(**{"method.curvature": "scalar"}).method.curvature == "scalar"


def test_another_method_brings_its_own_values_and_keeps_what_was_given() -> None:
    one = Experiment().changed(**{"method.lr": 0.3, "method.num_perturbations": 2})
    feedsign = one.changed(**{"method.name": "feedsign"})
    assert feedsign.method == MethodConfig(name="feedsign", lr=0.3, num_perturbations=2)
    assert (feedsign.method.curvature, feedsign.method.probe) == ("none", "central")
    back = feedsign.changed(**{"method.name": "hiso", "method.probe": "central"})
    assert back.method == MethodConfig(lr=0.3, num_perturbations=2, probe="central")
    assert Experiment().changed(**{"method.name": "feedsign"}).method.num_perturbations == 1
    assert one.changed(**{"method.name": "hiso"}) == one
    with pytest.raises(ValidationError, match=r"momentum = 0.5 with method.name fedkseed"):
        one.changed(**{"method.momentum": 0.5}).changed(**{"method.name": "fedkseed"})


def test_how_scalars_travel_and_are_combined_is_the_methods_or_what_was_asked() -> None:
    feedsign = Experiment().changed(**{"method.name": "feedsign"})
    assert (feedsign.precision, feedsign.rule, feedsign.sends_weights) == (
        "sign",
        "majority",
        False,
    )
    asked = Experiment().changed(**{"uplink.precision": "int8", "aggregation.rule": "median"})
    assert (asked.precision, asked.rule, asked.sends_weights) == ("int8", "median", False)


def test_who_sends_weights_and_who_computes_gradients() -> None:
    local_sgd = {"fedavg", "fedadam", "fedyogi", "fedadagrad", "fedprox"}
    assert {n for n, row in METHODS.items() if row.first_order} == local_sgd | {"ferret"}
    assert {n for n, row in METHODS.items() if row.sends == "weights"} == local_sgd | {"fedzo"}
    assert {n for n, row in METHODS.items() if row.projects} == {"ferret"}
    assert {n for n, row in METHODS.items() if not row.draws} == local_sgd


def of(method: str, **dotted: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"method": {"name": method}}
    for name, value in dotted.items():
        config.put(values, name.replace("__", "."), value)
    return values


KRUM = {"aggregation__rule": "krum", "aggregation__byzantine": 0.3}
NOISY = {"privacy__clip": 1.0, "privacy__noise": 1.0}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        # config/method.py
        (of("hiso", method__server_lr=2), ["server_lr = 2.0 with method.name hiso", "fedprox"]),
        (of("fedavg", method__mu=0.1), ["mu = 0.1 with method.name fedavg", "does not read it"]),
        (of("mezo", method__directions="per_client"), ["directions = per_client", "mezo"]),
        (of("hizoo", method__probe="forward"), ["probe = forward", "hizoo: it is central there"]),
        (of("fedkseed", method__curvature="diagonal"), ["curvature = diagonal", "it is none"]),
        (of("fedkseed", method__momentum=0.9), ["momentum = 0.9", "does not read it"]),
        (of("fedkseed", method__seed_pool=0), ["seed_pool = 0", "at least one seed"]),
        (of("fedadagrad", method__server_beta2=0.5), ["server_beta2 = 0.5", "fedadam or fedyogi"]),
        (of("hiso", method__curvature_rounds=5), ["curvature_rounds = 5", "frozen or oracle"]),
        (
            of("hiso", method__curvature="none", method__curvature_in="probe"),
            ["curvature_in = probe", "there is no curvature"],
        ),
        (of("hiso", method__schedule_floor=0.1), ["schedule_floor = 0.1", "linear or cosine"]),
        (of("fedavg", method__averaging=0.9), ["averaging = 0.9", "use hiso", "or ferret"]),
        # config/fits.py
        (
            of("hiso", method__schedule="linear", method__schedule_rounds=300),
            ["schedule_rounds = 300 is longer than the run, federation.rounds = 200"],
        ),
        (
            of("hiso", method__schedule="cosine", method__schedule_rounds=150),
            ["federation.rounds = 200", "cosine schedule has the rate at 0 from round 150 on"],
        ),
        (
            of("fedavg", method__schedule="linear", method__warmup_rounds=200),
            ["warmup_rounds = 200", "never fall in the schedule's 200 rounds", "to 199 or less"],
        ),
        (
            of("decomfl", method__warmup_rounds=201),
            ["warmup_rounds = 201", "never reach method.lr in 200 rounds", "to 200 or less"],
        ),
        (
            of("hiso", method__averaging=0.96, federation__rounds=20),
            ["averaging = 0.96 averages over about 1 / (1 - 0.96) = 25 rounds", "to 0.95 or less"],
        ),
        (of("mezo"), ["mezo is not federated", "num_clients = 64", "decomfl with probe central"]),
        (of("fedavg", uplink__precision="int8"), ["uplink.precision = int8", "sends weights"]),
        (of("fedzo", aggregation__rule="median"), ["aggregation.rule = median", "sends weights"]),
        (
            of("fedprox", attack__kind="sign_flip", attack__fraction=0.1),
            ["attack.kind = sign_flip", "fedprox sends weights"],
        ),
        (of("feedsign", uplink__precision="float16"), ["uplink.precision", "majority"]),
        (of("feedsign", aggregation__rule="median"), ["aggregation.rule", "majority"]),
        (of("feedsign", aggregation__weights="examples"), ["aggregation.weights", "majority"]),
        (
            of("hiso", method__directions="per_client", aggregation__rule="median"),
            ["aggregation.rule = median", "directions per_client (hiso)", "use mean"],
        ),
        (of("hizoo", method__curvature="random"), ["curvature = random", "hizoo"]),
        (of("hiso", method__curvature="permuted", method__curvature_in="probe"), ["permuted"]),
        (of("hizoo", uplink__precision="int8"), ["uplink.precision = int8", "float32 or float16"]),
        (of("hiso", method__probe="exact", method__mu=0.1), ["mu = 0.1 with probe exact"]),
        (
            of(
                "mezo",
                federation__num_clients=1,
                federation__clients_per_round=1,
                aggregation__weights="examples",
            ),
            ["aggregation.weights = examples", "mezo has one client"],
        ),
        (
            of("hiso", method__probe="exact", task__dtype="bfloat16"),
            ["method.probe = exact with task.dtype = bfloat16", "set task.dtype to float32"],
        ),
        (
            of("hiso", method__curvature="oracle", task__dtype="bfloat16"),
            ["method.curvature = oracle with task.dtype = bfloat16"],
        ),
        (
            of("hiso", diagnostics__every=5, task__dtype="bfloat16"),
            ["diagnostics.every = 5 with task.dtype = bfloat16"],
        ),
        (
            of("ferret", task__dtype="float16"),
            ["method.name = ferret with task.dtype = float16", "set task.dtype to float32"],
        ),
        (of("fedprox"), ["method.prox of fedprox", "local_steps to 2 or more", "fedavg"]),
        (of("fedadam", method__momentum=0.9), ["method.momentum of fedadam", "local_steps to 2"]),
        (of("hiso", method__hessian_update="all"), ["method.hessian_update", "local_steps to 2"]),
        (of("hizoo", privacy__clip=1), ["privacy.clip = 1", "no clip"]),
        (
            of("hizoo", aggregation__rule="krum", aggregation__byzantine=0.1),
            ["aggregation.rule = krum", "another rule"],
        ),
        (
            of("hiso", federation__clients_per_round=4, **KRUM),
            ["federation.clients_per_round = 4 is too few", "krum"],
        ),
        (
            of("hiso", attack__kind="constant", attack__fraction=0.001),
            ["attack.fraction = 0.001", "less than one client"],
        ),
        # config/privacy.py, with what the experiment tells it
        (of("fedavg", privacy__clip=1), ["privacy.clip = 1", "fedavg sends weights"]),
        (of("feedsign", privacy__clip=1), ["privacy.clip = 1", "majority that feedsign"]),
        (of("hizoo", **NOISY), ["privacy.clip = ", "second differences"]),
        (of("fedkseed", **NOISY), ["privacy.noise = 1", "method.directions = per_client"]),
        (of("hiso", method__curvature="oracle", **NOISY), ["method.curvature = oracle reads"]),
        (of("hiso", federation__participation="size", **NOISY), ["participation = size"]),
        (
            of("hiso", devices__profile="drawn", devices__deadline=9, **NOISY),
            ["devices.deadline = 9.0"],
        ),
        (of("hiso", aggregation__rule="median", **NOISY), ["aggregation.rule = median"]),
        (of("hiso", aggregation__weights="examples", **NOISY), ["weights = examples"]),
        (
            of("hiso", attack__kind="colluding", attack__fraction=0.1, **NOISY),
            ["attack.kind = colluding"],
        ),
        (of("hiso", privacy__delta=0.02, **NOISY), ["privacy.delta = 0.02", "1/num_clients"]),
    ],
    ids=lambda case: "-".join(case[:2]) if isinstance(case, list) else "",
)
def test_what_does_not_fit_the_method_or_each_other_is_refused(
    values: Any, words: list[str]
) -> None:
    text = mistake(values)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    "values",
    [
        of("mezo", federation__num_clients=1, federation__clients_per_round=1),
        of("hiso", method__curvature="frozen", method__curvature_rounds=5),
        of("hizoo", uplink__precision="float16"),
        of("fedavg", aggregation__weights="examples"),
        of("fedprox", federation__local_steps=2),
        of("fedzo", task__dtype="bfloat16"),
        of("ferret", method__momentum=0.9, federation__clients_per_round=9, **KRUM),
        of("ferret", uplink__precision="int8", **NOISY),
        of("hiso", federation__clients_per_round=9, **KRUM),
        of("decomfl", **NOISY),
        of("fedkseed", privacy__clip=1),
        of("hiso", method__averaging=0.9, federation__rounds=10),
        of(
            "fedavg",
            method__schedule="linear",
            method__schedule_rounds=9,
            method__schedule_floor=0.1,
        ),
        of("fedzo", method__warmup_rounds=200),
    ],
    ids=str,
)
def test_what_fits_is_not_refused(values: Any) -> None:
    assert Experiment.model_validate(values).to_yaml()


@pytest.mark.parametrize("of_what", ["method.curvature", "diagnostics.every"])
def test_a_model_too_large_for_its_hessian_is_refused(of_what: str) -> None:
    e = Experiment().changed(**{of_what: {"method.curvature": "oracle"}.get(of_what, 5)})
    fits.check_dimension(e, fits.LARGEST_HESSIAN)
    with pytest.raises(ValueError, match=rf"{of_what} = \w+ .* too much for 20,000,001 trainable"):
        fits.check_dimension(e, fits.LARGEST_HESSIAN + 1)
    fits.check_dimension(Experiment(), 10**12)


def test_more_projections_than_weights_are_refused() -> None:
    e = Experiment().changed(**{"method.name": "ferret", "method.projections": 100})
    fits.check_dimension(e, 100)
    with pytest.raises(ValueError, match=r"projections = 100 for 99 trainable .* at most 99"):
        fits.check_dimension(e, 99)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        config.read_yaml(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="holds a list"):
        config.read_yaml(tmp_path / "list.yaml")
    (tmp_path / "torn.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match="not YAML"):
        config.read_yaml(tmp_path / "torn.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert config.read_yaml(tmp_path / "empty.yaml") == {}


def test_every_field_explains_itself() -> None:
    fields = known_fields()
    assert "seed" in fields
    assert "federation.alpha" in fields
    assert all(info.description for info in fields.values())


def test_a_field_added_later_changes_no_older_run() -> None:
    """Published runs can be resumed and replayed only if their configuration keeps its digest."""
    for folder in sorted((ROOT / "docs" / "results" / "gemma" / "runs").iterdir()):
        values = config.read_yaml(folder / "config.yaml")
        known = {name: values[name] for name in Experiment.model_fields if name in values}
        header = json.loads((folder / "ledger.jsonl").read_text().splitlines()[0])
        assert Experiment.model_validate(known).digest() == header["config_sha256"], folder.name
