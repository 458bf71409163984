"""The rows of ``diagnostics.csv``: on the quadratic, where they are known, and of whole runs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiso_ray import Experiment, resume, run, tasks
from hiso_ray.client.diagnostics import COLUMNS, PROBES, diagnose
from hiso_ray.client.landscape import BATCH
from hiso_ray.config import METHODS
from hiso_ray.execution.worker import Worker
from hiso_ray.method.direction import Directions
from hiso_ray.seeds import Purpose, generator

Make = Callable[..., Experiment]
D, MU = 37, 0.1
OF_PROBES = {"g_mean", "g_std", "g_bias", "g_error", "update_cosine"}
STABLE = {"lr_stable_low", "lr_stable_high"}  # of steps along probes


def watched(experiment: Make, **dotted: Any) -> tuple[Worker, torch.Tensor, torch.Tensor]:
    """A worker on the quadratic at x_0, λ, and the gradient on the batch of diagnostics."""
    base = {"task.name": "quadratic", "task.model": f"diagonal-{D}"}
    e = tasks.resolve(experiment(**(base | dotted)))
    prepared, partition = tasks.load(e)
    lam = torch.tensor(prepared.arrays["curvature"]).double()
    examples = len(prepared.labels)
    chosen = generator(e.seed, Purpose.DIAGNOSTICS, 0).choice(examples, BATCH, replace=False)
    worker = Worker(e, prepared, partition)
    mean = worker.replica.task.batch(chosen).targets.double().mean(0)
    return worker, lam, lam * (1 - mean)


def directions(count: int) -> torch.Tensor:
    """(count, D) u of the diagnostics of seed 0 at round 0."""
    drawn = Directions(D, torch.device("cpu"), 10**6)
    chunks = [list(drawn.chunks((0, int(Purpose.DIAGNOSTICS), 0, p))) for p in range(count)]
    return torch.stack([u.clone() for ((_, u),) in chunks]).double()


@pytest.mark.parametrize("h_is", ["one", "lambda", "its inverse"])
def test_curvature_of_the_quadratic_as_h_sees_it(experiment: Make, h_is: str) -> None:
    worker, lam, gradient = watched(experiment)
    state = worker.replica.state
    h = {"one": torch.ones_like(lam), "lambda": lam, "its inverse": 1 / lam}[h_is]
    state.curvature.h.copy_(h)  # type: ignore[attr-defined]
    row = diagnose(worker.replica)
    assert tuple(row) == COLUMNS
    white = lam / h
    expected = {
        "round": 0, "lr": 0.02, "update_norm": 0.0,
        "h_min": h.min(), "h_max": h.max(), "h_mean": h.mean(), "h_median": h.median(),
        "gradient_norm": gradient.norm(),
        "trace": lam.sum(), "largest_eigenvalue": 1.0, "effective_rank": lam.sum(),
        "whitening_rank": white.sum(), "whitened_largest": white.max(),
        "whitened_effective_rank": white.sum() / white.max(),
    }  # fmt: skip
    for name, value in expected.items():
        # A power iteration finds the largest of neighbouring eigenvalues slowly, from below.
        assert row[name] == pytest.approx(float(value), rel=0.05), name
    if h_is == "one":  # constant: nothing correlates with it
        assert row["h_hessian_pearson"] is row["h_hessian_spearman"] is None
        assert row["h_histogram"] == f"0.0:{D}"
    else:
        sign = 1 if h_is == "lambda" else -1
        assert row["h_hessian_pearson"] == pytest.approx(sign, abs=1e-4)
        assert row["h_hessian_spearman"] == pytest.approx(sign, abs=1e-4)
    assert 0 < row["lr_stable_low"] < row["lr_stable_high"]  # type: ignore[operator]
    assert row == diagnose(worker.replica)  # a second look sees the same


@pytest.mark.parametrize("scaled", ["both", "probe", "update"])
def test_probes_beside_the_exact_derivative(experiment: Make, scaled: str) -> None:
    dotted = {"method.mu": MU, "method.num_perturbations": 3, "method.curvature_in": scaled}
    worker, lam, gradient = watched(experiment, **dotted)
    h = torch.linspace(0.5, 4, D)
    worker.replica.state.curvature.h.copy_(h)  # type: ignore[attr-defined]
    row = diagnose(worker.replica)
    u, white = directions(PROBES), directions(PROBES) / h.double().sqrt()
    z = u if scaled == "update" else white
    bend = 0.5 * MU * (z**2 @ lam)
    g = z @ gradient + bend
    step = g[:3] @ (u if scaled == "probe" else white)[:3]
    cosine = float(step @ gradient / step.norm() / gradient.norm())
    found = {name: row[name] for name in OF_PROBES}
    assert found == pytest.approx(
        {
            "g_mean": float(g.mean()), "g_std": float(g.std()), "g_bias": float(bend.mean()),
            "g_error": float(bend.square().mean().sqrt()), "update_cosine": cosine,
        },
        rel=1e-3,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["central", "exact"])
def test_better_probes_have_less_error(experiment: Make, kind: str) -> None:
    mu = {} if kind == "exact" else {"method.mu": MU}
    worker, _, _ = watched(experiment, **{"method.probe": kind}, **mu)
    row = diagnose(worker.replica)
    assert row["g_error"] == pytest.approx(0, abs=1e-4)


def test_methods_without_probes_leave_theirs_empty(experiment: Make) -> None:
    dotted = {"method.name": "fedavg", "method.num_perturbations": 5}
    worker, lam, _ = watched(experiment, **dotted)
    row = diagnose(worker.replica)
    missing = {name for name, value in row.items() if value is None}
    correlations = {name for name in COLUMNS if name.endswith(("pearson", "spearman"))}
    assert missing == OF_PROBES | STABLE | correlations
    assert row["trace"] == pytest.approx(float(lam.sum()), rel=1e-4)


def read(folder: Path) -> list[dict[str, str]]:
    with open(folder / "diagnostics.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", ["hiso", "hizoo", "fedadam"])
def test_rows_as_often_as_asked_decide_nothing_and_survive_a_stop(
    experiment: Make, tmp_path: Path, method: str
) -> None:
    class Killed(BaseException):
        pass

    def stop(row: dict[str, Any]) -> None:
        if row["round"] == 5:
            raise Killed

    own = {"method.name": method, "method.num_perturbations": 5}
    blind = run(experiment(**own), tmp_path / "blind")
    e = experiment(**own, **{"diagnostics.every": 2})
    whole = run(e, tmp_path / "whole")
    assert whole["model_sha256"] == blind["model_sha256"]
    assert not (tmp_path / "blind" / "diagnostics.csv").exists()
    rows = read(tmp_path / "whole")
    assert [row["round"] for row in rows] == ["0", "2", "4", "6"]
    assert tuple(rows[0]) == COLUMNS
    assert np.isfinite([float(row["trace"]) for row in rows]).all()
    with pytest.raises(Killed):
        run(e, tmp_path / "torn", stop)
    with open(tmp_path / "torn" / "diagnostics.csv", "a", encoding="utf-8") as file:
        file.write("6,0.1,")  # a row that was being written
    assert resume(tmp_path / "torn")["model_sha256"] == whole["model_sha256"]
    assert read(tmp_path / "torn") == rows


@pytest.mark.usefixtures("ray_cluster")
def test_actors_see_what_one_process_sees(experiment: Make, tmp_path: Path) -> None:
    asked = {"diagnostics.every": 3}
    run(experiment(**asked), tmp_path / "serial")
    ray = {"resources.executor": "ray", "resources.max_actors": 2}
    run(experiment(**asked, **ray), tmp_path / "ray")
    assert read(tmp_path / "ray") == read(tmp_path / "serial")


@pytest.mark.parametrize("name", [n for n, row in METHODS.items() if not row.first_order])
def test_an_exact_probe_has_no_error_whatever_the_method(experiment: Make, name: str) -> None:
    own = {} if name == "hizoo" else {"method.probe": "exact"}  # it measures both sides
    one = METHODS[name].one_client
    alone = {"federation.num_clients": 1, "federation.clients_per_round": 1} if one else {}
    row = diagnose(watched(experiment, **{"method.name": name}, **own, **alone)[0].replica)
    assert row["g_error"] < (0.01 if name == "hizoo" else 1e-5) * row["g_std"]  # type: ignore[operator]


def test_a_run_stopped_while_it_measures_measures_again(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    e, measure = experiment(**{"diagnostics.every": 2}), Worker.diagnose

    def stop(worker: Worker) -> dict[str, Any]:
        if worker.round == 2:
            raise KeyboardInterrupt
        return measure(worker)

    monkeypatch.setattr(Worker, "diagnose", stop)
    with pytest.raises(KeyboardInterrupt):
        run(e, tmp_path / "r")
    monkeypatch.setattr(Worker, "diagnose", measure)
    resume(tmp_path / "r")
    with open(tmp_path / "r" / "diagnostics.csv", newline="") as file:
        assert [row["round"] for row in csv.DictReader(file)] == ["0", "2", "4", "6"]
