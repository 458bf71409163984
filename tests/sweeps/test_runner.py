"""Sweeps on Ray Tune: trials are ordinary runs, whatever runs beside them."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from hiso_ray import replay, run
from hiso_ray.analysis import load
from hiso_ray.sweeps import Sweep, run_sweep, runner, watch
from hiso_ray.sweeps import folder as sweep_folder

pytestmark = pytest.mark.usefixtures("ray_cluster")
Small = Callable[..., Sweep]


def listener() -> tuple[Console, io.StringIO]:
    heard = io.StringIO()
    return Console(file=heard, width=200), heard


def test_trials_are_ordinary_runs_and_one_that_fails_stops_nobody(
    tmp_path: Path, small: Small
) -> None:
    console, heard = listener()
    out = tmp_path / "s"
    rates = small(grid={"method.lr": [1e30, 0.02], "method.name": ["hiso", "decomfl"]})
    table = run_sweep(rates, out, console=console, concurrency=2)
    assert table["status"].tolist() == ["failed", "failed", "finished", "finished"]
    assert table["error"][0].count("method.lr") == 1  # what to lower
    assert table["error_kind"][:2].tolist() == ["NonFiniteLoss"] * 2
    assert table["error_kind"].notna().sum() == 2
    assert "lr=1e+30 name=hiso: failed" in heard.getvalue()
    for trial, (_, row) in list(zip(rates.trials(), table.iterrows(), strict=True))[2:]:
        alone = run(trial.experiment, tmp_path / trial.id)
        assert row["model_sha256"] == alone["model_sha256"]
        assert row["method.name"] == trial.experiment.method.name
        assert row["final_score"] == alone["final_score"]
    assert replay(out / table["run"][2])["matches"]
    assert "one after the other" in (out / table["run"][2] / "trial-notes.txt").read_text()

    # What is missing, what failed, and what is new; the rest is not touched.
    finished = out / table["run"][2]
    (out / table["run"][3] / "summary.json").unlink()  # as if killed at the very end
    ledger = (finished / "ledger.jsonl").stat().st_mtime_ns
    wider = rates.changed({"method.lr": [0.02, 1e30, 0.04]})
    again = run_sweep(wider, out, resume=True, console=console, concurrency=2)
    assert "1 of 6 trials are there already" in heard.getvalue()
    assert again["status"].tolist() == ["finished"] * 2 + ["failed"] * 2 + ["finished"] * 2
    assert again["model_sha256"].tolist()[:2] == table["model_sha256"].tolist()[2:]
    assert (finished / "ledger.jsonl").stat().st_mtime_ns == ledger
    assert load.rounds([out]).dropna(subset="score")["run"].nunique() >= 4

    with pytest.raises(ValueError, match="of another plan"):
        run_sweep(wider.changed({"method.lr": [0.02, 0.04]}), out, resume=True)


@pytest.mark.slow
def test_nothing_to_do_starts_nothing(
    tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_sweep(small(), tmp_path / "s")
    monkeypatch.setattr(runner, "_run", None)
    assert run_sweep(small(), tmp_path / "s", resume=True).equals(first)


@pytest.mark.slow
def test_two_trials_with_actors_of_their_own_fill_the_cluster(tmp_path: Path, small: Small) -> None:
    sweep = small(grid={"seed": [0, 1, 2]})
    serial = run_sweep(sweep, tmp_path / "serial")
    nested = sweep.changed({"resources.executor": "ray", "resources.cpus_per_client": 1.0})
    table = run_sweep(nested, tmp_path / "nested", concurrency=2)
    assert table["actors"].tolist() == [2, 2, 2]  # four CPUs, nothing left for anybody else
    assert table["model_sha256"].tolist() == serial["model_sha256"].tolist()
    assert (table["ray_bytes"] > 0).all()


def test_data_and_x0_are_put_once_for_all_trials(small: Small) -> None:
    sweep = small(
        grid={"method.lr": [0.01, 0.02], "federation.alpha": [0.1, 1.0], "seed": [0, 1]},
    )
    trials = sweep.trials()
    shared = runner.share_tasks(trials)
    assert len({task.x0 for task in shared.values()}) == 2  # a seed's own
    assert len({ref for task in shared.values() for ref in task.arrays.values()}) == len(
        shared[trials[0].id].arrays
    )  # data are the same for all
    x0 = shared[trials[0].id].fetch().x0
    assert not x0.flags.writeable


def test_a_federation_that_the_examples_do_not_fill_is_said_first(
    tmp_path: Path, small: Small
) -> None:
    sweep = small(grid={"federation.num_clients": [12, 100_000]})
    with pytest.raises(ValueError, match=r"(?s)num_clients = 100000.*with num_clients=100000"):
        run_sweep(sweep, tmp_path / "s")
    with sweep_folder.opened(tmp_path / "s", small(), small().trials(), False):
        pass  # the corrected sweep may have the folder


def test_a_trial_that_cannot_be_placed_is_said_at_once(tmp_path: Path, small: Small) -> None:
    sweep = small(grid={"resources.cpus_per_client": [99]})
    with pytest.raises(ValueError, match="trial cpus_per_client=99 cannot be placed"):
        run_sweep(sweep, tmp_path / "s")
    assert not (tmp_path / "s" / "plan.yaml").exists()
    with pytest.raises(ValueError, match=r"--concurrency 5.*at most --concurrency 4"):
        run_sweep(small(grid={"seed": list(range(5))}), tmp_path / "t", concurrency=5)


@pytest.mark.slow
def test_waiting_for_others_is_said(
    tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hiso_ray.execution.cluster.session import ray

    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 1.0)
    console, heard = listener()

    @ray.remote(num_cpus=4)
    class Neighbour:
        def here(self) -> None: ...

    neighbour = Neighbour.remote()
    ray.get(neighbour.here.remote())
    sweep = threading.Thread(
        target=run_sweep, args=(small(), tmp_path / "s"), kwargs={"console": console}
    )
    sweep.start()
    try:
        deadline = time.monotonic() + 60
        while "waiting: a trial needs 1 CPU; the cluster has 4 CPU" not in heard.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        ray.kill(neighbour)
        sweep.join(120)
    assert load.trials([tmp_path / "s"])["status"].tolist() == ["finished"]


@pytest.mark.slow
def test_early_stopping_stops_who_falls_behind(tmp_path: Path, small: Small) -> None:
    base = {k: v for k, v in small().base.items() if k != "method.num_perturbations"}
    # FedAvg has learned something by round 15, where ASHA first asks; whoever learns starts first.
    sweep = small(
        base=base | {"method.name": "fedavg", "federation.rounds": 60, "eval.every": 5},
        grid={"method.lr": [1e30, 0.5, 0.4, 0.3, 1e-6, 1e-7, 1e-8]},
    )
    table = run_sweep(sweep, tmp_path / "s", concurrency=3, early_stopping=True)
    statuses = set(table["status"])
    assert statuses == {"failed", "finished", "stopped"}
    assert table["status"][0] == "failed"  # and has stopped nobody
    stopped = table[table["status"] == "stopped"]
    assert stopped["final_score"].isna().all()
    rounds = load.rounds([tmp_path / "s"]).groupby("run")["round"].max()
    assert (rounds[[str(tmp_path / "s" / run) for run in stopped["run"]]] < 60).all()
    again = run_sweep(sweep, tmp_path / "s", resume=True, early_stopping=True)
    assert again["status"].tolist() == table["status"].tolist()
    whole = run_sweep(sweep, tmp_path / "s", resume=True, concurrency=3)
    assert whole["status"].tolist() == ["failed"] + ["finished"] * 6


def test_names_need_not_be_ascii(tmp_path: Path, small: Small) -> None:
    out = tmp_path / "läufe [b] 50% #1"
    table = run_sweep(small(name="rätsel"), out)
    assert table["status"].tolist() == ["finished"]
    assert load.trials([out])["run"].tolist() == [str(out / table["run"][0])]
