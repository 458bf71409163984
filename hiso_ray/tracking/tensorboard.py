"""TensorBoard event files, in the run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from hiso_ray.run_folder import files
from hiso_ray.run_folder.metrics_reader import Row
from hiso_ray.tracking.contract import Tracker

BRIEF = ("round", "train_loss")  # sent for rounds without evaluation


class TensorBoard(Tracker):
    """Each round has an event. That of an evaluated round holds the whole row, others only the
    training loss: a whole event costs eight times a row, as its checksum is plain Python.

    Events are written in the thread that calls: TensorBoard's writer thread dies on a full disk,
    and closing it then waits forever.
    """

    library = "tensorboardX"
    takes_models = False

    def open(self, earlier: str | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        folder = self._shown.folder / files.TENSORBOARD
        folder.mkdir(exist_ok=True)
        # The process id, because a run may be resumed within the second that names the file.
        self._events = EventsWriter(str(folder / "events"), f".{os.getpid()}")

    def rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            evaluated = row["eval_loss"] is not None
            self._events.write_event(_event(row if evaluated else {n: row[n] for n in BRIEF}))
            if evaluated:
                self._events.flush()

    def close(self, finished: bool) -> None:
        self._events.close()


def _event(row: Row) -> Any:
    """A row as a TensorBoard event."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    shown = ((name, value) for name, value in row.items() if name != "round" and value is not None)
    values = [Summary.Value(tag=name, simple_value=value) for name, value in shown]
    return Event(wall_time=time.time(), step=row["round"], summary=Summary(value=values))
