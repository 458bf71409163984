"""The cost of growing federations: more clients at a fixed cohort, and larger cohorts.

Every row is a run on Ray with its clients packed on 2 actors, in a process and a cluster of its
own, so that memory is measured per run. Runs of different sizes alternate, and a row gives medians
over the repetitions. Clients do the same work at every size: a batch is no larger than the smallest
client's data.

    python benchmarks/scale.py [--quick] [--only quadratic|digits|opt] [--repetitions N]

- turn: a round's time ÷ cohort; the median over rounds, none of which holds an evaluation.
- driver: the part of a turn in which the driver does not wait for actors: all that its thread does
  outside ``ray.wait`` (sampling, messages, averaging, the ledger's fsync, metrics).
- memory: peak PSS of the run's process and all its descendants (Ray's servers, driver, actors),
  sampled a few times a second from start to end.
- object store: bytes in use at the last round, as the raylet counts them.
- first round: from calling ``run`` to the row of round 1, Ray's start included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from hiso_ray import Experiment, run
from hiso_ray.execution.cluster import driver_actor, session
from hiso_ray.execution.cluster.executor import ClusterExecutor
from hiso_ray.execution.contract import Job
from hiso_ray.run_folder.metrics_reader import Row

ray = session.ray  # hiso_ray imports it first, to set where Ray's servers listen
SHARED = Path(__file__).resolve().parents[2] / "shared"
OPT_1M, SST2 = SHARED / "models" / "opt-imdb-1m", SHARED / "data" / "sst2"
MIB = 2**20
SAMPLE_SECONDS = 0.4
WARM_UP = 2  # rounds
TITLES = ("clients", "cohort", "turn [ms]", "÷ first row", "driver [ms a turn]", "memory [MiB]",
          "more than first row [MiB]", "object store [bytes]", "ledger [bytes a round]",
          "first round [s]")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A task whose federation grows.

    Attributes:
        fields: fields of the experiment.
        clients: numbers of clients, at a cohort of 8.
        cohorts: sizes of cohorts, at 1 000 clients; the first is 8.
        rounds: rounds at a cohort of 8; larger cohorts have the same number of turns.
    """

    fields: dict[str, Any]
    clients: tuple[int, ...]
    cohorts: tuple[int, ...]
    rounds: int


CASES = {
    "quadratic": Case(
        {
            "task.name": "quadratic",
            "task.model": "diagonal-4096",
            "task.batch_size": 1,
            "method.lr": 1e-5,
        },
        (10, 100, 1_000, 10_000),
        (),
        1_500,
    ),
    "digits": Case(
        {"task.name": "digits", "task.batch_size": 1, "method.lr": 1e-3},
        (10, 100, 1_000),
        (8, 32, 128),
        600,
    ),
    "opt": Case(
        {
            "task.name": "sst2",
            "task.model": str(OPT_1M),
            "task.data": str(SST2),
            "task.max_length": 32,
            "task.batch_size": 4,
            "task.eval_examples": 64,
            "method.lr": 1e-5,
        },
        (10, 100, 1_000),
        (8, 32, 128),
        40,
    ),
}


@dataclass(frozen=True)
class Point:
    """One run to be measured."""

    case: str
    clients: int
    cohort: int
    rounds: int

    def experiment(self) -> Experiment:
        return Experiment().changed(
            **{
                "federation.num_clients": self.clients,
                "federation.clients_per_round": self.cohort,
                "federation.partition": "iid",
                "federation.rounds": self.rounds,
                "eval.every": self.rounds,  # before the first round and after the last
                "resources.max_actors": 2,
                "resources.snapshot_every": 0,
                **CASES[self.case].fields,
            }
        )


@dataclass(frozen=True)
class Costs:
    """What a run cost; see the module's docstring."""

    turn_ms: float
    driver_ms: float
    first_seconds: float
    store_bytes: float
    ledger_bytes: float
    memory_mib: float = 0.0


