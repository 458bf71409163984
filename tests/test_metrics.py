"""The table and the events of a run: what is in them, and when it is on its way to the disk."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event

from hiso_ray.metrics import MetricsFile, Row, read_rows


def row(round_: int, **fields: Any) -> Row:
    return {"round": round_, "train_loss": 0.5, "eval_loss": None, "uplink_bytes": 20} | fields


def events(folder: Path) -> list[Event]:
    """Those of the run, without the one that opens the file."""
    (file,) = (folder / "tensorboard").iterdir()
    data, found = file.read_bytes(), []
    while data:  # length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found[1:]


def shown(event: Event) -> dict[str, float]:
    return {value.tag: value.simple_value for value in event.summary.value}


def test_a_row_is_written_before_the_next_round(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    for round_ in range(3):
        file.add(row(round_))
        assert [r["round"] for r in read_rows(tmp_path / "metrics.csv")] == list(range(round_ + 1))
    file.close()


def test_events_hold_the_loss_of_every_round_and_all_of_an_evaluated_one(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    file.add(row(0, train_loss=None, eval_loss=2.25))
    file.add(row(1))
    file.add(row(2, eval_loss=0.25, eval_accuracy=0.75))
    assert [event.step for event in events(tmp_path)] == [0, 1, 2]  # flushed: nothing is closed
    first, second, third = map(shown, events(tmp_path))
    assert first == {"eval_loss": 2.25, "uplink_bytes": 20}
    assert second == {"train_loss": 0.5}
    assert third == second | {"eval_loss": 0.25, "eval_accuracy": 0.75, "uplink_bytes": 20}
    file.add(row(3))
    file.close()
    assert [event.step for event in events(tmp_path)] == [0, 1, 2, 3]


def test_a_torn_row_is_left_out_and_written_again(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    file.add(row(0))
    file.close()
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "1,0.2")
    found = read_rows(path)
    assert [r["round"] for r in found] == [0]
    again = MetricsFile(tmp_path, keep=found)
    again.add(row(1, train_loss=0.2))
    again.close()
    assert [r["train_loss"] for r in read_rows(path)] == [0.5, 0.2]
