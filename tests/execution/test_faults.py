"""Whatever dies, hangs or fails changes nothing; what fails for good is named."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hiso_ray import Experiment, run
from hiso_ray.errors import NonFiniteLoss, TurnFailed, UserError
from hiso_ray.execution.cluster import session
from hiso_ray.execution.cluster.client_actor import ClientActor
from hiso_ray.execution.cluster.executor import ClusterExecutor
from hiso_ray.execution.cluster.patience import AT_LEAST, FIRST_ANSWER, SLACK, Patience
from hiso_ray.execution.cluster.reservation import reserved
from hiso_ray.execution.contract import Job
from hiso_ray.execution.driver import run_rounds
from hiso_ray.execution.history import History
from hiso_ray.run_folder.faults import Faults, by_kind
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.runs.setting import settle

Make = Callable[..., Experiment]
pytestmark = pytest.mark.usefixtures("ray_cluster")
RAY = {"resources.executor": "ray"}
PAIR = {**RAY, "resources.max_actors": 2}
ALONE = {"task.clients_per_forward": 1}  # a small cohort is work for both actors


class Rehearsal:
    """A run in this process on actors of a class of the test's."""

    def __init__(self, experiment: Experiment, folder: Path, actor: type = ClientActor) -> None:
        self.setting, self.folder, self.actor = settle(experiment), folder, actor
        self.experiment = self.setting.experiment
        self.notes: list[str] = []
        folder.mkdir(exist_ok=True)
        (folder / "faults.jsonl").touch()

    @contextmanager
    def executor(self) -> Iterator[ClusterExecutor]:
        prepared = self.setting.prepared
        shared = (session.publish(prepared), session.ray.put(self.setting.partition))
        with reserved(self.experiment, prepared.size, self.notes.append) as place:
            faults = Faults(self.folder, self.notes.append)
            yield ClusterExecutor(self.experiment, place, shared, faults, self.actor)

    def run(self, on_row: Callable[..., None] = lambda *_: None) -> dict[str, Any]:
        """``on_row`` gets each row and the executor."""
        with self.executor() as executor:
            setting = self.setting
            job = Job(self.experiment, self.folder, setting.identity, setting.population, "")
            return run_rounds(job, executor, lambda row: on_row(row, executor), self.notes.append)

    def faults(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "faults.jsonl").open()]


def pid(executor: ClusterExecutor, actor: int) -> int:
    handle = executor.fleet._members[actor].handle
    session.ray.get(handle.describe.remote())  # it may still be on its way back
    return session.ray.get(handle.__ray_call__.remote(lambda self: os.getpid()))


@pytest.mark.parametrize(
    ("method", "every", "more"),
    [
        ("hiso", 1, ALONE | {"method.averaging": 0.8}),
        ("fedadam", 4, {}),
        ("hiso", 4, {"task.clients_per_forward": 3, "federation.clients_per_round": 8,
                     "federation.local_steps": 2, "method.schedule": "cosine"}),
    ],
)  # fmt: skip
def test_killed_actors_come_back_and_change_nothing(
    experiment: Make, tmp_path: Path, method: str, every: int, more: dict[str, Any]
) -> None:
    base = {"federation.rounds": 12, "eval.every": every, "resources.snapshot_every": 5}
    base |= {"method.name": method, "method.num_perturbations": 5} | more
    expected = run(experiment(**base), tmp_path / "serial")

    def on_row(row: dict[str, Any], executor: ClusterExecutor) -> None:
        if row["round"] in (0, 4, 12):  # before any record; with some; the end
            os.kill(pid(executor, 0), signal.SIGKILL)
        if row["round"] == 7:  # while the next round runs, all at once
            for victim in (pid(executor, 0), pid(executor, 1)):
                threading.Timer(0.002, os.kill, (victim, signal.SIGKILL)).start()

    ray = Rehearsal(experiment(**base, **PAIR), tmp_path / "ray")
    summary = ray.run(on_row)
    assert summary["model_sha256"] == expected["model_sha256"]
    assert Ledger.read(tmp_path / "ray" / "ledger.jsonl").records == (
        Ledger.read(tmp_path / "serial" / "ledger.jsonl").records
    )
    # An actor that dies again before it has work again has one fault, so there may be fewer than
    # kills; the first kill and that of actor 1 always meet work.
    assert len(ray.faults()) == summary["faults"] >= 2
    assert sum(summary["faults_by_kind"].values()) == summary["faults"]
    assert sum("fault in round" in note for note in ray.notes) == summary["faults"]


