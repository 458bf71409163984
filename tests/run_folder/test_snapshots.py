"""Snapshots shorten the way and never change where it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiso_ray import Experiment, resume, run
from hiso_ray.execution.history import History
from hiso_ray.method.curvature import ARMS
from hiso_ray.run_folder import snapshots
from hiso_ray.run_folder.ledger import Ledger

Make = Callable[..., Experiment]


@pytest.fixture
def often(experiment: Make) -> Callable[..., Experiment]:
    def make(**dotted: Any) -> Experiment:
        return experiment(**({"resources.snapshot_every": 2} | dotted))

    return make


def only(folder: Path) -> Path:
    (path,) = (folder / "snapshots").iterdir()
    return path


@pytest.mark.parametrize(
    "dotted",
    [
        *({"method.curvature": arm} for arm in ARMS),
        {"method.curvature": "frozen", "method.curvature_rounds": 5},
        {"method.curvature": "frozen", "method.curvature_rounds": 7},
        {"method.curvature": "oracle", "method.curvature_rounds": 4},
        {"method.name": "hizoo"},
        {"method.momentum": 0.9},
        {
            "method.averaging": 0.8,
            "method.schedule": "linear",
            "method.schedule_rounds": 7,
            "method.schedule_floor": 0.5,
        },
        {"method.name": "fedkseed", "method.seed_pool": 8},
        {"method.name": "fedavg", "method.num_perturbations": 5},
        {"method.name": "fedadam", "method.num_perturbations": 5},
    ],
    ids=lambda dotted: "-".join(map(str, dotted.values())),
)
def test_a_run_resumed_from_a_snapshot_ends_the_same(
    often: Make, tmp_path: Path, dotted: dict[str, Any]
) -> None:
    arm = dotted | {"federation.local_steps": 2}
    whole = run(often(**arm, **{"federation.rounds": 9}), tmp_path / "whole")
    run(often(**arm, **{"federation.rounds": 7}), tmp_path / "r")
    # Older ones are removed; where weights are nowhere else, the end has one too.
    newest = 7 if arm.get("method.name") in ("fedavg", "fedadam") else 6
    assert only(tmp_path / "r").name == f"round-{newest:08d}.safetensors"
    notes: list[str] = []
    end = resume(tmp_path / "r", on_note=notes.append, changes={"federation.rounds": 9})
    assert end["model_sha256"] == whole["model_sha256"]
    assert not any("snapshot" in note for note in notes)


def test_a_replica_starts_where_the_snapshot_is(often: Make, tmp_path: Path) -> None:
    run(often(), tmp_path / "r")
    history = History(Ledger.read(tmp_path / "r" / "ledger.jsonl"), tmp_path / "r/snapshots", print)
    missed = history.missed(0)
    assert missed.snapshot is not None
    assert (missed.round, missed.snapshot.round, list(missed.records)) == (6, 6, [])
    assert [r.round for r in history.missed(3, blind=True).records] == [3, 4, 5]
    assert history.missed(6).snapshot is None
    assert history.ledger._recent == []  # memory holds nothing that a snapshot covers


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garbage(path: Path) -> None:
    path.write_bytes(b"not a snapshot")


def altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("spoil", [torn, garbage, altered])
def test_a_spoilt_snapshot_is_said_and_done_without(
    often: Make, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    whole = run(often(**{"federation.rounds": 8}), tmp_path / "whole")
    run(often(), tmp_path / "r")
    spoil(only(tmp_path / "r"))
    notes: list[str] = []
    end = resume(tmp_path / "r", on_note=notes.append, changes={"federation.rounds": 8})
    assert end["model_sha256"] == whole["model_sha256"]
    assert any("snapshot" in note for note in notes), notes


def test_a_snapshot_of_another_run_is_left_out(often: Make, tmp_path: Path) -> None:
    whole = run(often(**{"federation.rounds": 8}), tmp_path / "whole")
    run(often(), tmp_path / "r")
    run(often(seed=1), tmp_path / "other")
    only(tmp_path / "other").replace(only(tmp_path / "r"))
    notes: list[str] = []
    end = resume(tmp_path / "r", on_note=notes.append, changes={"federation.rounds": 8})
    assert (
        "round-00000006.safetensors is a snapshot of another history than the ledger's: left out"
        in notes
    )
    assert end["model_sha256"] == whole["model_sha256"]


def test_a_snapshot_that_cannot_be_written_does_not_stop_the_run(
    often: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    expected = run(often(), tmp_path / "whole")
    monkeypatch.setattr(snapshots, "save_file", full)
    notes: list[str] = []
    summary = run(often(), tmp_path / "r", on_note=notes.append)
    assert summary["model_sha256"] == expected["model_sha256"]
    assert sum("no snapshot (" in note for note in notes) == 1


def test_tensors_are_read_back_exactly(tmp_path: Path) -> None:
    tensors = {"x": np.array([1.5, -0.0, np.float32(1e-45)], np.float32), "h": np.ones(3, "f4")}
    written = snapshots.write(tmp_path / "s", 4, "ab", tensors, 0.1)
    found, norm = snapshots.read(written)
    assert norm == 0.1
    assert all(found[name].tobytes() == tensors[name].tobytes() for name in tensors)
