"""``faults.jsonl``: what went wrong and was survived, one row each."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path


class Faults:
    """Appends to a run's ``faults.jsonl`` and tells the user."""

    def __init__(self, folder: Path, on_note: Callable[[str], None]) -> None:
        self._path, self._on_note = folder / "faults.jsonl", on_note

    def add(
        self,
        kind: str,
        round_: int,
        stage: str,
        error: str,
        actor: int | None = None,
        items: Sequence[int] = (),
    ) -> None:
        """Notes one fault.

        Args:
            kind: ``died``, ``hung``, ``error``, ``restarted``, ``lost`` or ``driver``.
            stage: what was asked for: turns, scores, statistics, digest, snapshot, rounds.
            actor: the client actor's number.
            items: the clients, or for scores the evaluation batches, that were asked for.
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
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        who = "" if actor is None else f"client actor {actor} "
        self._on_note(f"fault in round {round_}, {stage}: {who}{kind} ({error.splitlines()[-1]})")


def count(folder: Path) -> dict[str, int]:
    """Faults of a run by kind; a torn last line is left out."""
    kinds: Counter[str] = Counter()
    path = folder / "faults.jsonl"
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                kinds[json.loads(line)["kind"]] += 1
    return dict(kinds)
