"""One contract for every registered method. A new row of ``METHODS`` is tested here without an edit
but for its line in :func:`wires`, where its bytes are stated a second time."""

from __future__ import annotations

import csv
import math
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from hiso_ray import Experiment, replay, resume, run, tasks
from hiso_ray.config import METHODS, MethodConfig
from hiso_ray.execution.worker import Worker
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.metrics_reader import COLUMNS, read_rows
from hiso_ray.runs.plan import plan
from hiso_ray.seeds import step_seeds

CLIENTS, M, ROUNDS, TAU = 6, 3, 6, 2
WIDTH = 256
D = 64 * WIDTH + WIDTH + 10 * WIDTH + 10  # of digits on mlp-256
K = 4096

CASES: dict[str, dict[str, Any]] = {name: {"method.name": name} for name in METHODS} | {
    "ferret": {"method.name": "ferret", "method.projections": 16},
    "hiso per_client": {"method.name": "hiso", "method.directions": "per_client"},
    "hiso momentum": {"method.name": "hiso", "method.momentum": 0.9},
    "hiso average": {
        "method.name": "hiso",
        "method.averaging": 0.6,
        "method.schedule": "cosine",
        "method.warmup_rounds": 2,
    },
}

# What each method needs to get down the quadratic; others take 0.05.
RATES = {
    "ferret": 0.1,
    "fedavg": 0.3,
    "fedprox": 0.3,
    "fedadam": 0.3,
    "fedyogi": 0.3,
    "fedadagrad": 0.3,
}
SERVER_RATES = {"fedadam": 0.1, "fedyogi": 0.1, "fedadagrad": 0.1}

OTHER_VALUES: dict[str, Any] = {
    "lr": 0.03, "mu": 1.0, "num_perturbations": 3, "probe": "exact", "directions": "per_client",
    "curvature": "scalar", "curvature_in": "update", "curvature_rounds": 1, "prox": 1.0,
    "hessian_retention": 0.5, "hessian_eps": 0.1, "hessian_update": "all", "momentum": 0.5,
    "projections": 8, "seed_pool": 2, "weight_decay": 0.1, "server_lr": 0.5, "server_beta1": 0.5,
    "server_beta2": 0.5, "server_eps": 0.1, "generator": "torch", "distribution": "rademacher",
    "schedule": "linear", "schedule_rounds": 2, "schedule_floor": 0.3, "warmup_rounds": 2,
    "averaging": 0.5, "client_loss": "calibrated",
}  # fmt: skip
# What makes a method read a field.
ONLY_IF: dict[str, dict[str, Any]] = {
    "curvature_rounds": {"method.curvature": "frozen"},
    "schedule_rounds": {"method.schedule": "linear", "method.schedule_floor": 0.1},
    "schedule_floor": {"method.schedule": "linear"},
    "client_loss": {"task.name": "digits", "task.model": "mlp-8"},
}

each_method = pytest.mark.parametrize("name", METHODS)
each_case = pytest.mark.parametrize("case", CASES)
Undisturbed = Callable[[str], tuple[Path, dict[str, Any]]]


class Wire(NamedTuple):
    """Bytes by hand.

    Attributes:
        up: of a client's answer.
        request: of what asks it.
        missed: of what brings it up to date, by how many records it missed.
        paper: of a client and round by the published rule; FeedSign's is not a whole number.
    """

    up: int
    request: int
    missed: Callable[[int], int]
    paper: float


def wires(m: int, tau: int, p: int, k: int, d: int) -> dict[str, Wire]:
    """m clients, τ steps, P directions a step, of a pool of K, d weights: float32, seeds of 8
    bytes, η and μ."""
    seeds = 8 * tau + 4 + 4
    scalars = Wire(4 * tau * p, seeds, lambda n: n * (seeds + 4 * tau * p), 2 * 4 * tau * p)
    weights = Wire(4 * d, 4 + 4 + 4 * d, lambda n: 0, 2 * 4 * d)
    bits = math.ceil(tau * p / 8)
    everyones = 4 * m * (1 + tau * p)  # client ids and scalars
    return {
        "hiso": scalars,
        "hiso momentum": scalars,
        "hiso average": scalars,
        "hiso per_client": Wire(
            4 * tau * p, seeds, lambda n: n * (seeds + everyones), 4 * tau * p + 4 * m * tau * p
        ),
        "decomfl": scalars,
        "mezo": scalars,
        "hizoo": Wire(8 * tau * p, seeds, lambda n: n * (seeds + 8 * tau * p), 2 * 8 * tau * p),
        "feedsign": Wire(bits, seeds, lambda n: n * (seeds + bits), 2 * tau * p / 8),
        "fedkseed": Wire(
            4 * tau * p,
            seeds,
            lambda n: min(n * (seeds + everyones), 4 * k),
            4 * (2 * tau * p + k),
        ),
        "ferret": Wire(4 * p, 8 + 4 + 4, lambda n: n * (8 + 4 + 4 + 4 * p), 2 * 4 * p),
        "fedzo": weights._replace(request=seeds + 4 * d),
        "fedavg": weights,
        "fedadam": weights,
        "fedyogi": weights,
        "fedadagrad": weights,
        "fedprox": weights,
    }


