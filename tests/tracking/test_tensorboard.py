"""The event files of a run."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

from hiso_ray import Experiment
from hiso_ray.run_folder.metrics_reader import Row
from hiso_ray.tracking.contract import Shown
from hiso_ray.tracking.tensorboard import TensorBoard


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


def test_events_hold_the_loss_of_every_round_and_all_of_an_evaluated_one(tmp_path: Path) -> None:
    board = TensorBoard(Shown(Experiment(), tmp_path, 1.0))
    board.open(None)
    first: Row = {"round": 0, "train_loss": None, "eval_loss": 2.25, "uplink_bytes": 0}
    second: Row = {"round": 1, "train_loss": 0.5, "eval_loss": None, "uplink_bytes": 20}
    third: Row = second | {"round": 2, "eval_loss": 0.25, "eval_accuracy": 0.75}
    board.rows([first, second, third])
    assert [event.step for event in events(tmp_path)] == [0, 1, 2]  # flushed: nothing is closed
    assert list(map(shown, events(tmp_path))) == [
        {"eval_loss": 2.25, "uplink_bytes": 0},
        {"train_loss": 0.5},
        {"train_loss": 0.5, "eval_loss": 0.25, "eval_accuracy": 0.75, "uplink_bytes": 20},
    ]
    board.rows([second | {"round": 3}])
    board.close(finished=True)
    assert [event.step for event in events(tmp_path)] == [0, 1, 2, 3]
