"""Prints the README's table of methods: what each sends and keeps, by formula and as measured.

::

    python scripts/method_table.py

Formulas follow from the method's row of ``hiso_ray.config.METHODS``. Numbers come from a short run
of each method on digits in which every client is sampled each round: clients have missed no record
in the first round, and one in each later round. Up is the length of a real answer, down is counted
in the run's ``metrics.csv``, memory is that of its snapshot, ledger growth that of the file.
Takes 15 s.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from safetensors.numpy import load_file

from hiso_ray import Experiment, run, tasks
from hiso_ray.config import METHODS
from hiso_ray.config.method_row import Method
from hiso_ray.execution.worker import Worker
from hiso_ray.run_folder.metrics_reader import read_rows
from hiso_ray.seeds import step_seeds

CLIENTS, ROUNDS, TAU = 3, 4, 2
HEADER = (
    "method", "paper", "up", "down, no record missed", "down, one missed",
    "held from round to round beside x_r", "replayable from the ledger",
)  # fmt: skip


class Measured(NamedTuple):
    """What one run measured.

    Attributes:
        d: trainable weights.
        up: bytes of a client's answer.
        down, down_after_one: bytes to a client that missed no record, and to one that missed one.
        kept: floats in the snapshot, by name.
        ledger: bytes per round.
    """

    d: int
    up: int
    down: int
    down_after_one: int
    kept: dict[str, int]
    ledger: float


def experiment(name: str) -> Experiment:
    clients = 1 if METHODS[name].one_client else CLIENTS
    small = {
        "method.name": name,
        "method.lr": 0.01,
        "task.name": "digits",
        "task.model": "mlp-8",
        "federation.num_clients": clients,
        "federation.clients_per_round": clients,
        "federation.rounds": ROUNDS,
        "federation.local_steps": TAU,
        "resources.executor": "serial",
        "resources.snapshot_every": ROUNDS,
    }
    return Experiment().changed(**small)


def measure(name: str, folder: Path) -> Measured:
    """Runs a method in a new folder."""
    e = experiment(name)
    run(e, folder)
    worker = Worker(e, *tasks.load(e))
    ((turn,),) = worker.turns([(0,)], step_seeds(e.seed, 0, e.record_steps))
    downs = [row["downlink_bytes"] for row in read_rows(folder / "metrics.csv")]
    (snapshot,) = (folder / "snapshots").iterdir()
    kept = {tensor: array.size for tensor, array in load_file(snapshot).items()}
    _header, *records = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    return Measured(
        d=kept["x"],
        up=len(turn.payload) if turn.update is None else turn.update.nbytes,
        down=(downs[1] - downs[0]) // e.federation.num_clients,
        down_after_one=(downs[2] - downs[1]) // e.federation.num_clients,
        kept=kept,
        ledger=sum(map(len, records)) / len(records),
    )


def formulas(row: Method, method: str) -> tuple[str, str, str]:
    """Bytes up; down to a client that missed nothing; and in addition for each missed record."""
    own = experiment(method).method
    if row.sends == "weights":
        return "4d", "4d + 8" if row.first_order else "4d + 8τ + 8", ""
    if row.projects:
        return "4K", "8 + 8", "8 + 8 + 4K each"
    up = "8τP" if row.second_differences else "⌈τP/8⌉" if row.uplink == "sign" else "4τP"
    scalars = up if own.directions == "shared" else "4m(1 + τP)"
    at_most = ", at most 4K" if own.seed_pool else ""
    return up, "8τ + 8", f"8τ + 8 + {scalars} each{at_most}"


def memory(row: Method, found: Measured) -> str:
    """The memory of a replica beside x, or of the server if weights are sent."""
    names = {"h": "H", "velocity": "momentum", "block_norms": "a norm per block"}
    held = [names.get(name, name) for name in found.kept if name != "x"]
    beside = sum(found.kept.values()) - found.d
    if row.sends == "weights":
        return f"server: {1 + beside / found.d:g} d ({', '.join(['x', *held])})"
    size = f"{beside / found.d:g} d" if beside >= found.d else f"{beside} floats"
    words = f"{size} ({', '.join(held)})" if held else "nothing"
    return words + ("; 1 d more with momentum" if "momentum" in row.reads else "")


def line(name: str, found: Measured) -> tuple[str, ...]:
    """One row's cells."""
    row = METHODS[name]
    up, down, missed = formulas(row, name)
    authors, _, number = row.paper.rpartition(", arXiv ")
    letter, method = "K" if row.projects else "P", experiment(name).method
    along = f" ({letter} = {method.directions_per_step})" if row.draws else ""
    after_one = f"{found.down_after_one:,}"
    again = "no: rounds are run again"
    return (
        f"`{name}`",
        f"[{authors}](https://arxiv.org/abs/{number})",
        f"{up} = {found.up:,}{along}",
        f"{down} = {found.down:,}",
        f"+ {missed} = {after_one}" if missed else f"the same = {after_one}",
        memory(row, found),
        f"yes: {found.ledger:,.0f} B a round" if row.sends == "scalars" else again,
    )


def table() -> str:
    """The whole table, with a note on what its numbers mean."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measure(name, Path(folder) / name) for name in METHODS}
    lines = [HEADER, tuple("---" for _ in HEADER), *(line(n, f) for n, f in found.items())]
    note = (
        f"Bytes of one sampled client and round, measured at d = {found['hiso'].d}, τ = {TAU}, "
        f"m = {CLIENTS} (mezo: 1) and fedkseed's K = {experiment('fedkseed').method.seed_pool}. "
        "An average of the iterates (`method.averaging`) is 1 d more. At work a process holds some "
        "more d for a while; `hiso-ray run --dry-run` says how much."
    )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + f"\n\n{note}"


if __name__ == "__main__":
    print(table())