@pytest.mark.slow
def test_an_actor_killed_every_few_rounds_for_a_hundred_rounds(
    experiment: Make, tmp_path: Path
) -> None:
    base = {"federation.rounds": 100, "eval.every": 10, "resources.snapshot_every": 30} | ALONE
    expected = run(experiment(**base), tmp_path / "serial")
    which, kills = random.Random(0), 0

    def on_row(row: dict[str, Any], executor: ClusterExecutor) -> None:
        nonlocal kills
        if row["round"] % 5 == 0 and row["round"] < 100:
            os.kill(pid(executor, which.randrange(2)), signal.SIGKILL)
            kills += 1

    ray = Rehearsal(experiment(**base, **PAIR), tmp_path / "ray")
    summary = ray.run(on_row)
    assert summary["model_sha256"] == expected["model_sha256"]
    # An actor that is killed again before the driver has it back is one fault.
    assert kills == 20 >= summary["faults"] > 10


def bad(orders: Path, kind: str, times: int) -> type:
    """An actor class that does something bad in client 5's turn, so many times in all."""
    orders.write_text(str(times))

    class Bad(ClientActor):
        def __init__(self, experiment: Experiment, prepared: Any, partition: Any) -> None:
            super().__init__(experiment, prepared, partition)
            task = self.worker.replica.task
            self.batch, self.own = task.batch, set(partition.of(5).tolist())
            task.batch = self.batch_of_somebody

        def batch_of_somebody(self, *clients: Any) -> Any:
            left = int(orders.read_text())
            if left and any(set(examples.tolist()) <= self.own for examples in clients):
                new = orders.with_suffix(f".{os.getpid()}")
                new.write_text(str(left - 1))
                new.replace(orders)  # the other actor may be reading
                if kind == "exit":
                    os._exit(1)
                if kind == "sleep":
                    time.sleep(10_000)
                if kind == "stop":
                    os.kill(os.getpid(), signal.SIGSTOP)
                raise RuntimeError("the disk of client 5 is on fire")
            return self.batch(*clients)

    return Bad


EVERYBODY = {"federation.num_clients": 12, "federation.clients_per_round": 12,
             "federation.rounds": 4}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "times", "found", "together"),
    [
        ("exit", 2, {"died": 2}, 1),
        ("exit", 2, {"died": 2}, 4),
        # in company, then alone to find out whose fault it was: twice a try, until taken apart
        ("raise", 5, {"error": 3}, 1),
        ("raise", 4, {"error": 2}, 4),
        ("sleep", 1, {"hung": 1}, 4),
        pytest.param("stop", 1, {"hung": 1}, 1, marks=pytest.mark.slow),
        pytest.param("exit", 3, {"died": 3}, 5, marks=pytest.mark.slow),
    ],
)
def test_a_turn_that_fails_is_computed_again(
    experiment: Make, tmp_path: Path, kind: str, times: int, found: dict[str, int], together: int
) -> None:
    everybody = EVERYBODY | {"task.clients_per_forward": together}
    expected = run(experiment(**everybody), tmp_path / "serial")
    patience = {"resources.answer_seconds": 5.0 if kind in ("sleep", "stop") else 60.0}
    actor = bad(tmp_path / "orders", kind, times)
    ray = Rehearsal(experiment(**everybody, **PAIR, **patience), tmp_path / "ray", actor)
    summary = ray.run()
    assert summary["model_sha256"] == expected["model_sha256"]
    assert summary["faults_by_kind"] == found
    for fault in ray.faults():
        assert (fault["stage"], fault["round"]) == ("turns", 0)
        assert 5 in fault["items"]
    if kind == "raise":  # each try on a member that has not failed, or a fresh one
        first, second, *_ = ray.faults()
        assert first["actor"] != second["actor"]
        assert "client 5, round 0, local step 0" in first["error"]