def experiment(case: str, **dotted: Any) -> Experiment:
    one = METHODS[CASES[case]["method.name"]].one_client
    base = {
        "task.name": "digits",
        "task.model": f"mlp-{WIDTH}",
        "federation.num_clients": 1 if one else CLIENTS,
        "federation.clients_per_round": 1 if one else M,
        "federation.rounds": ROUNDS,
        "federation.local_steps": TAU,
        "method.lr": 0.01,
        "resources.executor": "serial",
        "resources.snapshot_every": 0,
        "eval.every": ROUNDS,
    }
    return Experiment().changed(**(base | CASES[case] | dotted))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Folder and summary of a case's serial run, made once."""
    done: dict[str, tuple[Path, dict[str, Any]]] = {}

    def of(case: str) -> tuple[Path, dict[str, Any]]:
        if case not in done:
            folder = tmp_path_factory.mktemp("methods") / case.replace(" ", "-")
            done[case] = folder, run(experiment(case), folder)
        return done[case]

    return of


def expected(case: str) -> tuple[Experiment, Wire]:
    e = tasks.resolve(experiment(case))
    m, p = e.federation.clients_per_round, e.method.directions_per_step
    return e, wires(m, TAU, p, K, D)[case]


@each_method
def test_the_row_is_filled_in(name: str) -> None:
    row, fields = METHODS[name], set(MethodConfig.model_fields) - {"name"}
    assert row.paper
    assert row.rule
    assert {"lr"} <= row.reads <= fields == set(OTHER_VALUES)
    assert row.fixed <= set(row.own) <= fields
    method = MethodConfig(name=name)
    assert {field: getattr(method, field) for field in row.own} == dict(row.own)
    assert MethodConfig(**{"name": name, **row.own}) == method
    assert name in wires(M, TAU, 1, K, D), "state the method's bytes there"


@each_method
def test_every_field_is_read_or_refused(name: str, tmp_path: Path) -> None:
    def outcome(folder: str, **dotted: Any) -> Any:
        e = experiment(name, **({"federation.rounds": 3} | dotted))
        digest = run(e, tmp_path / folder)["model_sha256"]
        records = Ledger.read(tmp_path / folder / "ledger.jsonl").records
        return digest, [(r.scalars, r.second, r.train_loss) for r in records]

    row, as_it_is = METHODS[name], outcome("as it is")
    for field, value in OTHER_VALUES.items():
        if value == row.own.get(field):
            value = {"directions": "shared", "hessian_update": "last"}[field]
        dotted = {f"method.{field}": value}
        if field not in row.reads - row.fixed:
            with pytest.raises(ValueError, match=f"{field} = "):
                experiment(name, **dotted)
        elif field in ONLY_IF:
            base = ONLY_IF[field]
            without = outcome(f"without {field}", **base)
            assert outcome(field, **base, **dotted) != without, field
        else:
            assert outcome(field, **dotted) != as_it_is, field


@each_case
def test_replay_is_live(case: str, undisturbed: Undisturbed) -> None:
    folder, summary = undisturbed(case)
    again = replay(folder)
    assert again["matches"] is True
    assert again["model_sha256"] == summary["model_sha256"]


@each_case
@pytest.mark.parametrize("every", [0, 2])
def test_an_interrupted_run_ends_like_an_undisturbed_one(
    case: str, every: int, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    whole, summary = undisturbed(case)

    def interrupt(row: dict[str, Any]) -> None:
        if row["round"] == ROUNDS - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment(case, **{"resources.snapshot_every": every}), tmp_path / "r", interrupt)
    assert len(list((tmp_path / "r").glob("snapshots/*"))) == (every > 0)
    assert resume(tmp_path / "r")["model_sha256"] == summary["model_sha256"]
    for folder in (whole, tmp_path / "r"):
        assert [row["round"] for row in read_rows(folder / "metrics.csv")] == [*range(ROUNDS + 1)]
    keep = set(COLUMNS) - {"seconds", "ray_bytes"}
    tables = [read_rows(folder / "metrics.csv") for folder in (whole, tmp_path / "r")]
    rows = [[{name: row[name] for name in keep} for row in table] for table in tables]
    assert rows[0] == rows[1]
    assert (tmp_path / "r" / "clients.csv").read_text() == (whole / "clients.csv").read_text()
    assert (tmp_path / "r" / "ledger.jsonl").read_text() == (whole / "ledger.jsonl").read_text()


