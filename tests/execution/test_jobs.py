"""``ray job submit`` end to end on a head node of this machine, as docs/cluster.md has it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hiso_ray import Experiment, resume, run
from hiso_ray.analysis import load
from hiso_ray.run_folder.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
SMALL = ["--task.name", "digits", "--task.model", "mlp-8", "--federation.num_clients", "12",
         "--federation.clients_per_round", "3", "--method.num_perturbations", "2",
         "--method.lr", "0.02", "--eval.every", "3"]  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
Submit = Callable[..., subprocess.CompletedProcess[str]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def submit() -> Iterator[Submit]:
    """Calls ``ray job VERB …`` on a head node that lives as long as the tests of this file."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    here = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = kept | {"RAY_AUTH_MODE": "disabled", "PATH": here}
    port, folder = free_port(), tempfile.mkdtemp(prefix="ray")  # short: sockets lie below it
    head = subprocess.Popen(
        [RAY, "start", "--head", "--block", f"--port={free_port()}", "--num-cpus=2",
         f"--dashboard-port={port}",
         # A cluster of another test may hold the agent's usual port.
         f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={folder}",
         "--disable-usage-stats"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/jobs/").close()
            break
        except (urllib.error.URLError, ConnectionError):
            assert head.poll() is None, head.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.5)

    def job(verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        while True:  # the dashboard answers before the node can take a job
            done = subprocess.run(
                [RAY, "job", verb, "--address", address, *arguments],
                cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False,
            )  # fmt: skip
            if "No available agent" not in done.stderr or time.monotonic() > deadline:
                return done
            time.sleep(1.0)

    yield job
    os.killpg(head.pid, signal.SIGKILL)
    head.wait()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_job_gives_the_serial_digest_and_its_exit_status(
    experiment: Callable[..., Experiment], tmp_path: Path, submit: Submit
) -> None:
    expected = run(experiment(), tmp_path / "serial")
    command = ["--working-dir", ".", "--", "python", "-m", "hiso_ray", "run", *SMALL]
    good = submit("submit", *command, "--federation.rounds", "6", "--out", str(tmp_path / "job"))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "12 clients on 2 actors, 6 per actor, 1 CPU each" in good.stdout
    assert "round 6/6" in good.stdout  # its log is streamed
    summary = json.loads((tmp_path / "job" / "summary.json").read_text())
    assert summary["model_sha256"] == expected["model_sha256"]
    bad = submit("submit", *command, "--federation.roundz", "6", "--out", str(tmp_path / "bad"))
    assert bad.returncode == 1
    assert "did you mean --federation.rounds?" in bad.stdout


def test_a_stopped_job_goes_on_where_it_was(
    experiment: Callable[..., Experiment], tmp_path: Path, submit: Submit
) -> None:
    folder = tmp_path / "job"
    command = ["--no-wait", "--working-dir", ".", "--", "python", "-m", "hiso_ray", "run", *SMALL]
    told = submit("submit", *command, "--federation.rounds", "100000", "--out", str(folder))
    (name,) = re.findall(r"raysubmit_\w+", told.stdout)[:1]
    ledger, deadline = folder / "ledger.jsonl", time.monotonic() + 90
    while not ledger.exists() or ledger.read_bytes().count(b"\n") < 20:
        assert time.monotonic() < deadline, submit("logs", name).stdout
        time.sleep(0.1)
    assert submit("stop", name).returncode == 0
    assert "resume" in submit("logs", name).stdout
    done = Ledger.read(ledger).round
    changes = {"resources.executor": "serial", "federation.rounds": done + 3}
    end = resume(folder, changes=changes)
    whole = run(experiment(**{"federation.rounds": done + 3}), tmp_path / "serial")
    assert end["model_sha256"] == whole["model_sha256"]


def test_a_sweep_as_a_job(tmp_path: Path, submit: Submit) -> None:
    out = tmp_path / "sweep"
    sweep = ["--working-dir", ".", "--", "python", "-m", "sweeps", "lr_grid", "--smoke"]
    axes = ["--seed", "0", "--method.name", "hiso", "--method.lr", "0.01"]
    good = submit("submit", *sweep, *axes, "0.02", "--out", str(out))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "2 trials: 2 finished" in good.stdout
    assert load.trials([out])["actors"].tolist() == [1, 1]  # two trials at once on two CPUs
    assert load.rounds([out])["round"].max() == 10
    failing = submit("submit", *sweep, *axes, "1e30", "0.02", "--resume", "--out", str(out))
    assert failing.returncode == 1
    assert "lr=1e+30: failed" in failing.stdout
    assert "2 of 3 trials are there already" in failing.stdout