def test_a_hessian_that_is_not_finite_ends_the_run_at_once(
    experiment: Make, tmp_path: Path
) -> None:
    class Overflowing(ClientActor):
        """The Hessian that it measures is infinite."""

        def __init__(self, *arguments: Any) -> None:
            from hiso_ray.client import replica

            view = SimpleNamespace(hessian_diagonal=lambda _: torch.tensor([1.0, torch.inf]))
            replica.look = lambda *_: view  # type: ignore[assignment, return-value]
            super().__init__(*arguments)

    e = experiment(**RAY, **{"method.curvature": "oracle", "resources.max_actors": 1})
    overflowing = Rehearsal(e, tmp_path, Overflowing)
    with pytest.raises(NonFiniteLoss, match="Hessian's diagonal before round 0 has over"):
        overflowing.run()
    assert overflowing.faults() == []


def test_a_full_gpu_ends_the_run_at_once_with_words(experiment: Make, tmp_path: Path) -> None:
    class Full(ClientActor):
        """Its GPU, of 24 GiB, is full whenever a client takes a turn."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.worker.replica.task.losses_at = self.losses  # type: ignore[method-assign]

        def losses(self, *_: Any) -> Any:
            self.worker.replica.device = torch.device("cuda")
            gpu = SimpleNamespace(total_memory=24 * 2**30)
            torch.cuda.get_device_properties = lambda device: gpu  # type: ignore[assignment]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    class Small(ClientActor):
        """Its share of a GPU is too small for a worker."""

        def __init__(self, *arguments: Any) -> None:
            from hiso_ray.execution import worker

            def refuse(*_: Any) -> None:
                raise UserError("an actor needs about 7.0 GiB")

            worker.gpu_memory.check_memory = refuse
            super().__init__(*arguments)

    e = experiment(**RAY, **{"resources.max_actors": 1, "resources.gpus_per_client": 0.25})
    full = Rehearsal(e, tmp_path / "full", Full)
    words = r"^out of GPU memory: one of the clients .*, round 0, local step 0: .*0.25 of this GPU"
    with pytest.raises(UserError, match=words):
        full.run()
    assert full.faults() == []
    with pytest.raises(UserError, match=r"^an actor needs about 7.0 GiB$"):
        Rehearsal(e, tmp_path / "small", Small).run()


def test_an_error_halfway_through_a_record_leaves_no_trace(
    experiment: Make, tmp_path: Path
) -> None:
    orders = tmp_path / "orders"
    orders.touch()

    class Half(ClientActor):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            replica = self.worker.replica
            apply = replica._apply

            def fail_once(record: Any) -> None:
                if record.round == 2 and orders.exists():
                    orders.unlink()
                    replica.state.x[:7] += 1
                    raise MemoryError("no room for the second chunk")
                apply(record)

            replica._apply = fail_once  # type: ignore[method-assign]

    expected = run(experiment(), tmp_path / "serial")
    one = {**RAY, "resources.max_actors": 1}
    ray = Rehearsal(experiment(**one), tmp_path / "ray", Half)
    summary = ray.run()
    assert summary["model_sha256"] == expected["model_sha256"]
    assert summary["faults_by_kind"] == {"error": 1}
    assert "no room for the second chunk" in ray.faults()[0]["error"]


def test_an_actor_that_comes_back_to_another_kind_of_node_is_not_used(
    experiment: Make, tmp_path: Path
) -> None:
    expected = run(experiment(**ALONE), tmp_path / "serial")

    def on_row(row: dict[str, Any], executor: ClusterExecutor) -> None:
        fleet = executor.fleet
        if row["round"] == 2:
            victim = pid(executor, 0)
            fleet.description = replace(fleet.description, device="cpu of another kind")
            os.kill(victim, signal.SIGKILL)
        if row["round"] == 3:
            deadline = time.monotonic() + 60
            while not fleet._members[0].lost:
                assert time.monotonic() < deadline
                fleet.ask_one(self_history(executor), "statistics", of=1)
                time.sleep(0.2)

    def self_history(executor: ClusterExecutor) -> History:
        path = tmp_path / "ray" / "ledger.jsonl"
        return History(Ledger.read(path), tmp_path / "nowhere", print)

    ray = Rehearsal(experiment(**PAIR, **ALONE), tmp_path / "ray")
    summary = ray.run(on_row)
    assert summary["model_sha256"] == expected["model_sha256"]
    (lost,) = [fault for fault in ray.faults() if fault["kind"] == "lost"]
    assert "would compute other bits" in lost["error"]


def test_a_torn_row_of_faults_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "faults.jsonl").write_text('{"kind": "died", "rou')
    Faults(tmp_path, print).add("hung", 3, "turns", "no answer", 1, (4,))
    assert by_kind(tmp_path) == {"hung": 1}


RAISED = ["client 5, round 0, local step 0", "the disk of client 5 is on fire", "Traceback"]


@pytest.mark.parametrize(
    ("kind", "words", "unit"),
    [
        ("raise", RAISED, [5]),
        ("raise", RAISED, [4, 5, 6, 7]),
        pytest.param("exit", ["actor"], [5], marks=pytest.mark.slow),
    ],
)
def test_a_client_that_always_fails_stops_the_run_by_name(
    experiment: Make, tmp_path: Path, kind: str, words: list[str], unit: list[int]
) -> None:
    actor = bad(tmp_path / "orders", kind, 1000)
    together = {"task.clients_per_forward": len(unit)}
    ray = Rehearsal(experiment(**EVERYBODY, **PAIR, **together), tmp_path / "ray", actor)
    with pytest.raises(TurnFailed) as failure:
        ray.run()
    text = str(failure.value)
    who = f"client{'s' if len(unit) > 1 else ''} {', '.join(map(str, unit))}"
    assert text.startswith(f"{who}, round 0: turns failed 4 times (resources.tries)")
    assert all(word in text for word in words), text
    assert ray.faults()[-1]["items"] == unit
    assert Ledger.read(tmp_path / "ray" / "ledger.jsonl").round == 0


def test_an_actor_that_lacks_records_is_given_them_and_one_without_sight_of_the_snapshot_too(
    experiment: Make, tmp_path: Path
) -> None:
    e = experiment(**{"resources.snapshot_every": 4})
    expected = run(e, tmp_path / "serial")["model_sha256"]
    ray = Rehearsal(experiment(**RAY, **{"resources.max_actors": 1}), tmp_path / "ray")
    ledger = Ledger.read(tmp_path / "serial" / "ledger.jsonl")
    with ray.executor() as executor:
        (member,) = executor.fleet._members
        member.known = 3  # as if it held so many; it is at round 0
        history = History(ledger, tmp_path / "nowhere", ray.notes.append)
        assert executor.digest(history) == expected
        os.kill(pid(executor, 0), signal.SIGKILL)
        history = History(ledger, tmp_path / "serial" / "snapshots", ray.notes.append)
        assert history.missed(0).snapshot is not None
        (tmp_path / "serial" / "snapshots").rename(tmp_path / "gone")
        assert executor.digest(history) == expected
    assert any("no snapshot" in fault["error"] for fault in ray.faults())


def test_a_driver_that_dies_is_started_again(experiment: Make, tmp_path: Path) -> None:
    base = {"federation.rounds": 800, "eval.every": 400} | ALONE
    expected = run(experiment(**base), tmp_path / "serial")
    rows: list[int] = []
    killed: set[str] = set()

    def on_row(row: dict[str, Any]) -> None:
        rows.append(row["round"])
        if row["round"] % 50 == 0 and len(killed) < 2:
            names = set(session.ray.util.list_named_actors())
            for name in {n for n in names if n.endswith("/driver")} - killed:
                killed.add(name)
                session.ray.kill(session.ray.get_actor(name))

    summary = run(experiment(**base, **PAIR), tmp_path / "ray", on_row)
    assert summary["model_sha256"] == expected["model_sha256"]
    assert len(killed) == summary["faults_by_kind"]["driver"] == 2
    assert rows == sorted(set(rows))


def test_nobody_left_is_said(experiment: Make, tmp_path: Path) -> None:
    ray = Rehearsal(experiment(**PAIR), tmp_path / "ray")

    def on_row(row: dict[str, Any], executor: ClusterExecutor) -> None:
        if row["round"] == 2:
            for member in executor.fleet._members:
                session.ray.kill(member.handle)  # for good

    with pytest.raises(UserError, match=r"every client actor is gone for good.* resume"):
        ray.run(on_row)
    assert by_kind(tmp_path / "ray")["lost"] == 2


def test_patience_goes_by_what_answers_took() -> None:
    patience = Patience("auto")
    assert patience.allowed("turns", 5) == FIRST_ANSWER
    patience.learn("turns", 10, 20.0)
    patience.learn("turns", 10, 1.0)
    assert patience.allowed("turns", 3) == AT_LEAST + SLACK * 2.0 * 3
    assert patience.allowed("scores", 3) == FIRST_ANSWER  # an evaluation tells nothing of turns
    assert Patience(7.0).allowed("turns", 1000) == 7.0
