"""``python -m sweeps`` killed with -9 and resumed, as a person would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from analysis import store
from sweeps import run_sweep
from sweeps.ready import READY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
ROOT = Path(__file__).resolve().parents[2]
OF_THE_MACHINE = {"seconds", "ray_bytes", "actors", "faults"}


def results(frame: pd.DataFrame) -> pd.DataFrame:
    """What must not depend on the machine or on what happened to it."""
    mine = [c for c in frame.columns if c in OF_THE_MACHINE or c.startswith("resources.")]
    return frame.drop(columns=mine)


def test_killed_and_resumed_gives_the_undisturbed_tables(tmp_path: Path, ray_cluster: None) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "sweeps", "stress", "--smoke", "--out", str(out)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    for finished in (2, 5):  # two kills, each with trials under way
        resume = ["--resume"] * out.exists()
        sweep = subprocess.Popen([*command, *resume], cwd=ROOT, env=env, start_new_session=True)
        deadline = time.monotonic() + 150
        while len(list(out.glob("runs/*/summary.json"))) < finished:
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
    undisturbed = tmp_path / "undisturbed"
    serial = {"resources.executor": "serial"}
    run_sweep(READY["stress"].smoked().changed(serial), undisturbed)
    for name in ("trials.parquet", "rounds.parquet"):
        mended, whole = (results(store.read(folder / name)) for folder in (out, undisturbed))
        pd.testing.assert_frame_equal(mended, whole)
    assert store.read(out / "trials.parquet")["model_sha256"].nunique() == 8