class Clock:
    """Marks the start of each round, and the time spent in ``ray.wait`` until then."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []
        self._waited, self._wait = 0.0, ray.wait
        ray.wait = self._timed_wait

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), self._waited))

    def _timed_wait(self, *arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return self._wait(*arguments, **named)
        finally:
            self._waited += time.perf_counter() - start


class TimedExecutor(ClusterExecutor):
    clock: ClassVar[Clock]

    def turns(self, *arguments: Any) -> Any:
        self.clock.mark()
        return super().turns(*arguments)


class TimedDriver(driver_actor.DriverActor):
    """Writes ``marks.json`` beside the run folder."""

    async def run(self, job: Job, *rest: Any) -> Any:
        TimedExecutor.clock = Clock()
        driver_actor.ClusterExecutor = TimedExecutor
        result = await super().run(job, *rest)
        (job.folder.parent / "marks.json").write_text(json.dumps(TimedExecutor.clock.marks))
        return result


def run_one(point: Point, folder: Path) -> None:
    """One run in this process; writes ``costs.json`` into the folder."""
    session.DriverActor = TimedDriver
    found: dict[str, float] = {}

    def on_row(row: Row) -> None:
        if row["round"] == 1:
            found["first_seconds"] = time.perf_counter() - start
        if row["round"] == point.rounds:
            found["store_bytes"] = store_bytes()

    start = time.perf_counter()
    run(point.experiment(), folder / "run", on_row)
    marks = json.loads((folder / "marks.json").read_text())[WARM_UP:]
    whole, driver = [], []
    for (start, waited), (end, waited_then) in itertools.pairwise(marks):
        whole.append((end - start) * 1e3)
        driver.append((end - start - (waited_then - waited)) * 1e3)
    _, *records = (folder / "run" / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    costs = Costs(
        turn_ms=statistics.median(whole) / point.cohort,
        driver_ms=statistics.median(driver) / point.cohort,
        ledger_bytes=statistics.mean(map(len, records)),
        **found,
    )
    (folder / "costs.json").write_text(json.dumps(asdict(costs)))


def store_bytes() -> int:
    """Bytes in use in the object store of this process's cluster."""
    from ray._private import internal_api

    state = internal_api.get_state_from_address(ray.get_runtime_context().gcs_address)
    return internal_api.get_memory_info_reply(state).store_stats.object_store_bytes_used


def measure(point: Point) -> Costs:
    """One run in a process of its own."""
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, __file__, "--one", name, *map(str, astuple(point))]
        with subprocess.Popen(command, env=alone) as process:
            peak = 0
            while process.poll() is None:
                peak = max(peak, sum(map(proportional_bytes, descendants(process.pid))))
                time.sleep(SAMPLE_SECONDS)
        if process.returncode:
            raise RuntimeError(f"{point} failed; its words are above")
        found = json.loads((Path(name) / "costs.json").read_text())
    return replace(Costs(**found), memory_mib=peak / MIB)


def descendants(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended in the meantime
            continue
        children.setdefault(int(after_name[1]), []).append(int(path.parent.name))
    found = [root]
    for pid in found:  # grows during the loop
        found += children.get(pid, [])
    return found


def proportional_bytes(pid: int) -> int:
    """PSS: a page that k processes share counts 1/k."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def table(points: Sequence[Point], costs: dict[Point, list[Costs]], repetitions: int) -> None:
    """Measures the points in turns, and prints each row after its last repetition.

    Args:
        costs: measured so far; points in it are not measured again.
    """
    print("| " + " | ".join(TITLES) + " |\n" + "|---" * len(TITLES) + "|", flush=True)
    new = [point for point in points if point not in costs]
    for repetition in range(1, repetitions + 1):
        for point in points:
            if point in new:
                costs.setdefault(point, []).append(measure(point))
                print(f"{point}, {repetition}: {costs[point][-1]}", file=sys.stderr, flush=True)
            if repetition == repetitions:
                print(line(point, middle(costs[point]), middle(costs[points[0]])), flush=True)
    print(flush=True)


def middle(costs: Sequence[Costs]) -> Costs:
    return Costs(*map(statistics.median, zip(*map(astuple, costs), strict=True)))


def line(point: Point, costs: Costs, first: Costs) -> str:
    return (
        f"| {point.clients:,} | {point.cohort} | {costs.turn_ms:,.3f} "
        f"| {costs.turn_ms / first.turn_ms:.2f} | {costs.driver_ms:.3f} | {costs.memory_mib:,.0f} "
        f"| {costs.memory_mib - first.memory_mib:+,.0f} | {costs.store_bytes:,.0f} "
        f"| {costs.ledger_bytes:,.0f} | {costs.first_seconds:.1f} |"
    )


def grow(name: str, repetitions: int, quick: bool) -> None:
    """A case's tables."""
    if name == "opt" and not (OPT_1M.is_dir() and SST2.is_dir()):
        print(f"{name}: left out, because {OPT_1M} or {SST2} is absent\n")
        return
    case = CASES[name]
    sizes, cohorts, rounds = case.clients, case.cohorts, case.rounds
    if quick:
        sizes, cohorts, rounds = (sizes[0], sizes[-1]), cohorts[:2], min(20, rounds // 3)
    costs: dict[Point, list[Costs]] = {}
    print(f"{name}: more clients\n")
    table([Point(name, n, 8, rounds) for n in sizes], costs, repetitions)
    if cohorts:
        print(f"{name}: larger cohorts\n")
        shorter = [(m, max(WARM_UP + 5, rounds * 8 // m)) for m in cohorts]
        table([Point(name, 1_000, m, turns) for m, turns in shorter], costs, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, smallest and largest")
    parser.add_argument("--only", choices=CASES, help="one task")
    parser.add_argument("--repetitions", type=int, help="of each run (default: 3, quick 1)")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        folder, case, *numbers = given.one
        return run_one(Point(case, *map(int, numbers)), Path(folder))
    for name in [given.only] if given.only else CASES:
        grow(name, given.repetitions or (1 if given.quick else 3), given.quick)


if __name__ == "__main__":
    main()
