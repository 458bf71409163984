"""What was killed for memory is told from what died of something else, and said as such."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_faults import Make, Rehearsal

from hiso_ray import Experiment, run
from hiso_ray.client.out_of_memory import less_on_machine
from hiso_ray.errors import TurnFailed, UserError
from hiso_ray.execution.cluster import oom_kills, session
from hiso_ray.execution.cluster.cause_of_death import Deaths, Killed, Process, words
from hiso_ray.execution.cluster.client_actor import ClientActor
from hiso_ray.execution.cluster.oom_kills import OomKills
from hiso_ray.run_folder.faults import Faults

PAIR = {"resources.executor": "ray", "resources.max_actors": 2}
TOLD = """2 worker(s) were killed due to the node running low on memory. Memory on the node \
(IP: 127.0.0.1, ID: 18be74d5) was 22.43GB used / 23.54GB limit (0.952)
OOM kill reason: Memory usage 24083672832B exceeded threshold of 24012256768B (95.0% of the limit)
Selected to kill: (Actor(a6): job ID=01, pid=39, actual memory used=0.06GB, worker ID=9a)
Selected to kill: (Actor(78): job ID=01, pid=37, actual memory used=9.07GB, worker ID=da)
"""


@pytest.fixture
def count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's count, in a file of the test's."""
    path = tmp_path / "vmstat"
    path.write_text("pgfault 12\noom_kill 3\n")
    monkeypatch.setattr(oom_kills, "counter", lambda: path)
    return path


def raise_count(path: Path) -> None:
    kills = int(path.read_text().split()[-1]) + 1
    path.write_text(f"oom_kill {kills}")


def test_each_kill_explains_one_death_and_old_ones_none(count: Path) -> None:
    kills = OomKills()
    assert not kills.took_one()  # the three before are not ours
    raise_count(count)
    kills.mark()  # an actor may die between two stretches of work
    assert [kills.took_one(), kills.took_one()] == [True, False]
    raise_count(count)
    kills.mark()
    kills.mark()
    assert not kills.took_one()
    count.unlink()  # a system that does not count
    assert not OomKills().took_one()


def test_the_count_of_the_own_cgroup_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "cgroup"
    monkeypatch.setattr(oom_kills, "OWN_CGROUP", own)
    monkeypatch.setattr(oom_kills, "CGROUPS", tmp_path)
    assert oom_kills.counter() == oom_kills.MACHINE  # no cgroups at all
    own.write_text("4:memory:/old\n0::/pod/run\n")
    assert oom_kills.counter() == oom_kills.MACHINE  # version 1 counts memory
    events = tmp_path / "pod" / "run" / "memory.events"
    events.parent.mkdir(parents=True)
    events.write_text("low 0\noom 2\noom_kill 1\noom_group_kill 7\n")
    assert oom_kills.counter() == events
    kills = OomKills()
    events.write_text("low 0\noom 9\noom_kill 2\noom_group_kill 8\n")
    assert [kills.took_one(), kills.took_one()] == [True, False]


