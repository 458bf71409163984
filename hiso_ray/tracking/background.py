"""One tracker in a thread of its own: the run never waits for it and sees none of its errors.

Data flow, and who waits for whom::

    run       row ─> queue                      never waits; a full queue ends the tracking
    thread    queue ─> tracker, then the mark   waits for the tracker, however long
    run       end ─> queue                      waits for the thread, ``patience`` at most
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Empty, Full, Queue, SimpleQueue
from threading import Thread
from typing import Any

from hiso_ray.run_folder import files
from hiso_ray.run_folder.metrics_reader import Row, scan_rows
from hiso_ray.tracking.contract import Tracker
from hiso_ray.tracking.marks import Mark, read_mark, write_mark
from hiso_ray.tracking.secrets import without_secrets

MOST_WAITING = 10_000  # rows, a kilobyte each
BATCH = 100  # rows handed over at once
LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class End:
    """What follows the last row."""

    summary: Mapping[str, Any] | None = None
    pictures: Sequence[Path] = ()
    model: Path | None = None


class Background:
    """Gives rows to a tracker, and what lies in the table from before.

    Rows that an earlier process of the run wrote and the tracker was not given, or is not known to
    have been given, come first.
    """

    def __init__(
        self, name: str, tracker: Tracker, folder: Path, on_note: Callable[[str], None]
    ) -> None:
        self._name, self._tracker, self._folder, self._on_note = name, tracker, folder, on_note
        self._waiting: Queue[Row | End] = Queue(MOST_WAITING)
        self._said: SimpleQueue[str] = SimpleQueue()
        self._thread: Thread | None = None
        self._stopped = False

    def add(self, item: Row | End) -> None:
        """Puts a row, or the end, into the queue; the first one starts the thread. Tells the user
        what the thread has said."""
        if self._thread is None:
            before = math.inf if isinstance(item, End) else item["round"]
            self._thread = Thread(target=self._work, args=(before,), daemon=True)
            self._thread.start()
        if not self._stopped:
            try:
                self._waiting.put_nowait(item)
            except Full:
                self._stop(f"it is {MOST_WAITING:,} rows behind")
        self._tell()

    def wait(self, seconds: float) -> None:
        """Waits for the thread to come to the end."""
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive() and not self._stopped:
                self._stop("it took too long to close")
        self._tell()

    def _tell(self) -> None:
        """In the run's thread, as the run's other notes."""
        while not self._said.empty():
            self._on_note(self._said.get())

    def _stop(self, why: str) -> None:
        self._stopped = True
        self._said.put(
            f"warning: {self._name} is not shown the rest of this run ({without_secrets(why)}); "
            f"the run goes on, and `hiso-ray resume {self._folder}` shows it what is missing"
        )

    def _work(self, before: float) -> None:
        """
        Args:
            before: the first round that will come through the queue.
        """
        try:
            mark = self._open()
            if mark is not None:
                table = scan_rows(self._folder / files.METRICS)
                missed = (row for row in table if mark.round < row["round"] < before)
                while rows := list(islice(missed, BATCH)):
                    self._hand_over(rows, mark.run)
            end = None
            while end is None and not self._stopped:
                rows, end = self._next()
                if rows:
                    self._hand_over(rows, None if mark is None else mark.run)
            if end is not None:
                self._close(end)
        except Exception as error:
            if not self._stopped:
                first = (str(error).splitlines() or [""])[0]
                self._stop(f"{type(error).__name__}: {first[:LONGEST_REASON]}")

    def _open(self) -> Mark | None:
        """The mark of the tracker's run; None if the tracker cannot go on with an earlier one."""
        earlier = read_mark(self._folder, self._name)
        run = self._tracker.open(earlier.run)
        if self._tracker.place is not None:
            self._said.put(f"{self._name}: {self._tracker.place}")
        if run is None:
            return None
        mark = earlier if run == earlier.run else Mark(run)
        write_mark(self._folder, self._name, mark)
        return mark

    def _hand_over(self, rows: list[Row], run: str | None) -> None:
        self._tracker.rows(rows)
        if run is not None:
            write_mark(self._folder, self._name, Mark(run, rows[-1]["round"]))

    def _next(self) -> tuple[list[Row], End | None]:
        """Waits for an item; takes those that are there, a batch of rows at most."""
        rows: list[Row] = []
        item = self._waiting.get()
        while not isinstance(item, End):
            rows.append(item)
            if len(rows) == BATCH:
                return rows, None
            try:
                item = self._waiting.get_nowait()
            except Empty:
                return rows, None
        return rows, item

    def _close(self, end: End) -> None:
        if end.summary is not None:
            self._tracker.summary(end.summary)
        if end.pictures:
            self._tracker.pictures(end.pictures)
        if end.model is not None:
            self._tracker.model(end.model)
        self._tracker.close(end.summary is not None)
