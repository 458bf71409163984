"""The round loop with the serial executor: averages, records, rows, bytes, resuming."""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiso_ray import Experiment, resume, run
from hiso_ray.client.turns import take_turns
from hiso_ray.errors import NonFiniteLoss
from hiso_ray.execution.contract import Job
from hiso_ray.execution.driver import run_rounds
from hiso_ray.execution.header import check_header
from hiso_ray.execution.serial import SerialExecutor
from hiso_ray.execution.worker import Worker
from hiso_ray.federation.attendance import Population
from hiso_ray.federation.uplink import encode
from hiso_ray.messages import Description, Missed, Turn
from hiso_ray.record import Record
from hiso_ray.run_folder.ledger import Ledger, LedgerError
from hiso_ray.run_folder.metrics_reader import COLUMNS, read_rows
from hiso_ray.seeds import step_seeds
from hiso_ray.server.combine import combine, in_order, mean_loss, received
from hiso_ray.tasks import load, resolve

Make = Callable[..., Experiment]


def worker(experiment: Experiment) -> Worker:
    experiment = resolve(experiment)
    prepared, partition = load(experiment)
    return Worker(experiment, prepared, partition)


def test_the_average_does_not_depend_on_the_order_of_arrival() -> None:
    # 1e30 - 1e30 + 1 is 1 in one order and 0 in another.
    values = {2: 1e30, 3: 1.0, 5: -1e30, 7: 1.0}
    turns = [
        Turn(c, np.array([v]), encode(np.full((1, 1), v, np.float32), "float32", None))
        for c, v in values.items()
    ]
    clients = np.array(list(values))
    expected = ((1e30 + 1.0) - 1e30 + 1.0) / 4
    e = Experiment().changed(**{"method.num_perturbations": 1})
    for order in itertools.permutations(turns):
        arrived = in_order(order, clients)
        scalars = combine(e, 0, received(e, 0, arrived), np.ones(4, np.int64))
        assert scalars.tolist() == [[[np.float32(expected)]]]
        assert mean_loss(arrived) == 2 / 4
        assert scalars.dtype == np.float32


@pytest.mark.parametrize("tau", [1, 3])
@pytest.mark.parametrize("units", [[(1,), (4,), (7,)], [(1, 4, 7), (8,), (9, 11)]])
@pytest.mark.parametrize("model", ["mlp-8", "mlp-2048"])  # all weight vectors at once; one by one
def test_a_unit_is_the_same_alone_or_in_company(
    experiment: Make, tau: int, units: list[tuple[int, ...]], model: str
) -> None:
    one = worker(experiment(**{"federation.local_steps": tau, "task.model": model}))
    assert (one.replica.task.several is not None) == (model == "mlp-8")
    seeds = step_seeds(0, 0, tau)
    together = {t.client: t for t in take_turns(one.replica, one.partition, units, seeds)}
    assert list(together) == [client for unit in units for client in unit]
    for unit in reversed(units):
        for alone in take_turns(one.replica, one.partition, [unit], seeds):
            assert alone.payload == together[alone.client].payload
            assert len(alone.payload) == 4 * tau * 2
            assert np.array_equal(alone.losses, together[alone.client].losses)


