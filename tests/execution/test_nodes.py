"""Several nodes: packed and unpacked runs, and nodes that leave and join meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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


class Run:
    """``hiso-ray run`` in a process of its own that joins the cluster."""

    def __init__(self, cluster: Any, experiment: Experiment, folder: Path) -> None:
        config = folder.with_suffix(".yaml")
        config.write_text(experiment.to_yaml())
        self.ledger = folder / "ledger.jsonl"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hiso_ray", "run", "--config", config, "--out", folder],
            env=os.environ | {"RAY_ADDRESS": cluster.address},
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
    summary, output = Run(three_nodes, e, tmp_path / "ray").end()
    assert line in output
    assert summary["model_sha256"] == expected["model_sha256"]


def test_nodes_that_leave_and_join_change_nothing(
    experiment: Make, tmp_path: Path, three_nodes: Any
) -> None:
    base = {"eval.every": 1000, "resources.snapshot_every": 400}
    e = experiment(**base, **{"resources.executor": "ray", "federation.rounds": 1_000_000})
    ray = Run(three_nodes, e, tmp_path / "ray")
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
