"""Checks that kills change no result: runs of several methods are repeatedly sent SIGKILL.

    python benchmarks/chaos.py [--kills 1000]

Three kinds of victim, at random moments from a seed: the process of a serial run, at any
instruction, even during a write (most of the kills; each process is forked from one that has done
all imports, and `resume` continues in the next); a client actor of a run on Ray; the driver actor.
Actors are killed some rounds apart. Each run must end with the model_sha256 and the rows (except
times and bytes between processes) of the undisturbed run. Exits with 1 if one does not.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from recovery import titled

from hiso_ray import Experiment, resume, run
from hiso_ray.execution.cluster.session import joined_cluster
from hiso_ray.run_folder.metrics_reader import Row, read_rows
from hiso_ray.run_folder.summary import read_summary

METHODS: dict[str, dict[str, Any]] = {
    "hiso": {"method.name": "hiso", "federation.local_steps": 2, "resources.snapshot_every": 7},
    "hiso, one number for H": {"method.name": "hiso", "method.curvature": "scalar"},
    "decomfl, momentum": {"method.name": "decomfl", "method.momentum": 0.5},
    "hizoo": {"method.name": "hizoo", "resources.snapshot_every": 10},
    "fedkseed": {"method.name": "fedkseed", "method.seed_pool": 64},
    "decomfl, private": {
        "method.name": "decomfl", "privacy.clip": 1.0, "privacy.noise": 1.0, "privacy.delta": 1e-3,
    },
    "fedadam": {"method.name": "fedadam", "method.lr": 0.1, "resources.snapshot_every": 5},
}  # fmt: skip
ON_RAY = ("hiso", "decomfl, momentum", "fedadam")
PAUSE = (0.0, 0.35)  # before a process is killed [s]
ROUNDS = 60  # at most, between kills of actors


def experiment(method: str, **dotted: Any) -> Experiment:
    """Digits, 12 clients, 4 a round."""
    base = {
        "task.name": "digits", "task.model": "mlp-8", "federation.num_clients": 12,
        "federation.clients_per_round": 4, "method.lr": 0.02, "method.num_perturbations": 3,
        "resources.executor": "serial", "eval.every": 5,
    }  # fmt: skip
    values = METHODS[method]
    if values["method.name"] == "fedadam":
        del base["method.num_perturbations"]
    if values["method.name"] in ("hizoo", "fedkseed"):
        base["method.num_perturbations"] = 1
    return Experiment().changed(**(base | values | dotted))


def outcome(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """What a kill must not change."""
    summary = read_summary(folder)
    assert summary is not None, f"{folder} has no summary"
    rows = [
        {name: value for name, value in row.items() if name not in ("seconds", "ray_bytes")}
        for row in read_rows(folder / "metrics.csv")
    ]
    return summary["model_sha256"], rows


def go_on(e: Experiment, folder: Path) -> None:
    if (folder / "ledger.jsonl").exists():
        resume(folder)
    else:
        run(e, folder)


def processes(e: Experiment, folder: Path, kills: int, rng: random.Random) -> int:
    """Kills the process of a serial run ``kills`` times, or until the run ends."""
    done = 0
    while read_summary(folder) is None:
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                go_on(e, folder)
                os._exit(0)
            os._exit(1)
        if done < kills:
            time.sleep(rng.uniform(*PAUSE))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            done += 1
        elif status != 0:
            raise RuntimeError(f"{folder}: a resumed run has failed")
    return done


def actors(e: Experiment, folder: Path, kills: Counter[str], rng: random.Random) -> Counter[str]:
    """Kills actors of a run on Ray: the given number of each kind, or until the run ends."""
    left, over, rounds = kills.copy(), threading.Event(), [0]

    def count(row: Row) -> None:
        rounds[0] = row["round"]

    def kill() -> None:
        due = 0
        while not over.is_set() and left.total():
            if rounds[0] < due:
                over.wait(0.01)
                continue
            due = rounds[0] + rng.randint(1, ROUNDS)
            over.wait(rng.uniform(0.0, 0.5))
            kind = rng.choice(sorted(left.elements()))
            victims = titled("ClientActor" if kind == "client actor" else "DriverActor")
            if victims:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(victims), signal.SIGKILL)
                    left[kind] -= 1

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        run(e, folder, count)
    finally:
        over.set()
        killer.join()
    return kills - left


def rounds_of(kills: int, each: float) -> int:
    """How many rounds leave time for this many kills."""
    return max(40, int(kills * each))


def chaos(kills: int, folder: Path) -> Iterator[tuple[str, str, int, bool]]:
    """(method, victims, kills, whether results are unchanged) for each run."""
    rng = random.Random(0)
    serial = kills * 8 // 10 // len(METHODS) + 1
    for number, method in enumerate(METHODS):
        e = experiment(method, **{"federation.rounds": rounds_of(serial, 4)})
        run(e, folder / f"{number}")
        found = processes(e, folder / f"{number}-killed", serial, rng)
        same = outcome(folder / f"{number}") == outcome(folder / f"{number}-killed")
        yield method, "process", found, same
    left = kills - serial * len(METHODS)
    with redirect_stdout(sys.stderr), joined_cluster():  # Ray reports every killed process there
        for number, method in enumerate(ON_RAY):
            share = left // len(ON_RAY) + 1
            asked = Counter({"client actor": share * 3 // 4 + 1, "driver actor": share // 4})
            dotted = {"federation.rounds": ROUNDS * share, "resources.tries": 20}
            e = experiment(method, **dotted)
            run(e, folder / f"ray-{number}")
            pair = {"resources.executor": "ray", "resources.max_actors": 2}
            hurt = folder / f"ray-{number}-killed"
            killed = actors(experiment(method, **dotted, **pair), hurt, asked, rng)
            same = outcome(folder / f"ray-{number}") == outcome(hurt)
            for kind, count in killed.items():
                yield method, kind, count, same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000, help="about so many in all")
    given = parser.parse_args()
    table, total, changed = sys.stdout, 0, 0
    print("| method | victim | kills | result |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for method, kind, count, same in chaos(given.kills, Path(name)):
            total, changed = total + count, changed + (not same)
            said = "the same" if same else "CHANGED"
            print(f"| {method} | {kind} | {count} | {said} |", file=table, flush=True)
    print(f"\n{total} kills, {changed} results changed", file=table)
    return int(changed > 0)


if __name__ == "__main__":
    sys.exit(main())
