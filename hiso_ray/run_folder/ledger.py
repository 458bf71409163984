"""The append-only ledger: a header, then one self-checking record a round.

The model at round r is a pure fold over the ledger, so the ledger is the checkpoint. Each line is
one JSON object whose ``check`` is a SHA-256 over the line before it and its own content. A torn
tail is detected and dropped; a line altered, removed or moved in the middle is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hiso_ray.errors import UserError
from hiso_ray.record import Record
from hiso_ray.run_folder.locks import LOCK_SECONDS, hold
from hiso_ray.run_folder.whole_files import write_text

FORMAT = 5  # 4 drew other cohorts and minibatches, so its runs cannot be resumed
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class LedgerError(UserError):
    """The ledger on disk cannot be trusted, or belongs to another run."""


def _line(content: dict[str, Any], previous: str) -> tuple[str, str]:
    body = _ENCODER.encode(content)
    check = hashlib.sha256((previous + body).encode()).hexdigest()[:16]
    return f'{body[:-1]},"check":"{check}"}}\n', check


def _parse(line: bytes, previous: str) -> tuple[dict[str, Any], str] | None:
    try:
        content = json.loads(line)
        check = content.pop("check")
        return (content, check) if _line(content, previous)[0].encode() == line else None
    except (ValueError, AttributeError, KeyError, TypeError):
        return None


class Ledger:
    """A ledger on disk; :meth:`append` returns only when the record is on disk.

    Memory holds 16 bytes per round, a record's offset and check, and the records since the last
    :meth:`forget`; older ones are read from disk when needed.

    Attributes:
        header: what replay needs to know (config and x_0 digests, torch, device, generator).
        dropped_bytes: length of the torn tail that reading found; opening cuts it off.
    """

    def __init__(self, path: Path) -> None:
        """Reads and verifies every line; see :meth:`read` and :meth:`open`."""
        self.path = path
        self.dropped_bytes = 0
        self._file: BinaryIO | None = None
        self._offsets = array("Q")  # of each round's record, and of the end of the last one
        self._checks = bytearray()  # 8 bytes each: of the header, then of every record
        self._recent: list[Record] = []  # the newest records, from ``_recent_from`` on
        self._floor = 0  # records before this round are not kept in memory
        self.header = self._verify()
        self._recent_from = self.round

    @classmethod
    def create(cls, path: Path, header: dict[str, Any]) -> Ledger:
        """Starts a ledger; the file must not exist.

        Raises:
            FileExistsError: it exists.
        """
        line, _ = _line({"format": FORMAT, **header}, "")
        write_text(path, line, anew=True)
        return cls.open(path)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Reads and verifies every line; writes nothing.

        Raises:
            LedgerError: no file, no valid header, or a corrupt record before the tail (named).
        """
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Reads a ledger and prepares it for appending, cutting off a torn tail.

        Raises:
            LedgerError: as for :meth:`read`, or another process is writing this ledger.
        """
        file = _exclusive(path) if path.exists() else None
        try:
            ledger = cls(path)
        except BaseException:
            if file is not None:
                file.close()
            raise
        ledger._file = file
        ledger._cut(ledger._offsets[-1])
        return ledger

    @property
    def round(self) -> int:
        """The number of records, which is also the number of the next round."""
        return len(self._offsets) - 1

    @property
    def records(self) -> list[Record]:
        """Every record, oldest first."""
        return self.since(0)

    def check(self, round_: int) -> str:
        """The check of the line before the record of ``round_``; identifies all lines up to it."""
        return self._checks[8 * round_ : 8 * round_ + 8].hex()

    def since(self, round_: int) -> list[Record]:
        """The records of ``round_`` and later, oldest first; older ones are read from disk."""
        if round_ < self._recent_from:
            older = list(self.scan(round_, self._recent_from))
            if round_ < self._floor:
                return older + self._recent
            self._recent[:0], self._recent_from = older, round_
        return self._recent[round_ - self._recent_from :]

    def scan(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Reads the records of rounds ``start`` to ``stop`` - 1 from disk, one at a time.

        Raises:
            LedgerError: the file has been changed since it was opened.
        """
        with open(self.path, "rb") as file:
            file.seek(self._offsets[start])
            for number in range(start, self.round if stop is None else stop):
                parsed = _parse(file.readline(), self.check(number))
                if parsed is None:
                    raise LedgerError(f"{self.path}: the record of round {number} was changed")
                yield Record.from_content(parsed[0])

    def forget(self, before: int) -> None:
        """Drops the records of rounds before ``before`` from memory."""
        self._floor = before
        if before > self._recent_from:
            del self._recent[: before - self._recent_from]
            self._recent_from = min(before, self.round)

    def append(self, record: Record) -> None:
        """Adds the record of the next round and waits until it is on disk.

        Raises:
            OSError: it could not be written in full (the disk is full); the ledger is unchanged.
        """
        assert record.round == self.round, (record.round, self.round)
        line, check = _line(record.content(), self.check(self.round))
        assert self._file is not None, "opened for reading only"
        left = whole = line.encode()
        try:
            while left:  # near a size limit, only a part is written
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._cut(self._offsets[-1])
            raise
        self._offsets.append(self._offsets[-1] + len(whole))
        self._checks += bytes.fromhex(check)
        self._recent.append(record)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _verify(self) -> dict[str, Any]:
        """Reads the whole file, fills offsets and checks, and returns the header."""
        path = self.path
        try:
            file = open(path, "rb")
        except OSError as error:
            raise LedgerError(f"no ledger at {path}: {error.strerror}") from error
        with file:
            first = file.readline()
            head = _parse(first, "")
            if head is None:
                raise LedgerError(f"{path}: the header is corrupt; this ledger cannot be replayed")
            header, check = head
            if header.get("format") != FORMAT:
                raise LedgerError(
                    f"{path}: format {header.get('format')}; this version reads {FORMAT}"
                )
            self._offsets.append(len(first))
            self._checks += bytes.fromhex(check)
            for line in file:
                parsed = _parse(line, check)
                if parsed is None:
                    after = len(file.readlines())
                    if after:
                        raise LedgerError(
                            f"{path}: the record of round {self.round} (line {self.round + 2}) is "
                            f"corrupt and {after} lines follow it; rounds before it are whole"
                        )
                    self.dropped_bytes = len(line)
                    break
                check = parsed[1]
                self._offsets.append(self._offsets[-1] + len(line))
                self._checks += bytes.fromhex(check)
        return header

    def _cut(self, length: int) -> None:
        """Truncates the file after the last whole record."""
        assert self._file is not None
        self._file.truncate(length)
        self._file.seek(length)


def _exclusive(path: Path) -> BinaryIO:
    """Opens and locks for reading and writing: two writers would break the chain of checks.

    Raises:
        LedgerError: it cannot be opened, or another process is writing it.
    """
    try:
        file = open(path, "r+b", buffering=0)
    except OSError as error:
        raise LedgerError(
            f"cannot write {path} ({error.strerror}): make the run folder writable, or copy it"
        ) from error
    try:
        hold(file, LOCK_SECONDS)
    except BlockingIOError as error:
        file.close()
        raise LedgerError(f"another process is writing {path}: wait for it, or stop it") from error
    return file
