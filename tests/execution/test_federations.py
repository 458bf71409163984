"""Federations as they are, through whole runs: who answers decides the weights, and is recorded."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, replay, resume, run
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.metrics_reader import read_rows

Make = Callable[..., Experiment]
PHONES = {
    "federation.participation": "size",
    "federation.clients_per_round": 6,
    "federation.rounds": 12,
    "federation.dropout": 0.2,
    "devices.profile": "drawn",
    "devices.deadline": 2.0,
    "devices.replay_seconds": 0.05,
}


@pytest.mark.usefixtures("ray_cluster")
def test_dropout_deadline_and_devices_give_one_digest_everywhere(
    experiment: Make, tmp_path: Path
) -> None:
    expected = run(experiment(**PHONES), tmp_path / "serial")
    ray = {"resources.executor": "ray", "resources.max_actors": 2}
    summary = run(experiment(**PHONES, **ray), tmp_path / "ray")
    assert summary["model_sha256"] == expected["model_sha256"]
    assert replay(tmp_path / "ray")["matches"] is True
    records = Ledger.read(tmp_path / "ray" / "ledger.jsonl").records
    assert records == Ledger.read(tmp_path / "serial" / "ledger.jsonl").records
    assert sum(len(r.dropped) for r in records) > 0
    assert sum(len(r.late) for r in records) > 0
    assert all(len(r.cohort) + len(r.dropped) + len(r.late) == 6 for r in records)
    assert summary["simulated_seconds"] == pytest.approx(sum(r.seconds for r in records))
    rows = read_rows(tmp_path / "ray" / "metrics.csv")
    for row, record in zip(rows[1:], records, strict=True):
        found = (row["answered"], row["dropped"], row["late"])
        assert found == (len(record.cohort), len(record.dropped), len(record.late))
    with open(tmp_path / "ray" / "clients.csv") as file:
        clients = list(csv.DictReader(file))
    for name, column in (("answered", "cohort"), ("dropped", "dropped"), ("late", "late")):
        counted = [sum(c in getattr(r, column) for r in records) for c in range(12)]
        assert [int(row[name]) for row in clients] == counted
    assert sum(int(row["uplink_bytes"]) for row in clients) == summary["uplink_bytes"]
    assert sum(int(row["downlink_bytes"]) for row in clients) == summary["downlink_bytes"]


@pytest.mark.usefixtures("pictures")
def test_the_picture_in_the_run_folder_has_simulated_time(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hiso_ray.analysis import curves

    drawn: list[Any] = []
    real = curves.convergence
    monkeypatch.setattr(curves, "convergence", lambda *a: drawn.append(real(*a)))
    run(experiment(**PHONES), tmp_path / "r")
    assert (tmp_path / "r" / "convergence.png").read_bytes()[:4] == b"\x89PNG"
    labels = [axes.get_xlabel() for axes in drawn[0].axes]
    assert any(label.startswith("Simulated time") for label in labels)


def test_a_round_that_nobody_answers_moves_nothing(experiment: Make, tmp_path: Path) -> None:
    lonely = {"federation.clients_per_round": 1, "federation.dropout": 0.6}
    summary = run(experiment(**lonely, **{"federation.rounds": 12}), tmp_path / "r")
    records = Ledger.read(tmp_path / "r" / "ledger.jsonl").records
    empty = [r.round for r in records if not r.cohort]
    assert 0 < len(empty) < 12
    for round_ in empty[:2]:
        before, after = (replay(tmp_path / "r", round_=r) for r in (round_, round_ + 1))
        assert before["model_sha256"] == after["model_sha256"]
        assert records[round_].train_loss is None
        assert records[round_].scalars == ()
    rows = read_rows(tmp_path / "r" / "metrics.csv")
    assert [r["round"] - 1 for r in rows if r["round"] and r["train_loss"] is None] == empty
    assert summary["forward_passes"] == (12 - len(empty)) * 3
    assert resume(tmp_path / "r")["model_sha256"] == summary["model_sha256"]


def test_an_empty_round_leaves_the_curvature_alone(experiment: Make, tmp_path: Path) -> None:
    lonely = {"federation.clients_per_round": 1, "federation.dropout": 0.6, "eval.every": 1}
    run(experiment(**lonely), tmp_path / "r")
    rows = read_rows(tmp_path / "r" / "metrics.csv")
    pairs = [(a, b) for a, b in itertools.pairwise(rows) if b["answered"] == 0]
    assert pairs
    for before, after in pairs:
        for name in ("h_min", "h_median", "h_max", "eval_loss", "update_norm"):
            assert before[name] == after[name]


def test_a_deadline_that_nobody_can_meet_is_refused(experiment: Make, tmp_path: Path) -> None:
    e = experiment(**{"devices.profile": "drawn", "devices.deadline": 0.001})
    with pytest.raises(ValueError, match=r"devices.deadline = 0.001 s, which none of the 12"):
        run(e, tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("where", ["head", "middle", "tail"])
def test_a_corrupted_byte_of_the_ledger(experiment: Make, tmp_path: Path, where: str) -> None:
    whole = run(experiment(), tmp_path / "r")
    path = tmp_path / "r" / "ledger.jsonl"
    content = bytearray(path.read_bytes())
    lines = [i for i, byte in enumerate(content) if byte == ord("\n")]
    start = {"head": 0, "middle": lines[2], "tail": lines[-2]}[where]
    content[start + 20] ^= 1
    path.write_bytes(bytes(content))
    if where == "tail":  # recomputed, to the same end
        notes: list[str] = []
        assert (
            resume(tmp_path / "r", on_note=notes.append)["model_sha256"] == (whole["model_sha256"])
        )
        assert any("dropped a torn record" in note for note in notes)
        return
    words = {"head": "the header is corrupt", "middle": r"record of round 2 .*is corrupt"}[where]
    for go_on in (resume, replay):
        with pytest.raises(ValueError, match=words):
            go_on(tmp_path / "r")
    assert path.read_bytes() == bytes(content)  # nothing was lost on top
