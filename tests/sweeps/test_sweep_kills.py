"""``python -m sweeps`` killed with -9 and resumed, as a person would."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from hiso_ray import run
from hiso_ray.analysis import store
from hiso_ray.sweeps import Sweep, run_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
ROOT = Path(__file__).resolve().parents[2]
OF_THE_MACHINE = {"seconds", "ray_bytes", "actors", "faults"}


def results(frame: pd.DataFrame) -> pd.DataFrame:
    """What must not depend on the machine or on what happened to it."""
    mine = [c for c in frame.columns if c in OF_THE_MACHINE or c.startswith("resources.")]
    return frame.drop(columns=mine)


def test_killed_and_resumed_gives_the_undisturbed_tables(
    tmp_path: Path, swept: Callable[..., Path]
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "sweeps", "stress", "--smoke", "--out", str(out)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    sweep = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True)
    deadline = time.monotonic() + 150
    while len(list(out.glob("runs/*/summary.json"))) < 4:  # of 8, and others under way
        assert time.monotonic() < deadline
        assert sweep.poll() is None
        time.sleep(0.1)
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.wait()
    assert not (out / "trials.parquet").exists()
    again = subprocess.run(
        [*command, "--resume"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "8 trials: 8 finished" in again.stdout
    undisturbed = swept("stress", tmp_path / "undisturbed")
    for name in ("trials.parquet", "rounds.parquet"):
        mended, whole = (results(store.read(folder / name)) for folder in (out, undisturbed))
        pd.testing.assert_frame_equal(mended, whole)
    assert store.read(out / "trials.parquet")["model_sha256"].nunique() == 8


def trial_processes() -> list[int]:
    """Children of the node that this process has started; other clusters may be on the machine."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, _ in rows}
    trials = (int(pid) for pid, _, name in rows if name.startswith("ray::ImplicitFunc"))
    return [pid for pid in trials if parents.get(parents[pid]) == os.getpid()]


def test_a_trial_whose_process_dies_goes_on_from_its_ledger(
    tmp_path: Path, small: Callable[..., Sweep], ray_cluster: None
) -> None:
    heard, out = io.StringIO(), tmp_path / "s"
    sweep = small().changed({"federation.rounds": 600, "resources.executor": "ray"})
    (trial,) = sweep.trials()
    running = threading.Thread(
        target=run_sweep, args=(sweep, out), kwargs={"console": Console(file=heard, width=200)}
    )
    running.start()
    ledger, deadline = out / "runs" / trial.id / "ledger.jsonl", time.monotonic() + 90
    while not ledger.exists() or ledger.read_bytes().count(b"\n") < 50:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (process,) = trial_processes()
    os.kill(process, signal.SIGKILL)
    running.join(200)
    table = store.read(out / "trials.parquet")
    assert table["status"].tolist() == ["finished"]
    assert "its process died; it is started again" in heard.getvalue()
    undisturbed = run(trial.experiment, tmp_path / "alone")
    assert table["model_sha256"].tolist() == [undisturbed["model_sha256"]]
