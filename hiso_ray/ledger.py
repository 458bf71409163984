"""The append-only ledger: a header, then one self-checking record a round.

The model at round r is a pure fold over the ledger, so the ledger is the checkpoint. Each line is
one JSON object whose ``check`` is a SHA-256 over the line before it and its own content: a torn
tail is recognised and dropped, a line altered, removed or moved in the middle is an error.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

FORMAT = 1


class LedgerError(ValueError):
    """The ledger on disk cannot be trusted, or belongs to another run."""


@dataclass(frozen=True)
class Record:
    """What one round adds: enough to move any replica from x_r, H_r to x_{r+1}, H_{r+1}.

    Attributes:
        round: r, counted from 0.
        cohort: the m client ids, ascending.
        seeds: τ 64-bit step seeds s_{r,k}.
        scalars: τ×P averaged finite differences ḡ_{k,p}; each is exactly a float32.
        lr, mu: η and μ of this round.
        hessian_retention, hessian_eps: β and ε of this round.
        train_loss: mean loss of the cohort at the points it probed, before the update.
    """

    round: int
    cohort: tuple[int, ...]
    seeds: tuple[int, ...]
    scalars: tuple[tuple[float, ...], ...]
    lr: float
    mu: float
    hessian_retention: float
    hessian_eps: float
    train_loss: float


def _line(content: dict[str, Any], previous: str) -> tuple[str, str]:
    body = json.dumps(content, separators=(",", ":"), allow_nan=False)
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
    """An open ledger; :meth:`append` returns only when the record is on disk.

    Attributes:
        header: what replay needs to know (config and x_0 digests, torch, device, generator).
        records: every record so far, oldest first.
        dropped_bytes: length of the torn tail that opening found and cut off.
    """

    def __init__(
        self,
        path: Path,
        header: dict[str, Any],
        records: list[Record],
        check: str,
        dropped: int = 0,
    ) -> None:
        self.path, self.header, self.records = path, header, records
        self.dropped_bytes = dropped
        self._check = check
        self._file: Any = None

    @classmethod
    def create(cls, path: Path, header: dict[str, Any]) -> Ledger:
        """Starts a ledger; the file must not exist.

        Raises:
            FileExistsError: there is one already.
        """
        if path.exists():
            raise FileExistsError(f"{path} exists")
        line, check = _line({"format": FORMAT, **header}, "")
        new = path.with_suffix(".new")
        with open(new, "wb") as file:
            file.write(line.encode())
            os.fsync(file.fileno())
        new.rename(path)  # whole or not at all
        ledger = cls(path, json.loads(line), [], check)
        ledger._file = _exclusive(path)
        ledger._file.seek(0, os.SEEK_END)
        return ledger

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Reads and verifies every line; writes nothing.

        Raises:
            LedgerError: no file, no valid header, or a corrupt record before the tail (named).
        """
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise LedgerError(f"no ledger at {path}: {error.strerror}") from error
        head = _parse(lines[0], "") if lines else None
        if head is None:
            raise LedgerError(f"{path}: the header is corrupt; this ledger cannot be replayed")
        header, check = head
        if header.get("format") != FORMAT:
            raise LedgerError(f"{path}: format {header.get('format')}; this version reads {FORMAT}")
        records: list[Record] = []
        for number, line in enumerate(lines[1:]):
            parsed = _parse(line, check)
            if parsed is None:
                if number + 2 < len(lines):
                    raise LedgerError(
                        f"{path}: the record of round {number} (line {number + 2}) is corrupt "
                        f"and {len(lines) - number - 2} lines follow it; rounds before it are whole"
                    )
                return cls(path, header, records, check, dropped=len(line))
            content, check = parsed
            records.append(_record(content))
        return cls(path, header, records, check)

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Reads a ledger and prepares it for appending, cutting off a torn tail.

        Raises:
            LedgerError: as :meth:`read`, or another process is writing this ledger.
        """
        file = _exclusive(path) if path.exists() else None
        ledger = cls.read(path)
        ledger._file = file
        ledger._file.seek(-ledger.dropped_bytes, os.SEEK_END)
        ledger._file.truncate()
        return ledger

    def append(self, record: Record) -> None:
        """Adds the record of the next round and waits until it is on disk."""
        assert record.round == len(self.records), (record.round, len(self.records))
        line, check = _line(asdict(record), self._check)
        self._write(line)
        self._check = check
        self.records.append(record)

    def _write(self, line: str) -> None:
        self._file.write(line.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _record(content: dict[str, Any]) -> Record:
    for name in ("cohort", "seeds"):
        content[name] = tuple(content[name])
    content["scalars"] = tuple(tuple(step) for step in content["scalars"])
    return Record(**content)


def _exclusive(path: Path) -> BinaryIO:
    """Opens for reading and writing; two writers would break the chain of checks."""
    file = open(path, "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise LedgerError(f"another process is writing {path}: wait for it, or stop it") from error
    except OSError:
        pass  # a file system without locks
    return file
