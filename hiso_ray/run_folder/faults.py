"""``faults.jsonl``: the deaths and failures that the run survived, one row each."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hiso_ray.run_folder import files


class Faults:
    """Appends to a run's ``faults.jsonl`` and tells the user."""

    def __init__(self, folder: Path, on_note: Callable[[str], None]) -> None:
        self._path, self._on_note = folder / files.FAULTS, on_note
        self._memory_told = False

    def add(
        self,
        kind: str,
        round_: int,
        stage: str,
        error: str,
        actor: int | None = None,
        items: Sequence[int] = (),
    ) -> None:
        """Records one fault. The user is told only of the first memory fault: others tend to
        follow, and the remedy is the same.

        Args:
            kind: ``died``, ``memory`` (killed for lack of it), ``hung``, ``error``, ``restarted``,
                ``lost`` or ``driver``.
            stage: what was requested: turns, scores, statistics, digest, snapshot, restart, rounds.
            actor: the client actor's number.
            items: the clients of the request, or for scores its evaluation batches.
        """
        row = {
            "time": time.time(),
            "kind": kind,
            "round": round_,
            "stage": stage,
            "actor": actor,
            "items": list(items),
            "error": error,
        }
        with open(self._path, "ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            torn = file.read(1) not in (b"", b"\n")  # a full disk truncated the last row
            file.write((b"\n" if torn else b"") + json.dumps(row).encode() + b"\n")
        who = "" if actor is None else f"client actor {actor} "
        last = error.splitlines()[-1]
        if kind != "memory":
            self._on_note(f"fault in round {round_}, {stage}: {who}{kind} ({last})")
        elif not self._memory_told:
            self._memory_told = True
            self._on_note(
                f"fault in round {round_}, {stage}: {who}{last}; if it happens again, only the "
                "summary and faults.jsonl say so"
            )


def by_kind(folder: Path) -> dict[str, int]:
    """Counts the faults of a run by kind; ignores torn and unrecognised rows."""
    return dict(Counter(str(row["kind"]) for row in _rows(folder)))


def by_actor(folder: Path) -> dict[int, int]:
    """Counts the faults of each client actor that had one."""
    numbers = (row.get("actor") for row in _rows(folder))
    return dict(Counter(number for number in numbers if number is not None))


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / files.FAULTS
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "kind" in row:
            yield row
