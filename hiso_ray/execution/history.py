"""What the driver sends to bring a replica up to date: records and the newest snapshot, or the
weights for methods that send weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from hiso_ray.errors import UserError
from hiso_ray.messages import Missed, Snapshot
from hiso_ray.record import Record
from hiso_ray.run_folder import snapshots
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.server.weights import WeightServer


class History:
    """The rounds so far.

    Attributes:
        folder: the folder of the snapshots.
        snapshot: the newest one that belongs to the ledger, if any.
        server: holds the weights, for methods that send them.

    Args:
        by_client: each client has its own directions, so replicas need the cohort of each record.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        on_note: Callable[[str], None],
        server: WeightServer | None = None,
        by_client: bool = False,
    ) -> None:
        self.ledger, self.folder, self.server = ledger, folder, server
        self._by_client = by_client
        self.snapshot, notes = snapshots.newest(folder, ledger)
        if self.snapshot is not None and server is not None:
            try:
                server.restore(self.snapshot)
            except OSError as error:
                notes.append(f"{error}: left out")
                self.snapshot = None
        for note in notes:
            on_note(note)
        if self.snapshot is not None:
            ledger.forget(before=self.snapshot.round)

    @property
    def round(self) -> int:
        """r: the number of records, or the round of the server's weights."""
        return self.ledger.round if self.server is None else self.server.round

    @property
    def check(self) -> str:
        """Identifies this history; see ``Ledger.check``."""
        return self.ledger.check(self.round)

    def append(self, record: Record, update: np.ndarray | None = None) -> None:
        """Writes the record of the next round; see ``Ledger.append``.

        Args:
            update: (d,) float32 mean change of the weights, where clients send those.
        """
        with self.writing():
            self.ledger.append(record)
        if self.server is not None:
            self.server.step(update)

    def missed(self, since: int, blind: bool = False) -> Missed:
        """What brings a replica from round ``since`` to the current round.

        Args:
            blind: the replica cannot read the snapshot.
        """
        if self.server is not None:
            weights = None if since == self.round else self.server.x
            return Missed(self.round, (), weights=weights)
        start = self.snapshot
        if start is None or blind or since >= start.round:
            return Missed(self.round, self._bare(since))
        return Missed(self.round, self._bare(start.round), start)

    def _bare(self, since: int) -> list[Record]:
        """Records without the client ids that replicas do not need: with shared directions all of
        them, so that messages do not grow with the cohort."""
        return [
            replace(r, cohort=r.cohort if self._by_client else (), dropped=(), late=())
            for r in self.ledger.since(since)
        ]

    def start_from(self, snapshot: Snapshot) -> None:
        """Adopts a new snapshot; deletes older ones and drops earlier records from memory."""
        self.snapshot = snapshot
        self.ledger.forget(before=snapshot.round)
        snapshots.keep_only(snapshot)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wraps every write to the run folder.

        Raises:
            UserError: the write failed; the text says what to do.
        """
        try:
            yield
        except OSError as error:
            folder = self.ledger.path.parent
            raise UserError(
                f"cannot write to the run folder {folder} ({error.strerror or error}): "
                f"{self.round} rounds are safe in the ledger; make room or make it writable, then "
                f"`hiso-ray resume {folder}` goes on"
            ) from error
