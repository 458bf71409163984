"""Ray and the for-loop agree bit for bit, whatever the packing and whatever dies."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, replay, run
from hiso_ray.execution.cluster import session
from hiso_ray.execution.cluster.executor import ClusterExecutor
from hiso_ray.execution.driver import run_rounds
from hiso_ray.ledger import Ledger
from hiso_ray.messages import NonFiniteLoss
from hiso_ray.metrics import read_rows
from hiso_ray.runs import identity_of
from hiso_ray.tasks import load, resolve

Make = Callable[..., Experiment]
pytestmark = pytest.mark.usefixtures("ray_cluster")
RAY = {"resources.executor": "ray"}


@pytest.mark.parametrize("tau", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_digest_is_the_serial_one_for_1_2_and_4_actors(
    experiment: Make, tmp_path: Path, tau: int
) -> None:
    base = {"federation.local_steps": tau}
    expected = run(experiment(**base), tmp_path / "serial")
    ledger = (tmp_path / "serial" / "ledger.jsonl").read_text()
    for actors in (1, 2, 4) if tau == 1 else (2,):
        folder = tmp_path / str(actors)
        summary = run(experiment(**base, **RAY, **{"resources.max_actors": actors}), folder)
        assert summary["actors"] == actors
        assert summary["model_sha256"] == expected["model_sha256"]
        assert (folder / "ledger.jsonl").read_text() == ledger
        assert summary["final_accuracy"] == expected["final_accuracy"]
    assert replay(folder)["matches"] is True


@pytest.mark.slow
def test_unpacked_one_client_per_actor(experiment: Make, tmp_path: Path) -> None:
    base = {"federation.num_clients": 4}
    notes: list[str] = []
    packed = run(experiment(**base), tmp_path / "serial")
    summary = run(experiment(**base, **RAY), tmp_path / "ray", on_note=notes.append)
    assert "4 clients on 4 actors, one each, 1 CPU each" in notes
    assert summary["model_sha256"] == packed["model_sha256"]


def test_emulated_gpu_fractions_pack_and_say_that_torch_sees_no_gpu(
    experiment: Make, tmp_path: Path
) -> None:
    notes: list[str] = []
    gpu = {"resources.gpus_per_client": 1.0}
    expected = run(experiment(), tmp_path / "serial")
    summary = run(experiment(**RAY, **gpu), tmp_path / "ray", on_note=notes.append)
    assert summary["actors"] == 2
    assert any("torch sees none here" in note for note in notes)
    assert summary["model_sha256"] == expected["model_sha256"]


def test_language_model_on_two_actors(language: Make, tmp_path: Path) -> None:
    expected = run(language(), tmp_path / "serial")
    rows: list[Any] = []
    summary = run(language(**RAY, **{"resources.max_actors": 2}), tmp_path / "ray", rows.append)
    assert summary["model_sha256"] == expected["model_sha256"]
    assert [r["round"] for r in rows] == list(range(7))
    for row, serial in zip(rows, read_rows(tmp_path / "serial" / "metrics.csv"), strict=True):
        assert row["eval_loss"] == pytest.approx(serial["eval_loss"], abs=0)


def test_what_passes_is_scalars_whatever_the_model(experiment: Make, tmp_path: Path) -> None:
    columns = []
    for width in (4, 256):
        e = experiment(**RAY, **{"task.model": f"mlp-{width}", "resources.max_actors": 2})
        run(e, tmp_path / str(width))
        names = ("uplink_bytes", "downlink_bytes", "ray_bytes")
        rows = read_rows(tmp_path / str(width) / "metrics.csv")
        columns.append([[row[name] for name in names] for row in rows])
        d = 64 * width + width + 10 * width + 10
    assert columns[0] == columns[1]
    assert columns[1][-1][2] / 6 < 4 * d / 10  # a round is far from one model


@contextmanager
def cluster_executor(
    experiment: Experiment, folder: Path
) -> Iterator[tuple[Any, Experiment, dict[str, str]]]:
    experiment = resolve(experiment)
    prepared, partition = load(experiment)
    shared = [
        session.ray.put(prepared),
        session.ray.put(partition),
    ]
    with session.reservation(experiment, prepared.x0.size, print) as (placement, group):
        yield (
            ClusterExecutor(experiment, placement, group, shared, folder / "faults.jsonl"),
            experiment,
            identity_of(experiment, prepared),
        )


@pytest.mark.parametrize("every", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_actors_come_back_and_change_nothing(
    experiment: Make, tmp_path: Path, every: int
) -> None:
    base = {"federation.rounds": 12, "eval.every": every}
    expected = run(experiment(**base), tmp_path / "serial")
    folder = tmp_path / "ray"
    folder.mkdir()
    (folder / "faults.jsonl").touch()
    e = experiment(**base, **RAY, **{"resources.max_actors": 2})
    with cluster_executor(e, folder) as (executor, resolved, identity):

        def pid(actor: int) -> int:
            return session.ray.get(
                executor._handles[actor].__ray_call__.remote(lambda self: os.getpid())
            )

        def on_row(row: dict[str, Any]) -> None:
            if row["round"] in (
                0,
                4,
                12,
            ):  # between two messages: no record yet; evaluated; the end
                os.kill(pid(0), signal.SIGKILL)
            if row["round"] == 7:  # while the next round runs, both at once
                for victim in (pid(0), pid(1)):
                    threading.Timer(0.002, os.kill, (victim, signal.SIGKILL)).start()

        summary = run_rounds(resolved, folder, identity, executor, on_row, print)
    assert summary["model_sha256"] == expected["model_sha256"]
    assert Ledger.read(folder / "ledger.jsonl").records == (
        Ledger.read(tmp_path / "serial" / "ledger.jsonl").records
    )
    faults = [json.loads(line) for line in (folder / "faults.jsonl").read_text().splitlines()]
    assert len(faults) == summary["faults"] >= 4
    assert {"round", "stage", "actor", "error"} <= set(faults[0])


@pytest.mark.parametrize("known", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_an_actor_that_lacks_records_is_given_them(
    experiment: Make, tmp_path: Path, known: int
) -> None:
    with cluster_executor(experiment(**RAY, **{"resources.max_actors": 1}), tmp_path) as parts:
        executor, *_ = parts
        run(experiment(), tmp_path / "serial")
        records = Ledger.read(tmp_path / "serial" / "ledger.jsonl").records
        executor._known[0] = known  # as if it held so many; it is at round 0
        digest = executor.digest(records)
    assert digest == json.loads((tmp_path / "serial" / "summary.json").read_text())["model_sha256"]


def test_non_finite_loss_reaches_the_caller_and_the_ledger_stays_readable(
    experiment: Make, tmp_path: Path
) -> None:
    e = experiment(**RAY, **{"method.lr": 1e30, "federation.rounds": 50})
    with pytest.raises(NonFiniteLoss, match=r"client \d+, round \d+, local step 0"):
        run(e, tmp_path / "r")
    assert Ledger.read(tmp_path / "r" / "ledger.jsonl").dropped_bytes == 0


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ({"resources.gpus_per_client": 4}, "cluster has 2 GPUs"),
        ({"resources.cpus_per_client": 5}, "cluster has 4 CPUs"),
    ],
)
def test_more_than_the_cluster_has_is_refused_at_once(
    experiment: Make, tmp_path: Path, dotted: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        run(experiment(**RAY, **dotted), tmp_path / "r")


def test_a_busy_cluster_is_waited_for_and_then_said(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RESERVE_SECONDS", 2.0)
    other = session.placement_group([{"CPU": 3}])
    session.ray.get(other.ready())
    try:
        with pytest.raises(ValueError, match=r"4 actors .* free now: 1 of 4 CPUs"):
            run(experiment(**RAY), tmp_path / "r")
    finally:
        session.remove_placement_group(other)
