"""docs/cluster/slurm.sh on two nodes, as Slurm would call it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from namespaces import Network

from hiso_ray import Experiment, run

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "cluster" / "slurm.sh"
# Slurm starts a command on the job's other nodes; here that is one namespace.
SRUN = """#!/bin/sh
while [ "$1" != ray ]; do shift; done
exec {inside} "$@"
"""


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_slurm_file_makes_a_cluster_examines_it_and_runs(
    experiment: Callable[..., Experiment], tmp_path: Path, network: Network
) -> None:
    srun, config, out = tmp_path / "bin" / "srun", tmp_path / "run.yaml", tmp_path / "out"
    srun.parent.mkdir()
    srun.write_text(SRUN.format(inside=" ".join(network.inside(1))))
    srun.chmod(0o755)
    config.write_text(experiment(**{"resources.executor": "ray"}).to_yaml())
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    number = str(os.getpid())
    done = subprocess.run(
        [*network.inside(0), "bash", SCRIPT, out, "--config", config],
        env=kept | {
            "PATH": f"{srun.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SLURM_JOB_ID": number, "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "1",
            "SLURMD_NODENAME": "first",
        },
        cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    shutil.rmtree(f"/tmp/ray-{number}", ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 nodes, 2 CPUs, 0 GPUs" in done.stdout
    assert "12 clients on 2 actors" in done.stdout
    expected = run(experiment(), tmp_path / "serial")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["model_sha256"] == expected["model_sha256"]
