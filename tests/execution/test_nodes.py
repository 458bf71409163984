"""Several nodes: packed and unpacked runs, and nodes that leave, join or are cut off meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from namespaces import Network

from hiso_ray import Experiment, replay, run
from hiso_ray.execution.cluster import session  # decides how Ray's servers are reached
from hiso_ray.run_folder.faults import by_kind
from hiso_ray.run_folder.ledger import Ledger

Make = Callable[..., Experiment]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
NODE = {"num_cpus": 2, "num_gpus": 1, "include_dashboard": False}


@pytest.fixture
def three_nodes() -> Iterator[Any]:
    """A head and two more nodes on this machine, each with 2 CPUs and an emulated GPU."""
    from ray.cluster_utils import Cluster

    assert session
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    cluster.add_node(**NODE)
    yield cluster
    cluster.shutdown()


PORT = 6379
TALKING = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # listens on the node's address
    # A node that is silent for some three seconds counts as lost.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@pytest.fixture
def two_machines(network: Network, tmp_path: Path) -> Iterator[Network]:
    """A head and a worker node, one CPU each. The worker's Ray is started again whenever it ends,
    as services and Kubernetes do."""
    head, worker = map(network.address, range(2))
    ray = f"{Path(sys.executable).with_name('ray')} start --block --num-cpus=1"
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # short: sockets lie below it
        of_head = f"--head --node-ip-address={head} --port={PORT} --include-dashboard=false"
        of_worker = f"--node-ip-address={worker} --address={head}:{PORT}"
        commands = (
            f"{ray} {of_head} --temp-dir={folder}/h",
            f"while true; do {ray} {of_worker} --temp-dir={folder}/w; sleep 1; done",
        )
        for node, command in enumerate(commands):
            with open(tmp_path / f"ray-{node}.log", "w") as log:
                subprocess.Popen(
                    [*network.inside(node), "sh", "-c", command],
                    env=os.environ | TALKING, stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip
        wait_for_nodes(network, 2)
        yield network
        network.end()


def wait_for_nodes(network: Network, count: int) -> None:
    """Waits until so many nodes are in the cluster."""
    code = (
        "import ray, time\n"
        f"ray.init(address='{network.address(0)}:{PORT}', logging_level='ERROR')\n"
        f"while sum(node['Alive'] for node in ray.nodes()) != {count}: time.sleep(0.1)"
    )
    while subprocess.run(
        [*network.inside(0), sys.executable, "-c", code],
        env=os.environ | TALKING, timeout=100, check=False,
    ).returncode:  # fmt: skip
        time.sleep(0.5)


class Run:
    """``hiso-ray run`` in a process of its own that joins the cluster.

    Args:
        inside: words before the command.
        environment: more variables.
    """

    def __init__(
        self,
        address: str,
        experiment: Experiment,
        folder: Path,
        inside: Sequence[str] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        config = folder.with_suffix(".yaml")
        config.write_text(experiment.to_yaml())
        self.ledger = folder / "ledger.jsonl"
        self.process = subprocess.Popen(
            [*inside, sys.executable, "-m", "hiso_ray", "run", "--config", config, "--out", folder],
            env=os.environ | {"RAY_ADDRESS": address, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.folder = folder

    def rounds(self) -> int:
        """How many are in the ledger."""
        return self.ledger.read_bytes().count(b"\n") - 1 if self.ledger.exists() else 0

    def wait_for_round(self, round_: int) -> None:
        self.wait_for(lambda: self.rounds() >= round_)

    def wait_for(self, event: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 200
        while not event():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def faults(self) -> dict[str, int]:
        """By kind."""
        return by_kind(self.folder)

    def interrupt(self) -> str:
        """Ends the run as ``ray job stop`` does; returns what it had printed."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=100)
        assert self.process.returncode == 130, output
        return output

    def end(self) -> tuple[dict[str, Any], str]:
        output, _ = self.process.communicate(timeout=400)
        assert self.process.returncode == 0, output
        return json.loads((self.folder / "summary.json").read_text()), output


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        ({"resources.max_actors": 3}, "8 clients on 3 actors, 3 per actor, 0.5 CPU and 0.25 GPU"),
        ({}, "8 clients on 8 actors, one each, 0.5 CPU and 0.25 GPU"),
    ],
    ids=["packed", "unpacked"],
)
def test_three_nodes_give_the_serial_digest(
    experiment: Make, tmp_path: Path, three_nodes: Any, resources: dict[str, Any], line: str
) -> None:
    base = {"federation.num_clients": 8, "federation.clients_per_round": 4}
    expected = run(experiment(**base), tmp_path / "serial")
    ray = {"resources.executor": "ray", "resources.gpus_per_client": 0.25,
           "resources.cpus_per_client": 0.5}  # fmt: skip
    e = experiment(**base, **ray, **resources)
    summary, output = Run(three_nodes.address, e, tmp_path / "ray").end()
    assert line in output
    assert summary["model_sha256"] == expected["model_sha256"]