@pytest.mark.parametrize(("units", "batches"), [([(0,), (5,)], 2), ([(0, 5)], 1)])
@pytest.mark.parametrize(("model", "calls"), [("mlp-8", 1), ("mlp-2048", 3)])
def test_all_probes_of_a_step_use_one_batch_built_once(
    experiment: Make, units: list[tuple[int, ...]], batches: int, model: str, calls: int
) -> None:
    one = worker(experiment(**{"task.model": model}))
    made, scored = [], []
    task: Any = one.replica.task
    batch = task.batch
    task.batch = lambda *clients: made.append(len(clients)) or batch(*clients)

    def noting(of: Callable[..., Any]) -> Callable[..., Any]:
        def noted(w: Any, b: Any) -> Any:
            scored.append((w.numel() // len(one.replica.state.x), [id(x) for x in b]))
            return of(w, b)

        return noted

    task.losses, task.losses_at = noting(task.losses), noting(task.losses_at)
    take_turns(one.replica, one.partition, units, step_seeds(0, 0, 1))
    assert made == [len(unit) for unit in units]
    # P + 1 weight vectors, each scoring both clients' batches, in one call or in three
    assert len(scored) == calls
    assert sum(vectors for vectors, _ in scored) == 3
    assert len(scored[0][1]) == batches
    assert all(seen == scored[0][1] for _, seen in scored)


@pytest.mark.usefixtures("pictures")
def test_metrics_summary_and_byte_formulas(experiment: Make, tmp_path: Path) -> None:
    tau, p, m, rounds = 2, 2, 3, 6
    summary = run(experiment(**{"federation.local_steps": tau}), tmp_path / "r")
    rows = read_rows(tmp_path / "r" / "metrics.csv")
    with open(tmp_path / "r" / "metrics.csv") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    assert COLUMNS[:7] == ("round", "train_loss", "eval_loss", "eval_accuracy", "uplink_bytes",
                           "downlink_bytes", "seconds")  # fmt: skip
    assert [r["round"] for r in rows] == list(range(rounds + 1))
    assert [r["round"] for r in rows if r["eval_accuracy"] is not None] == [0, 3, 6]
    records = Ledger.read(tmp_path / "r" / "ledger.jsonl").records
    seen = dict.fromkeys(range(12), 0)
    down = 0
    for record in records:
        for client in record.cohort:
            missed = record.round - seen[client]
            down += 8 * tau + 8 + missed * (8 * tau + 8 + 4 * tau * p)
            seen[client] = record.round
    assert rows[-1]["downlink_bytes"] == summary["downlink_bytes"] == down
    assert rows[-1]["uplink_bytes"] == summary["uplink_bytes"] == rounds * m * tau * p * 4
    assert summary["paper_bytes_per_client"] == rounds * 2 * p * tau * 4
    assert summary["initial_model_bytes_per_client"] == 4 * (64 * 8 + 8 + 80 + 10)
    assert summary["forward_passes"] == rounds * m * tau * (p + 1)
    assert summary == json.loads((tmp_path / "r" / "summary.json").read_text())
    assert (tmp_path / "r" / "convergence.png").read_bytes()[:4] == b"\x89PNG"
    assert list((tmp_path / "r" / "tensorboard").iterdir())


def test_decomfl_is_hiso_without_curvature(experiment: Make, tmp_path: Path) -> None:
    digests = [
        run(experiment(**dotted), tmp_path / str(i))["model_sha256"]
        for i, dotted in enumerate(
            (
                {"method.name": "decomfl"},
                {"method.curvature": "none"},
                {"method.curvature": "scalar"},
                {"method.curvature": "diagonal"},
            )
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_the_result_is_a_function_of_the_configuration_alone(
    experiment: Make, tmp_path: Path
) -> None:
    # Traps: global random state; `if seed:`.
    digests = []
    for attempt, seed in enumerate((0, 0, 1)):
        random.seed(attempt)
        np.random.seed(attempt)
        torch.manual_seed(attempt)
        digests.append(run(experiment(seed=seed), tmp_path / str(attempt))["model_sha256"])
    assert digests[0] == digests[1] != digests[2]


def test_directions_remembered_or_made_again_give_the_same_bits(
    experiment: Make, tmp_path: Path
) -> None:
    dotted = {"federation.local_steps": 2}
    digests = {
        run(experiment(**dotted, **{"resources.direction_cache_mb": mb}), tmp_path / str(mb))[
            "model_sha256"
        ]
        for mb in (0, 0.01, 256)
    }
    assert len(digests) == 1


def interrupted(experiment: Experiment, folder: Path, after: int) -> None:
    """Runs until ``after`` rounds are reported, then stops as a kill would: without clean-up."""

    class Killed(BaseException):
        pass

    def on_round(row: dict[str, Any]) -> None:
        if row["round"] == after:
            raise Killed

    with pytest.raises(Killed):
        run(experiment, folder, on_round)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_resumed_run_ends_like_an_undisturbed_one(
    experiment: Make, tmp_path: Path, after: int
) -> None:
    e = experiment(**{"federation.local_steps": 2})
    whole = run(e, tmp_path / "whole")
    interrupted(e, tmp_path / "torn", after)
    with open(tmp_path / "torn" / "ledger.jsonl", "ab") as file:
        file.write(b'{"round":')  # a record that was being written
    notes: list[str] = []
    end = resume(tmp_path / "torn", on_note=notes.append)
    assert any("torn record" in note for note in notes)
    assert end["model_sha256"] == whole["model_sha256"]
    keep = set(COLUMNS) - {"seconds"}
    rows = [
        [{k: r[k] for k in keep} for r in read_rows(tmp_path / n / "metrics.csv")]
        for n in ("whole", "torn")
    ]
    assert rows[0] == rows[1]


def test_resume_refuses_another_past(experiment: Make, tmp_path: Path) -> None:
    interrupted(experiment(), tmp_path / "r", 3)
    config = tmp_path / "r" / "config.yaml"
    config.write_text(config.read_text().replace("mu: 0.001", "mu: 0.01"))
    with pytest.raises(LedgerError, match="another config"):
        resume(tmp_path / "r")
    with pytest.raises(LedgerError, match="not a run folder"):
        resume(tmp_path)


def test_a_ledger_of_another_generator_is_refused_another_torch_reported() -> None:
    # Trap: CPU and CUDA generators differ, and replicas drift apart silently.
    here = Description(
        "cpu", "2.13.0", 1, {"name": "torch-cpu-vectorised", "scheme": 1}, 9, 0, 3, False
    )
    header = {"device": "cpu", "torch": "2.12.0", "threads": 2, "generator": here.generator}
    assert len(check_header(header, {}, here)) == 2
    header["generator"] = {"name": "torch-cuda", "hardware": "H100"}
    with pytest.raises(LedgerError, match="torch-cuda"):
        check_header(header, {}, here)


@pytest.mark.parametrize("tau", [1, 2])
def test_non_finite_loss_names_client_round_and_step(
    experiment: Make, tmp_path: Path, tau: int
) -> None:
    e = experiment(**{"method.lr": 1e30, "federation.local_steps": tau, "federation.rounds": 50})
    with pytest.raises(
        NonFiniteLoss, match=r"client \d+, round \d+, local step \d.* lower method.lr"
    ):
        run(e, tmp_path / "r")
    ledger = Ledger.read(tmp_path / "r" / "ledger.jsonl")
    assert ledger.dropped_bytes == 0


def test_federation_learns(tmp_path: Path) -> None:
    e = Experiment().changed(
        **{
            "task.name": "digits",
            "method.lr": 0.02,
            "resources.executor": "serial",
            "federation.rounds": 300,
            "eval.every": 100,
        }
    )
    summary = run(e, tmp_path / "r")
    assert summary["initial_accuracy"] < 0.25
    assert summary["final_accuracy"] > 0.75


@pytest.mark.parametrize(
    "dotted",
    [
        {},
        {"method.name": "decomfl"},
        {"method.probe": "central"},
        {"federation.local_steps": 3},
        {"method.curvature": "scalar"},
        {"method.hessian_update": "all", "federation.local_steps": 2},
    ],
)
def test_every_variant_descends_on_the_quadratic(
    experiment: Make, tmp_path: Path, dotted: dict[str, Any]
) -> None:
    base = {"task.name": "quadratic", "task.model": "diagonal-20", "federation.rounds": 200,
            "method.lr": 0.02, "federation.partition": "iid"}  # fmt: skip
    run(experiment(**(base | dotted)), tmp_path / "r")
    rows = [r for r in read_rows(tmp_path / "r" / "metrics.csv") if r["eval_loss"] is not None]
    assert rows[-1]["eval_loss"] < 0.2 * rows[0]["eval_loss"]


def test_an_update_that_overflows_ends_the_run_with_words(experiment: Make) -> None:
    one = worker(experiment())
    huge = Record(0, (1, 4, 7), step_seeds(0, 0, 1), ((1e30, 1e30),), 0.5, 1e-3, 0.95, 1e-8, 1.0)
    with pytest.raises(NonFiniteLoss, match=r"round 0 has overflowed \(inf\): lower method.lr"):
        one.catch_up(Missed(1, [huge]))
    one = worker(experiment())
    one.replica.state.curvature.stored()["h"][3] = torch.inf
    with pytest.raises(NonFiniteLoss, match="H of round"):
        one.statistics()


def test_a_gpu_without_triton_is_said_once(experiment: Make, tmp_path: Path) -> None:
    notes: list[str] = []
    e = resolve(experiment(**{"federation.rounds": 2}))
    prepared, partition = load(e)
    executor = SerialExecutor(e, prepared, partition, notes.append)
    executor.description = replace(executor.description, device="cuda of some kind")
    (tmp_path / "r").mkdir()
    job = Job(e, tmp_path / "r", {}, Population(np.diff(partition.offsets), None), "")
    run_rounds(job, executor, lambda row: None, notes.append)
    assert sum("Triton is missing" in note for note in notes) == 1


def test_what_an_interrupted_run_has_told_is_not_told_again(
    experiment: Make, tmp_path: Path
) -> None:
    from hiso_ray.execution.cluster.session import _heard, _Progress

    def job(folder: Path, rounds: int) -> Job:
        e = resolve(experiment(**{"federation.rounds": rounds}))
        return Job(e, folder, {}, Population(np.zeros(12, np.int64), None), "")

    run(experiment(**{"federation.rounds": 4}), tmp_path / "r")
    told: list[int] = []
    for rounds, expected in ((4, 4), (6, 4)):
        assert _heard(job(tmp_path / "r", rounds)) == expected
    progress = _Progress(lambda row: told.append(row["round"]), 4)
    for row in [*read_rows(tmp_path / "r" / "metrics.csv"), {"round": 5}, {"round": 5}]:
        progress.row(row)
    assert told == [5]
    assert _heard(job(tmp_path / "new", 4)) == -1
    table = tmp_path / "r" / "metrics.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-2]))
    assert _heard(job(tmp_path / "r", 6)) == 3  # the row of the last record is yet to be made