@pytest.fixture
def killed(ray_cluster: None) -> Callable[[], Process]:
    """Kills an actor that Ray restarts, by hand; returns the process that it was."""

    class Idle:  # in here, so that it is sent to the workers, which cannot import this file
        def process(self) -> Process:
            return Process.here()

    def kill() -> Process:
        actor = session.ray.remote(num_cpus=0, max_restarts=1)(Idle).remote()
        process = session.ray.get(actor.process.remote())
        stop = actor.__ray_call__.remote(lambda _: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(session.ray.exceptions.RayActorError):
            session.ray.get(stop)
        return process

    return kill


def test_a_kill_by_hand_is_not_for_memory_and_one_that_the_kernel_has_counted_is(
    killed: Callable[[], Process], count: Path
) -> None:
    deaths = Deaths()
    assert deaths.of(killed()) is None
    deaths.mark()
    deaths.mark()
    victim = killed()
    raise_count(count)
    assert deaths.of(victim) == Killed(by_ray=False, node=victim.node)
    assert deaths.of(victim) == Killed(by_ray=False, node=victim.node)  # asked again: the same kill
    assert deaths.unseen(victim) == ""
    elsewhere = killed()._replace(node="ab" * 28)
    raise_count(count)  # of this node
    assert deaths.of(elsewhere) is None
    assert "`dmesg` on node abababab would tell" in deaths.unseen(elsewhere)


def test_what_rays_monitor_says_becomes_words(experiment: Make) -> None:
    told = Killed.told(TOLD)
    assert (told.node, told.largest, told.used, told.total) == ("18be74d5", 9.07, 22.43, 23.54)
    said = words(experiment(), told, actors=5, beside=2, stage="scores")
    assert said.startswith(
        "killed for memory: 2 actors of about 9.1 GiB on a node of 23.5 GiB, 22.4 GiB of it in "
        "use (Ray kills above 22.4 GiB); lower resources.max_actors (now 5 actors), or lower "
        "task.eval_batch_size (now 64), or "
    )
    another = words(experiment(), Killed.told("no memory"), actors=1, beside=0, stage="digest")
    assert another.startswith("killed for memory: an actor on a node; take a smaller model")


@pytest.mark.parametrize(
    ("fields", "batch", "ways", "not_ways"),
    [
        ({}, "batch_size", ["max_actors", "batch_size (now 16)", "probe_weights layer", "bfloat16"],
         ["eval_batch_size"]),
        ({"task.max_length": 48, "task.name": "reviews", "task.model": "auto"}, "eval_batch_size",
         ["eval_batch_size (now 64)", "max_length (now 48)", "task.lora.r 8"], ["task.batch_size"]),
        # Actors share the frozen weights, of which bfloat16 halves the memory.
        ({"task.name": "reviews", "task.model": "auto", "task.lora.r": 4}, None,
         ["a smaller model", "bfloat16"], ["lora.r"]),
        ({"resources.clients_per_actor": 6}, None, ["clients_per_actor (now 6)"], ["max_actors"]),
        ({"resources.gpus_per_client": 0.5}, "batch_size", ["max_actors"],
         ["batch_size", "probe_weights"]),
    ],
)  # fmt: skip
def test_the_advice_fits_the_work(
    experiment: Make, fields: dict[str, Any], batch: Any, ways: list[str], not_ways: list[str]
) -> None:
    text = ", or ".join(less_on_machine(experiment(**fields), 3, batch))
    assert all(way in text for way in ways), text
    assert not any(way in text for way in not_ways), text


def test_the_user_is_told_once(tmp_path: Path) -> None:
    notes: list[str] = []
    faults = Faults(tmp_path, notes.append)
    for actor in (0, 1):
        faults.add("memory", 3, "turns", "killed for memory: lower task.batch_size", actor, (4,))
    assert len((tmp_path / "faults.jsonl").read_text().splitlines()) == 2
    (note,) = notes
    assert note.startswith("fault in round 3, turns: client actor 0 killed for memory: lower task.")


def short(count: Path, orders: Path, when: str, often: int, then: str = "") -> type:
    """An actor class that the kernel kills so many times in all, at its start or in client 5's
    turn; and that afterwards fails with words, if any are given."""
    orders.write_text(str(often))

    def kill() -> None:
        left = int(orders.read_text())
        if left:
            orders.write_text(str(left - 1))
            kills = int(count.read_text().split()[-1])
            count.write_text(f"oom_kill {kills + 1}")
            os.kill(os.getpid(), signal.SIGKILL)

    class Short(ClientActor):
        def __init__(self, experiment: Experiment, prepared: Any, partition: Any) -> None:
            if when == "start":
                kill()
            super().__init__(experiment, prepared, partition)
            task, own = self.worker.replica.task, set(partition.of(5).tolist())
            batch = task.batch

            def of_somebody(*clients: Any) -> Any:
                if when == "turn" and any(set(examples.tolist()) <= own for examples in clients):
                    kill()
                    if then:
                        raise RuntimeError(then)
                return batch(*clients)

            task.batch = of_somebody

    return Short


EVERYBODY = {
    "federation.clients_per_round": 12, "federation.rounds": 3, "task.clients_per_forward": 1,
}  # fmt: skip


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_outlives_deaths_for_memory_and_calls_them_so(
    experiment: Make, tmp_path: Path, count: Path
) -> None:
    expected = run(experiment(**EVERYBODY), tmp_path / "serial")
    actor = short(count, tmp_path / "orders", "turn", 2)
    ray = Rehearsal(experiment(**EVERYBODY, **PAIR), tmp_path / "ray", actor)
    summary = ray.run()
    assert summary["model_sha256"] == expected["model_sha256"]
    assert summary["faults_by_kind"] == {"memory": 2}
    for fault in ray.faults():
        assert fault["error"].startswith("killed for memory: 2 actors on the driver's node (by the")
        assert "task.batch_size (now 16)" in fault["error"]
    assert sum("fault in round" in note for note in ray.notes) == 1


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("often", "then", "last"),
    [
        (1000, "", "failed 4 times (resources.tries); `hiso-ray resume` goes on, with other"),
        (1, "client 5 is on fire", "the last time like this:"),
    ],
)
def test_a_piece_that_fails_for_good_begins_with_memory(
    experiment: Make, tmp_path: Path, count: Path, often: int, then: str, last: str
) -> None:
    actor = short(count, tmp_path / "orders", "turn", often, then)
    ray = Rehearsal(experiment(**EVERYBODY, **PAIR), tmp_path / "ray", actor)
    with pytest.raises(TurnFailed) as failure:
        ray.run()
    first, second, *rest = str(failure.value).splitlines()
    assert first.startswith("killed for memory: 2 actors on the driver's node")
    assert second.startswith("client 5, round 0: turns failed 4 times (resources.tries)")
    assert last in second
    assert then in "".join(rest)