def test_nodes_that_leave_and_join_change_nothing(
    experiment: Make, tmp_path: Path, three_nodes: Any
) -> None:
    base = {"eval.every": 1000, "resources.snapshot_every": 400}
    e = experiment(**base, **{"resources.executor": "ray", "federation.rounds": 1_000_000})
    ray = Run(three_nodes.address, e, tmp_path / "ray")
    ray.wait_for_round(100)
    first, second = three_nodes.worker_nodes
    three_nodes.remove_node(first, allow_graceful=False)
    ray.wait_for(lambda: "lost" in ray.faults())  # in vain Ray looks: the run reserves again
    three_nodes.add_node(**NODE)
    ray.wait_for_round(ray.rounds() + 500)
    before = ray.faults().get("died", 0)
    three_nodes.remove_node(second, allow_graceful=False)  # now there is room: Ray moves them
    ray.wait_for(lambda: ray.faults().get("died", 0) > before)
    ray.wait_for_round(ray.rounds() + 1000)
    output = ray.interrupt()
    rounds = Ledger.read(ray.ledger).round
    expected = run(experiment(**base, **{"federation.rounds": rounds}), tmp_path / "serial")
    assert replay(ray.folder, rounds)["model_sha256"] == expected["model_sha256"]
    found = [line for line in output.splitlines() if line.startswith("12 clients on ")]
    assert [line.split()[3] for line in found] == ["6", "4"]
    assert ray.faults()["died"] >= 3
    assert ray.faults()["lost"] == 1


def test_a_node_that_is_cut_off_and_comes_back_changes_nothing(
    experiment: Make, tmp_path: Path, two_machines: Network
) -> None:
    base = {"eval.every": 1000}
    e = experiment(**base, **{"resources.executor": "ray", "federation.rounds": 1_000_000})
    address, inside = f"{two_machines.address(0)}:{PORT}", two_machines.inside(0)
    ray = Run(address, e, tmp_path / "ray", inside, TALKING)
    ray.wait_for_round(100)
    two_machines.cut(1)
    ray.wait_for(lambda: "lost" in ray.faults())
    ray.wait_for_round(ray.rounds() + 100)
    two_machines.mend(1)
    output = ray.interrupt()
    wait_for_nodes(two_machines, 2)
    rounds = Ledger.read(ray.ledger).round + 100
    resumed = subprocess.run(
        [*inside, sys.executable, "-m", "hiso_ray", "resume", ray.folder,
         "--federation.rounds", str(rounds)],
        env=os.environ | TALKING | {"RAY_ADDRESS": address}, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    expected = run(experiment(**base, **{"federation.rounds": rounds}), tmp_path / "serial")
    summary = json.loads((ray.folder / "summary.json").read_text())
    assert summary["model_sha256"] == expected["model_sha256"]
    lines = (output + resumed.stdout).splitlines()
    found = [line.split()[3] for line in lines if line.startswith("12 clients on ")]
    assert found == ["2", "1", "2"]
    assert ray.faults()["lost"] == 1
