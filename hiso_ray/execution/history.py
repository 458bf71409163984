"""What the driver can tell a replica about the past: the ledger, and the newest snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hiso_ray import snapshots
from hiso_ray.ledger import Ledger, Record
from hiso_ray.messages import Missed, Snapshot, UserError


class History:
    """The rounds so far.

    Attributes:
        folder: where snapshots lie.
        snapshot: the newest one that belongs to the ledger, if any.
    """

    def __init__(self, ledger: Ledger, folder: Path, on_note: Callable[[str], None]) -> None:
        self.ledger, self.folder = ledger, folder
        self.snapshot, notes = snapshots.newest(folder, ledger)
        for note in notes:
            on_note(note)
        if self.snapshot is not None:
            ledger.forget(before=self.snapshot.round)

    @property
    def round(self) -> int:
        """r: how many records there are."""
        return self.ledger.round

    @property
    def check(self) -> str:
        """Names this history; see ``Ledger.check``."""
        return self.ledger.check(self.round)

    def append(self, record: Record) -> None:
        """Writes the record of the next round; see ``Ledger.append``."""
        with self.writing():
            self.ledger.append(record)

    def missed(self, since: int, blind: bool = False) -> Missed:
        """What brings a replica that stands at round ``since`` to now.

        Args:
            blind: it cannot read the snapshot.
        """
        start = self.snapshot
        if start is None or blind or since >= start.round:
            return Missed(self.round, self._bare(since))
        return Missed(self.round, self._bare(start.round), start)

    def _bare(self, since: int) -> list[Record]:
        """Records without the names of clients, which no replica needs: messages do not grow with
        the cohort."""
        return [replace(r, cohort=(), dropped=(), late=()) for r in self.ledger.since(since)]

    def start_from(self, snapshot: Snapshot) -> None:
        """A new snapshot: older ones, and records before it, are needed no longer."""
        self.snapshot = snapshot
        self.ledger.forget(before=snapshot.round)
        snapshots.keep_only(snapshot)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around whatever writes to the run folder.

        Raises:
            UserError: it could not be written; says what to do.
        """
        folder = self.ledger.path.parent
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write to the run folder {folder} ({error.strerror or error}): "
                f"{self.round} rounds are safe in the ledger; make room or make it writable, then "
                f"`hiso-ray resume {folder}` goes on"
            ) from error
