"""Who is slow in a run: client actors by their times, clients by the deadline of the virtual clock,
actors that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from statistics import median

from hiso_ray.errors import UserError
from hiso_ray.run_folder import faults, files
from hiso_ray.run_folder.actor_times import read_actor_times
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.run_folder.state import State

NAMED = 3


def who_is_slow(run: State) -> list[tuple[str, str]]:
    """(what is told, in words) for each of these that the run has recorded."""
    found = []
    if times := read_actor_times(run.folder):
        usual = median(time.per_turn for time in times)
        slowest = sorted(times, key=lambda time: -time.per_turn)[:NAMED]
        named = ", ".join(f"{time.actor} ({time.per_turn:.3g} s)" for time in slowest)
        found.append(("slowest actors", f"{named} a turn; median of {len(times)}: {usual:.3g} s"))
    if late := _late(run):
        found.append(("late most often", f"clients {_most(late)}"))
    if failed := faults.by_actor(run.folder):
        found.append(("actors with faults", _most(failed)))
    return found


def _late(run: State) -> dict[int, int]:
    """How often each client missed the deadline; the ledger has their numbers."""
    if not any(row.get("late") for row in run.rows):
        return {}
    try:
        records = Ledger.read(run.folder / files.LEDGER).scan()
        return Counter(client for record in records for client in record.late)
    except UserError:  # it cannot be trusted: `show` says why
        return {}


def _most(counts: Mapping[int, int]) -> str:
    """``7 (12 times), 3 (once)``"""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{who} ({'once' if n == 1 else f'{n} times'})" for who, n in order[:NAMED]]
    return ", ".join(named) + (f" and {len(order) - NAMED} more" if len(order) > NAMED else "")
