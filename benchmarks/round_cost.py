"""A round's time ÷ the bare forward passes it contains, and the memory of the process that runs it.

One worker (what an actor holds) with one torch thread; forwards and rounds alternate, so that both
meet the same machine. A round is everything: catch-up, minibatches, directions, probes, losses.

    python benchmarks/round_cost.py [--rounds N] [digits | opt-1m | opt-125m ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from hiso_ray import Experiment, tasks
from hiso_ray.client import take_turns
from hiso_ray.execution.combine import combine, mean_loss, received
from hiso_ray.execution.worker import Worker
from hiso_ray.ledger import Record
from hiso_ray.messages import Missed
from hiso_ray.sampling import cohort, minibatch
from hiso_ray.seeds import step_seeds
from hiso_ray.tasks.contract import Layout, Prepared, dimension
from hiso_ray.tasks.partition import Partition, split

OPT_1M = Path(__file__).resolve().parents[2] / "shared" / "models" / "opt-imdb-1m"
CASES = ("digits", "opt-1m", "opt-125m")
ROUNDS = {"digits": 60, "opt-1m": 8, "opt-125m": 2}
MIB = 2**20


def case(name: str) -> tuple[Experiment, Prepared]:
    experiment = Experiment().changed(  # batch 16, P = 5, τ = 1, m = 8
        **{
            "federation.num_clients": 40,
            "federation.partition": "iid",
            "federation.min_examples": 16,
        }
    )
    if name == "digits":
        experiment = tasks.resolve(experiment.changed(**{"task.name": "digits"}))
        return experiment, tasks.prepare(experiment)
    from transformers import AutoConfig, OPTConfig

    experiment = experiment.changed(**{"task.name": "sst2", "task.max_length": 32})
    config = AutoConfig.from_pretrained(OPT_1M) if name == "opt-1m" else OPTConfig()
    return experiment, random_text(config.to_dict())


def random_text(config: dict) -> Prepared:
    """640 prompts of exactly 32 random tokens for a model with random weights of this shape."""
    from hiso_ray.tasks.pretrained import skeleton

    rng = np.random.default_rng(0)
    model = skeleton(config)
    layout: Layout = tuple((n, tuple(p.shape)) for n, p in model.named_parameters())
    n, labels = 640, rng.integers(0, 2, 640)
    arrays = {
        f"{part}_{name}": value
        for part in ("train", "eval")
        for name, value in (
            ("prompt_ids", rng.integers(5, config["vocab_size"], 32 * n).astype(np.int32)),
            ("prompt_offsets", np.arange(0, 32 * n + 1, 32)),
            ("labels", labels),
        )
    }
    x0 = rng.standard_normal(dimension(layout), dtype=np.float32) * 0.02
    spec = {"model": config, "layout": layout, "dense": layout, "answers": [7, 9]}
    return Prepared(spec, arrays, x0, labels, ("no", "yes"))


class Bench:
    """One worker in the middle of a run."""

    def __init__(self, experiment: Experiment, prepared: Prepared, partition: Partition) -> None:
        self.experiment, self.partition = experiment, partition
        self.worker = Worker(experiment, prepared, partition)
        self.records: list[Record] = []

    def cohort(self) -> np.ndarray:
        sizes = np.diff(self.partition.offsets)
        return cohort(0, len(self.records), self.experiment.federation, sizes)

    def forwards(self) -> float:
        """Seconds of the next round's (P+1)·m losses alone, all at the same weights."""
        replica = self.worker.replica
        examples = [
            minibatch(0, len(self.records), int(c), 0, self.partition.of(int(c)), 16)
            for c in self.cohort()
        ]
        batches = [replica.task.batch(e) for e in examples]
        start = time.perf_counter()
        for _ in range(self.experiment.method.num_perturbations + 1):
            replica.task.losses(replica.state.x, batches)
        return time.perf_counter() - start

    def round(self) -> tuple[float, float]:
        """Seconds of a whole round, and of its catch-up."""
        method, r = self.experiment.method, len(self.records)
        clients, seeds = self.cohort(), step_seeds(0, r, 1)
        start = time.perf_counter()
        self.worker.catch_up(Missed(r, self.records[-1:]))
        caught_up = time.perf_counter() - start
        turns = take_turns(self.worker.replica, self.partition, clients.tolist(), seeds)
        sizes = np.diff(self.partition.offsets)[clients]
        scalars = combine(self.experiment, r, received(self.experiment, r, turns), sizes)
        took = time.perf_counter() - start
        members, means = tuple(map(int, clients)), tuple(map(float, scalars[0, :, 0]))
        eps, loss = method.hessian_eps, mean_loss(turns)
        self.records.append(Record(r, members, seeds, (means,), 1e-6, method.mu, 0.95, eps, loss))
        return took, caught_up


def cost(name: str, rounds: int) -> None:
    experiment, prepared = case(name)
    bench = Bench(experiment, prepared, split(experiment.federation, prepared.labels, 0))
    bench.round()  # warm; its record makes the next round catch up
    ratios, forwards, totals, replays = [], [], [], []
    for _ in range(rounds):
        bare = bench.forwards()
        whole, replay = bench.round()
        ratios.append(whole / bare)
        forwards.append(bare)
        totals.append(whole)
        replays.append(replay)
    middle = statistics.median
    passes = middle(totals) - middle(forwards) - middle(replays)
    memory = subprocess.run(
        [sys.executable, __file__, "--memory-of", name],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    print(
        f"| {name} | {prepared.x0.size:,} | {middle(forwards) * 1e3:,.1f} ms | "
        f"{middle(totals) * 1e3:,.1f} ms | **{middle(ratios):.2f}** | {passes * 1e3:,.1f} ms | "
        f"{middle(replays) * 1e3:,.1f} ms | {memory} |",
        flush=True,
    )


def memory(name: str) -> None:
    """Prints the peak of a worker's own memory over two rounds, in weights and MiB.

    x_0 lies in a memory-mapped file, as it lies in Ray's object store: shared, not the worker's.
    """
    experiment, prepared = case(name)
    experiment = experiment.changed(**{"federation.clients_per_round": 1})  # more add no memory
    with tempfile.NamedTemporaryFile() as file:
        prepared.x0.tofile(file.name)
        size = prepared.x0.size
        prepared = dataclasses.replace(prepared, x0=np.memmap(file.name, np.float32, "r"))
        gc.collect()
        before, peak, stop = private(), [0], threading.Event()

        def watch() -> None:
            while not stop.wait(0.01):
                peak[0] = max(peak[0], private())

        watcher = threading.Thread(target=watch)
        watcher.start()
        bench = Bench(experiment, prepared, split(experiment.federation, prepared.labels, 0))
        for _ in range(2):
            bench.round()
        stop.set()
        peak[0] = max(peak[0], private())  # small rounds end before anybody looks
        watcher.join()
    own = peak[0] - before
    print("below 1 MiB" if own < MIB else f"{own / MIB:,.0f} MiB ({own / (4 * size):.1f} ×)")


def private() -> int:
    """Anonymous resident memory of this process [bytes]."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status: Linux is needed here")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=CASES, metavar="|".join(CASES))
    parser.add_argument("--rounds", type=int, help="rounds to time (default: by case)")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory_of:
        return memory(given.memory_of)
    print(
        "| model | d | forwards | round | round ÷ forwards | probes | replay "
        "| own memory (÷ weights) |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in given.cases:
        if name == "opt-1m" and not OPT_1M.is_dir():
            print(f"| {name} | not measured: {OPT_1M} is absent |")
            continue
        cost(name, given.rounds or ROUNDS[name])


if __name__ == "__main__":
    main()
