"""What a round costs besides computing: many clients, many turns.

Rounds of a real federation for 10 … 1 000 clients at a fixed cohort (serial, digits), relative to
the smallest; and on Ray with turns that do nothing, 500 client turns a round on 2 actors.

    python benchmarks/driver_overhead.py
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hiso_ray import Experiment, run, tasks
from hiso_ray.federation.attendance import Population
from hiso_ray.messages import Description, Missed, Score, Turn
from hiso_ray.run_folder.metrics_reader import Row
from hiso_ray.server.work_units import Unit
from hiso_ray.tasks.contract import Count


class Idle:
    """A worker whose turns do nothing."""

    def catch_up(self, missed: Missed) -> None:
        return None

    def turns(self, units: Sequence[Unit], seeds: Sequence[int]) -> list[list[Turn]]:
        return [[Turn(c, np.zeros(1), bytes(4 * 5)) for c in unit] for unit in units]

    def scores(self, batches: Sequence[int]) -> list[Score]:
        zero, one = np.zeros(1, np.float32), np.ones(1, np.int32)
        return [Score(zero, one, {"accuracy": zero}) for _ in batches]

    def statistics(self) -> dict[str, float]:
        return {}

    def digest(self) -> str:
        return ""


def milliseconds_per_round(rows: list[Row]) -> float:
    """Median over the rounds without evaluation."""
    quiet = [
        (b["seconds"] - a["seconds"]) * 1e3
        for a, b in itertools.pairwise(rows)
        if b["eval_loss"] is None
    ]
    return statistics.median(quiet)


def flat_in_clients() -> None:
    print("| clients | ms per round | ÷ 10 clients |\n|---|---|---|")
    samples: dict[int, list[float]] = {n: [] for n in (10, 100, 1000)}
    for _ in range(3):  # interleaved, so that all sizes see the same load
        for n in samples:
            rows: list[Row] = []
            e = Experiment().changed(
                **{
                    "task.name": "digits",
                    "federation.num_clients": n,
                    "federation.partition": "iid",
                    "task.batch_size": 1,  # 1 000 clients hold one or two images each
                    "federation.rounds": 200,
                    "eval.every": 200,
                    "resources.executor": "serial",
                }
            )
            run(e, tempfile.mkdtemp(), rows.append)
            samples[n].append(milliseconds_per_round(rows))
    for n, found in samples.items():
        ratio = statistics.median(found) / statistics.median(samples[10])
        print(f"| {n} | {statistics.median(found):.2f} | {ratio:.2f} |", flush=True)


def idle_turns() -> None:
    from hiso_ray.execution.cluster.cause_of_death import Process
    from hiso_ray.execution.cluster.client_actor import ClientActor
    from hiso_ray.execution.cluster.executor import ClusterExecutor
    from hiso_ray.execution.cluster.reservation import reserved
    from hiso_ray.execution.cluster.session import joined_cluster, ray
    from hiso_ray.execution.cluster.shared import SharedTask
    from hiso_ray.execution.contract import Job
    from hiso_ray.execution.driver import run_rounds
    from hiso_ray.run_folder.faults import Faults

    class IdleActor(ClientActor):
        def __init__(self, experiment: Experiment, *shared: Any) -> None:
            self.worker: Any = Idle()
            self.born = time.time_ns()

        def describe(self) -> tuple[Description, int, Process]:
            nothing = Description("cpu", "none", 1, {}, 1, 0, 1, False)
            return nothing, self.born, Process.here()

    print("\n| client turns | actors | ms per round | µs per turn |\n|---|---|---|---|")
    for turns in (8, 500):
        fields = {
            "federation.num_clients": turns,
            "federation.clients_per_round": turns,
            "federation.rounds": 200,
            "eval.every": 200,
            "resources.max_actors": 2,
        }
        e = tasks.resolve(Experiment().changed(**fields))
        folder, rows = Path(tempfile.mkdtemp()), []
        with joined_cluster(), reserved(e, Count(1, 0, 1), print) as reservation:
            nothing = ray.put(None)
            shared = (SharedTask(nothing, {}, nothing), nothing)
            executor = ClusterExecutor(e, reservation, shared, Faults(folder, print), IdleActor)
            population = Population(np.ones(turns, np.int64), None)
            run_rounds(Job(e, folder, {}, population, ""), executor, rows.append, print)
        ms = milliseconds_per_round(rows)
        print(f"| {turns} | {executor.actors} | {ms:.1f} | {ms / turns * 1e3:.0f} |", flush=True)


if __name__ == "__main__":
    flat_in_clients()
    idle_turns()
