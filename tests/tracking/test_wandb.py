"""What Weights & Biases is given: the numbers of the table, read back from its own file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hiso_ray import Experiment, replay, resume, run
from hiso_ray.run_folder.metrics_reader import read_rows
from hiso_ray.tracking.marks import read_mark

pytest.importorskip("wandb", reason="needs the extra `wandb`")
Make = Callable[..., Experiment]
BLOCK, HEADER = 32768, 7  # of the LevelDB log format
LAST = (1, 4)  # kinds of fragments: the whole record, and the last part of one


def records(path: Path) -> Iterator[Any]:
    """The records of a ``.wandb`` file, as W&B's own messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), HEADER, b""
    while at < len(data):
        if (left := BLOCK - at % BLOCK) < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in LAST:
            yield Record.FromString(parts)
            parts = b""


def read(items: Iterable[Any]) -> dict[str, Any]:
    """Values by name, those of a mapping by dotted names."""
    return {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}


@pytest.mark.usefixtures("pictures")
def test_the_file_holds_a_run_whole_and_it_goes_on_under_the_same_id(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    out = tmp_path / "rates"
    (out / "runs").mkdir(parents=True)
    (out / "plan.yaml").touch()
    folder, notes = out / "runs" / "first", list[str]()
    run(experiment(tracking=["wandb"]), folder, on_note=notes.append)
    summary = resume(folder, notes.append, notes.append, {"federation.rounds": 8})
    replay(folder, export=tmp_path / "model", on_note=notes.append)

    import wandb

    wandb.teardown()  # its process has written the last records when it ends
    kept = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    every = [record for path in kept for record in records(path)]
    ids = {r.run.run_id for r in every if r.HasField("run")}
    assert ids == {read_mark(folder, "wandb").run}
    begun = next(r.run for r in every if r.HasField("run"))
    assert (begun.project, begun.display_name, begun.run_group) == ("theirs", "first", "rates")
    assert read(begun.config.update)["method"]["lr"] == 0.02

    rows = read_rows(folder / "metrics.csv")
    steps = [values for record in every if (values := read(record.history.item))]
    assert [values["_step"] for values in steps] == [row["round"] for row in rows]
    for row, values in zip(rows, steps, strict=True):
        shown = {name: v for name, v in row.items() if name != "round" and v is not None}
        assert shown.items() <= values.items()
    final = read(item for record in every for item in record.summary.update)
    assert final["model_sha256"] == summary["model_sha256"]
    for name in ("partition", "convergence"):
        assert list(folder.glob(f"wandb/*/files/{steps[-1][f'{name}.path']}"))
    assert [r.exit.exit_code for r in every if r.HasField("exit")] == [0, 0, 0]
    (model,) = (r.artifact for r in every if r.HasField("artifact"))
    assert (model.type, {entry.path for entry in model.manifest.contents}) == (
        "model",
        {path.name for path in (tmp_path / "model").iterdir()},
    )
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(secret.encode() in path.read_bytes() for path in written)
    assert not any(secret in str(note) for note in notes)