@pytest.mark.usefixtures("ray_cluster")
def test_an_actor_that_cannot_start_for_memory_is_not_waited_for(
    experiment: Make, tmp_path: Path, count: Path
) -> None:
    actor = short(count, tmp_path / "orders", "start", 1000)
    with pytest.raises(UserError) as failure:
        Rehearsal(experiment(**PAIR), tmp_path / "ray", actor).run()
    first, second = str(failure.value).splitlines()
    assert first.startswith("killed for memory: an actor on the driver's node")
    assert "batch_size" not in first
    assert second.startswith("client actors 0 to 1 did not start, killed ")


@pytest.mark.usefixtures("ray_cluster")
def test_actors_that_cannot_come_back_for_memory_are_not_waited_for(
    experiment: Make, tmp_path: Path, count: Path
) -> None:
    orders = tmp_path / "orders"
    actor = short(count, orders, "start", 0)
    ray = Rehearsal(experiment(**PAIR | {"resources.max_actors": 1}), tmp_path / "ray", actor)

    def on_row(row: dict[str, Any], executor: Any) -> None:
        if row["round"] == 2:
            orders.write_text("1000")
            handle = executor.fleet._members[0].handle
            handle.__ray_call__.remote(lambda _: os.kill(os.getpid(), signal.SIGKILL))

    with pytest.raises(UserError) as failure:
        ray.run(on_row)
    first, second = str(failure.value).splitlines()
    assert first.startswith("killed for memory: 1 actor on the driver's node")
    assert second.startswith("no client actor came back within ")


MONITORED = """
import json, sys, time
from hiso_ray.execution.cluster import session
from hiso_ray.execution.cluster.cause_of_death import Deaths, Process

class Eater:
    def process(self):
        return Process.here()
    def eat(self):
        self.eaten = []
        for _ in range(64):  # until it is killed, whatever else the machine does meanwhile
            self.eaten.append(bytearray(b"x" * 2**26))
            time.sleep(0.05)
        time.sleep(30)

ray = session.ray
memory = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/meminfo")}
used = memory["MemTotal"] - memory["MemAvailable"]
ray.init(
    address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR",
    log_to_driver=False, object_store_memory=2**27, _system_config={
        "memory_usage_threshold": (used + 3 * 2**18 + 2**19) / memory["MemTotal"],
        "memory_monitor_refresh_ms": 100,
    },
)
eater = ray.remote(max_restarts=1)(Eater).remote()
process = ray.get(eater.process.remote())
try:
    ray.get(eater.eat.remote())
except ray.exceptions.RayError as error:
    killed = Deaths().of(process)
    print(json.dumps([str(error), process.node, vars(killed)]))
"""


@pytest.mark.slow
def test_rays_memory_monitor_is_believed() -> None:
    """A real one, of a cluster of its own; the actor takes a GiB or as much as is needed."""
    code = [sys.executable, "-c", MONITORED]
    alone = os.environ | {"RAY_max_kill_memory_buffer_bytes": "0"}  # and nobody else with it
    done = subprocess.run(code, env=alone, capture_output=True, text=True, check=False, timeout=200)
    assert done.stdout, done.stderr
    error, node, killed = json.loads(done.stdout.splitlines()[-1])
    assert "temporarily unavailable" in error  # what Ray says; it is why there is a file of ours
    assert killed["by_ray"]
    assert killed["node"] == node
    assert 0.1 < killed["largest"] < 5
    assert killed["limit"] < killed["used"] + 0.1 < killed["total"]


@pytest.mark.slow
def test_a_run_whose_every_process_is_killed_says_why(tmp_path: Path) -> None:
    """Ray's limit is below what the machine uses anyhow; it kills the driver too."""
    command = [sys.executable, "-m", "hiso_ray", "run", "--task.name", "digits"]
    command += ["--resources.max_actors", "2", "--out", str(tmp_path / "run")]
    env = os.environ | {
        "RAY_memory_usage_threshold": "0.001",
        "RAY_memory_monitor_refresh_ms": "100",
    }
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    first, second = done.stderr.strip().splitlines()[-2:]
    assert done.returncode == 1
    assert first.startswith("hiso-ray: error: killed for memory: an actor")
    assert "the driver died 4 times after round 0 (resources.tries)" in second
    assert "Traceback" not in done.stderr
