"""The cost of faults: time lost per killed actor, and time to resume a run of a given length.

    python benchmarks/recovery.py [--quick]

Kills: digits on Ray, with two actors and with one; every 25 rounds one actor, chosen by a seed,
gets SIGKILL while it works. Lost is (time in rounds - that of the same run undisturbed) ÷ kills;
the final weights must be the same bits.

Resume: adds one round to a ledger of the given length (serial executor, digits mlp-8, 8 clients a
round, P = 5), without snapshots and with one every 500, in a process that has done all imports.
Ledgers end just before a snapshot is due, which is the worst case. "to its round" ends when the new
round's row is written; "in all" adds the picture of the curves.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from scale import descendants

from hiso_ray import Experiment, resume, run
from hiso_ray.execution.cluster.session import joined_cluster
from hiso_ray.run_folder.metrics_reader import Row

REPETITIONS = 3  # of each resume
KIB = 2**10


class Killer:
    """Kills a client actor of this process's cluster at regular rounds.

    Attributes:
        kills: number of kills so far.
    """

    def __init__(self, every: int, rounds: int) -> None:
        self.every, self.rounds, self.kills = every, rounds, 0
        self._random = random.Random(0)

    def on_row(self, row: Row) -> None:
        if 0 < row["round"] < self.rounds and row["round"] % self.every == 0:
            os.kill(self._random.choice(client_actors()), signal.SIGKILL)
            self.kills += 1


def client_actors() -> list[int]:
    """Process ids of the client actors that are alive; waits until there is one."""
    while not (found := titled("ClientActor")):
        time.sleep(0.05)  # the only actor is restarting
    return found


def titled(actor: str) -> list[int]:
    """Process ids of this process's actors of a class, idle or busy."""
    pattern = re.compile(rf"ray::{actor}(\.\w+)?")
    return [pid for pid in sorted(descendants(os.getpid())) if pattern.fullmatch(_title(pid))]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").decode()
    except OSError:  # it has ended in the meantime
        return ""


def federation(actors: int, snapshot_every: int, quick: bool) -> Experiment:
    """An experiment whose rounds last long enough for an actor to restart before the next kill."""
    return Experiment().changed(
        **{
            "task.name": "digits",
            "federation.num_clients": 100,
            "federation.clients_per_round": 100,
            "federation.rounds": 20 if quick else 100,
            "federation.partition": "iid",
            "method.num_perturbations": 80,
            "method.lr": 1e-3,
            "eval.every": 1000,
            "resources.max_actors": actors,
            "resources.snapshot_every": snapshot_every,
        }
    )


def kills(quick: bool) -> None:
    """The first table; one cluster for all its runs."""
    print("| actors | snapshots | undisturbed | with kills | kills | lost per kill | faults |")
    print("|---|---|---|---|---|---|---|", flush=True)
    digests, table = set(), sys.stdout
    every = 10 if quick else 25
    # Ray reports every killed process on stdout.
    with redirect_stdout(sys.stderr), joined_cluster(), tempfile.TemporaryDirectory() as name:
        for actors in (2, 1):
            for snapshot_every in (0, every - 1):
                e = federation(actors, snapshot_every, quick)
                folder = Path(name) / f"{actors}-{snapshot_every}"
                killer = Killer(every, e.federation.rounds)
                quiet = run(e, folder / "undisturbed")
                hurt = run(e, folder / "kills", killer.on_row)
                digests |= {quiet["model_sha256"], hurt["model_sha256"]}
                assert len(digests) == 1, "a kill has changed the weights"
                assert hurt["faults"] >= killer.kills, (hurt["faults"], killer.kills)
                line = kills_line(actors, snapshot_every, killer.kills, quiet, hurt)
                print(line, file=table, flush=True)
    print("\nevery run ended with the same model_sha256\n", flush=True)


def kills_line(
    actors: int, every: int, kills: int, quiet: Mapping[str, Any], hurt: Mapping[str, Any]
) -> str:
    lost = (hurt["seconds"] - quiet["seconds"]) / kills
    faults = ", ".join(f"{n} {kind}" for kind, n in sorted(hurt["faults_by_kind"].items()))
    return (
        f"| {actors} | {f'every {every} rounds' if every else 'none'} | {quiet['seconds']:.1f} s "
        f"| {hurt['seconds']:.1f} s | {kills} | {lost:.2f} s | {faults} |"
    )


def resumes(quick: bool) -> None:
    """The second table; one run stops at each length, and is copied there."""
    print("| rounds | snapshots | records to apply | to its round | in all | ledger |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        growing, copy = Path(name) / "growing", Path(name) / "copy"
        for rounds in (9, 99, 999) if quick else (99, 999, 9_999):
            grow(growing, rounds)
            for every in (0, 500):
                found = [resume_once(growing, copy, every) for _ in range(REPETITIONS)]
                to_round, in_all = map(statistics.median, zip(*found, strict=True))
                newest = rounds // every * every if every else 0
                size = (growing / "ledger.jsonl").stat().st_size
                print(
                    f"| {rounds:,} | {f'every {every} rounds' if every else 'none'} "
                    f"| {rounds - newest:,} | {to_round:.2f} s | {in_all:.2f} s "
                    f"| {size / KIB:,.0f} KiB |",
                    flush=True,
                )


def grow(folder: Path, rounds: int) -> None:
    """Starts or resumes the run in a folder until it has this many rounds."""
    start = time.perf_counter()
    if folder.exists():
        resume(folder, changes={"federation.rounds": rounds})
    else:
        fields = {
            "task.name": "digits",
            "task.model": "mlp-8",
            "task.batch_size": 1,
            "method.lr": 1e-3,
            "federation.rounds": rounds,
            "eval.every": 100_000,
            "resources.executor": "serial",
            "resources.snapshot_every": 500,
        }
        run(Experiment().changed(**fields), folder)
    print(f"made {rounds} rounds in {time.perf_counter() - start:.1f} s", file=sys.stderr)


def resume_once(folder: Path, copy: Path, snapshot_every: int) -> tuple[float, float]:
    """Seconds to the row of one more round of a copy, and until resume returns."""
    shutil.copytree(folder, copy)
    if snapshot_every == 0:
        shutil.rmtree(copy / "snapshots", ignore_errors=True)
    more = sum(1 for _ in (copy / "ledger.jsonl").open())  # the header is a line too
    reached: list[float] = []
    start = time.perf_counter()
    resume(
        copy,
        on_round=lambda row: reached.append(time.perf_counter() - start),
        changes={"federation.rounds": more, "resources.snapshot_every": snapshot_every},
    )
    took = time.perf_counter() - start
    shutil.rmtree(copy)
    return reached[-1], took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, few kills")
    given = parser.parse_args()
    if os.environ.get("RAY_ADDRESS"):
        parser.error("unset RAY_ADDRESS: only actors that this process started are killed")
    kills(given.quick)
    resumes(given.quick)


if __name__ == "__main__":
    main()
