"""The average of the iterates: what a run gives, and not what it does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from hiso_ray import Experiment, replay, run
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.metrics_reader import read_rows

RETENTION, ROUNDS = 0.8, 6


def test_what_is_scored_exported_and_digested_is_the_average_of_what_is_trained(
    experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    plain = run(experiment(), tmp_path / "plain")
    averaged = run(experiment(**{"method.averaging": RETENTION}), tmp_path / "averaged")
    of_plain, of_averaged = (tmp_path / name for name in ("plain", "averaged"))
    records = [Ledger.read(folder / "ledger.jsonl").records for folder in (of_plain, of_averaged)]
    assert records[0] == records[1]

    def exported(folder: Path, round_: int) -> tuple[dict[str, np.ndarray], str]:
        to = tmp_path / f"{folder.name}-{round_}"
        digest = replay(folder, round_, export=to)["model_sha256"]
        return load_file(to / "model.safetensors"), digest

    start, digest = exported(of_plain, 0)
    assert exported(of_averaged, 0)[1] == digest
    iterates = [exported(of_plain, r + 1)[0] for r in range(ROUNDS)]
    weights = [RETENTION ** (ROUNDS - 1 - r) for r in range(ROUNDS)]
    found, digest = exported(of_averaged, ROUNDS)
    for name, tensor in found.items():
        by_hand = np.average([x[name].astype(float) for x in iterates], axis=0, weights=weights)
        moved = np.abs(by_hand - start[name]).max()
        assert np.abs(tensor - by_hand).max() < 1e-5 * moved
        assert np.abs(tensor - iterates[-1][name]).max() > 1e-2 * moved
    sha = hashlib.sha256(b"".join(found[name].tobytes() for name in sorted(found)))
    assert sha.hexdigest() == digest == averaged["model_sha256"] != plain["model_sha256"]

    rows = [read_rows(folder / "metrics.csv") for folder in (of_plain, of_averaged)]
    for name in ("train_loss", "update_norm", "uplink_bytes", "downlink_bytes"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]]
    assert rows[0][-1]["eval_loss"] != rows[1][-1]["eval_loss"]
    assert rows[1][-1]["eval_loss"] == replay(of_averaged)["eval_loss"]