@each_case
def test_bytes_are_the_formula(case: str, undisturbed: Undisturbed) -> None:
    (folder, summary), (e, by_hand) = undisturbed(case), expected(case)
    up, down = np.zeros((2, e.federation.num_clients), int)
    seen = np.zeros(e.federation.num_clients, int)
    rows = read_rows(folder / "metrics.csv")
    for record, row in zip(Ledger.read(folder / "ledger.jsonl").records, rows[1:], strict=True):
        for client in record.cohort:
            up[client] += by_hand.up
            down[client] += by_hand.request + by_hand.missed(record.round - int(seen[client]))
            seen[client] = record.round
        assert len(record.cohort) == e.federation.clients_per_round
        assert (row["uplink_bytes"], row["downlink_bytes"]) == (up.sum(), down.sum())
    with open(folder / "clients.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["uplink_bytes"]) for row in table] == up.tolist()
    assert [int(row["downlink_bytes"]) for row in table] == down.tolist()
    assert (summary["uplink_bytes"], summary["downlink_bytes"]) == (up.sum(), down.sum())
    assert summary["paper_bytes_per_client"] == math.ceil(ROUNDS * by_hand.paper)
    planned = plan(e)
    assert planned.uplink_bytes == by_hand.up
    assert planned.downlink_bytes == by_hand.request + by_hand.missed(1)
    assert planned.paper_bytes_per_client == summary["paper_bytes_per_client"]


@each_case
def test_a_real_answer_is_as_long_as_the_formula_says(case: str) -> None:
    e, by_hand = expected(case)
    worker = Worker(e, *tasks.load(e))
    for client in range(e.federation.clients_per_round):
        ((turn,),) = worker.turns([(client,)], step_seeds(e.seed, 0, e.record_steps))
        assert len(turn.payload) + (0 if turn.update is None else turn.update.nbytes) == by_hand.up


@each_case
def test_descends_on_the_quadratic(case: str, tmp_path: Path) -> None:
    name = CASES[case]["method.name"]
    quadratic = {"task.name": "quadratic", "task.model": "diagonal-20", "federation.rounds": 40}
    rates = {"method.lr": 0.005 if "momentum" in case else RATES.get(name, 0.05)}
    if name in SERVER_RATES:
        rates["method.server_lr"] = SERVER_RATES[name]
    run(experiment(case, **quadratic, **rates), tmp_path / "r")
    losses = [row["eval_loss"] for row in read_rows(tmp_path / "r" / "metrics.csv")]
    assert losses[-1] < 0.4 * losses[0]


def test_no_two_methods_are_the_same(undisturbed: Undisturbed) -> None:
    digests = {case: undisturbed(case)[1]["model_sha256"] for case in CASES}
    assert len(set(digests.values())) == len(CASES), digests


def test_the_readmes_table_is_the_same_by_hand(tmp_path: Path) -> None:
    script = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "method_table.py"))
    assert (script["TAU"], script["CLIENTS"]) == (TAU, M)
    for name in METHODS:
        found, p = script["measure"](name, tmp_path / name), script["experiment"](name).method
        by_hand = wires(M, TAU, p.directions_per_step, K, found.d)[name]
        assert found.up == by_hand.up
        assert found.down == by_hand.request
        assert found.down_after_one == by_hand.request + by_hand.missed(1)
        assert len(script["line"](name, found)) == len(script["HEADER"])


def on_ray(case: str, folder: Path, **dotted: Any) -> tuple[dict[str, Any], list[int]]:
    """The summary of a run on Ray, and the measured bytes of its rounds without the first, which
    has x_0 already, and the last, which ends with an evaluation."""
    own = {"resources.executor": "ray", "resources.max_actors": 2}
    summary = run(experiment(case, **(own | dotted)), folder)
    totals = [row["ray_bytes"] for row in read_rows(folder / "metrics.csv")]
    return summary, np.diff(totals)[1:-1].tolist()


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in ("hiso", "fedadam") else pytest.mark.slow) for n in METHODS],
)
@pytest.mark.usefixtures("ray_cluster")
def test_ray_is_the_for_loop_and_sends_no_more(
    name: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    whole, serial = undisturbed(name)
    summary, measured = on_ray(name, tmp_path / "r")
    assert summary["actors"] == (1 if METHODS[name].one_client else 2)
    assert summary["model_sha256"] == serial["model_sha256"]
    assert (tmp_path / "r" / "ledger.jsonl").read_text() == (whole / "ledger.jsonl").read_text()
    if METHODS[name].sends == "scalars":
        assert max(measured) < D / 5  # a twentieth of one model
    else:  # m changes up; x_r down once, from where the node's actors read it
        assert measured == pytest.approx([(M + 1) * 4 * D] * len(measured), rel=0.05)


@pytest.mark.usefixtures("ray_cluster")
def test_one_client_costs_two_models_a_round(tmp_path: Path) -> None:
    _, measured = on_ray("fedavg", tmp_path / "r", **{"federation.clients_per_round": 1})
    assert measured == pytest.approx([2 * 4 * D] * len(measured), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["hiso", "hiso per_client", "hizoo"])
@pytest.mark.usefixtures("ray_cluster")
def test_what_scalars_cost_is_the_same_for_any_model(case: str, tmp_path: Path) -> None:
    one = {"resources.max_actors": 1}
    small = on_ray(case, tmp_path / "small", **one, **{"task.model": "mlp-4"})[1]
    assert small == on_ray(case, tmp_path / "large", **one)[1]
