"""A round's time ÷ the bare forward passes it contains, and the memory of the process that runs it.

One worker (what an actor holds) with one torch thread; forwards and rounds alternate, so that both
meet the same machine. A round is everything: catch-up, minibatches, directions, probes, losses.

    python benchmarks/round_cost.py [digits | opt-1m | opt-125m | opt-1.3b | opt-2.7b ...]
        [--device cpu|cuda] [--dtype float32 bfloat16] [--clients 1 8] [--batch N] [--length N]
        [--probe-weights whole|layer]

On a GPU memory is the most that torch's allocator held, on a CPU the process's own.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiso_ray import Experiment, tasks
from hiso_ray.client import take_turns
from hiso_ray.execution.combine import combine, mean_loss, received
from hiso_ray.execution.worker import Worker
from hiso_ray.messages import Missed
from hiso_ray.record import Record
from hiso_ray.sampling import cohort, minibatch
from hiso_ray.seeds import step_seeds
from hiso_ray.tasks.contract import Layout, Prepared, dimension
from hiso_ray.tasks.partition import split

OPT_1M = Path(__file__).resolve().parents[2] / "shared" / "models" / "opt-imdb-1m"
SHAPES = ("opt-125m", "opt-1.3b", "opt-2.7b")  # of the published models
CASES = {"cpu": ("digits", "opt-1m", "opt-125m"), "cuda": SHAPES}
ROUNDS = {
    "cpu": {"digits": 60, "opt-1m": 8} | dict.fromkeys(SHAPES, 2),
    "cuda": {"digits": 60, "opt-1m": 20, "opt-125m": 10, "opt-1.3b": 5, "opt-2.7b": 4},
}
CLIENTS = 40  # of the federation
DRAWN = 1 << 26  # random weights drawn; longer vectors repeat them, since 10 GiB take a while
MIB = 2**20


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        clients: m, of a round.
        batch: examples of a minibatch.
        length: tokens of a prompt.
        probe_weights: whole, or by layer.
    """

    model: str
    device: str
    dtype: str = "float32"
    clients: int = 8
    batch: int = 16
    length: int = 32
    probe_weights: str = "whole"

    @property
    def title(self) -> str:
        """The model, and how this differs from the default."""
        usual = Setting(self.model, self.device)
        words = {
            "dtype": self.dtype,
            "clients": f"m = {self.clients}",
            "batch": f"batch {self.batch}",
            "length": f"{self.length} tokens",
            "probe_weights": "by layer",
        }
        return ", ".join(
            [self.model, *(w for f, w in words.items() if getattr(self, f) != getattr(usual, f))]
        )


def experiment_of(setting: Setting) -> Experiment:
    language = {"task.name": "sst2", "task.max_length": setting.length}
    fields = {
        "federation.num_clients": CLIENTS,
        "federation.clients_per_round": setting.clients,
        "federation.partition": "iid",
        "federation.min_examples": setting.batch,
        "task.batch_size": setting.batch,
        "task.dtype": setting.dtype,
        "resources.probe_weights": setting.probe_weights,
        "resources.gpus_per_client": 1.0 if setting.device == "cuda" else 0,
        **({"task.name": "digits"} if setting.model == "digits" else language),
    }
    return tasks.resolve(Experiment().changed(**fields))  # P = 5, τ = 1


def prepared_for(setting: Setting) -> Prepared:
    """Of these only model, batch and length matter."""
    if setting.model == "digits":
        return tasks.prepare(experiment_of(setting))
    from hiso_ray.tasks.known_models import KNOWN
    from hiso_ray.tasks.pretrained import configuration

    small = setting.model == "opt-1m"
    config = configuration(str(OPT_1M)) if small else KNOWN[f"facebook/{setting.model}"]
    return random_text(config, CLIENTS * setting.batch, setting.length)


def random_text(config: dict[str, Any], n: int, length: int) -> Prepared:
    """n prompts of exactly so many random tokens for a model with random weights of this shape."""
    from hiso_ray.tasks.pretrained import skeleton

    rng = np.random.default_rng(0)
    with torch.device("meta"):
        model = skeleton(config)
    layout: Layout = tuple((n, tuple(p.shape)) for n, p in model.named_parameters())
    labels = rng.integers(0, 2, n)
    arrays = {
        f"{part}_{name}": value
        for part in ("train", "eval")
        for name, value in (
            ("prompt_ids", rng.integers(5, config["vocab_size"], length * n).astype(np.int32)),
            ("prompt_offsets", np.arange(0, length * n + 1, length)),
            ("labels", labels),
        )
    }
    x0 = np.empty(dimension(layout), np.float32)
    drawn = rng.standard_normal(min(DRAWN, len(x0)), dtype=np.float32) * np.float32(0.02)
    for i in range(0, len(x0), DRAWN):
        x0[i : i + DRAWN] = drawn[: len(x0) - i]
    spec = {"model": config, "layout": layout, "dense": layout, "answers": [7, 9]}
    return Prepared(spec, arrays, x0, labels, ("no", "yes"))


class Bench:
    """One worker in the middle of a run.

    Attributes:
        experiment: its cohort's size may change between rounds.
    """

    def __init__(self, experiment: Experiment, prepared: Prepared) -> None:
        self.experiment = experiment
        self.partition = split(experiment.federation, prepared.labels, 0)
        self.worker = Worker(experiment, prepared, self.partition)
        self.records: list[Record] = []

    def cohort(self) -> np.ndarray:
        sizes = np.diff(self.partition.offsets)
        return cohort(0, len(self.records), self.experiment.federation, sizes)

    def seconds(self, what: Callable[[], None]) -> float:
        """How long it takes, all that was sent to the device included and nothing from before."""
        self.synchronize()
        start = time.perf_counter()
        what()
        self.synchronize()
        return time.perf_counter() - start

    def synchronize(self) -> None:
        if self.worker.replica.device.type == "cuda":
            torch.cuda.synchronize()

    def forwards(self) -> float:
        """Seconds of the next round's (P+1)·m losses alone, all at the same weights."""
        replica, size = self.worker.replica, self.experiment.task.batch_size
        examples = [
            minibatch(0, len(self.records), int(c), 0, self.partition.of(int(c)), size)
            for c in self.cohort()
        ]
        batches = [replica.task.batch(e) for e in examples]
        weights = replica.forward_weights()

        def all_losses() -> None:
            for _ in range(self.experiment.method.num_perturbations + 1):
                replica.task.losses(weights, batches)

        return self.seconds(all_losses)

    def round(self) -> tuple[float, float]:
        """Seconds of a whole round, and of its catch-up."""
        missed = Missed(len(self.records), self.records[-1:])
        caught_up = self.seconds(lambda: self.worker.catch_up(missed))
        return caught_up + self.seconds(self.turns), caught_up

    def turns(self) -> None:
        method, r = self.experiment.method, len(self.records)
        clients, seeds = self.cohort(), step_seeds(0, r, 1)
        turns = take_turns(self.worker.replica, self.partition, clients.tolist(), seeds)
        sizes = np.diff(self.partition.offsets)[clients]
        scalars = combine(self.experiment, r, received(self.experiment, r, turns), sizes)
        members, means = tuple(map(int, clients)), tuple(map(float, scalars[0, :, 0]))
        eps, loss = method.hessian_eps, mean_loss(turns)
        self.records.append(Record(r, members, seeds, (means,), 1e-6, method.mu, 0.95, eps, loss))


def costs(settings: Sequence[Setting], prepared: Prepared, rounds: int) -> None:
    """A row for each setting; they differ in m only, so one worker serves them."""
    bench = Bench(experiment_of(settings[0]), prepared)
    own = "" if settings[0].device == "cuda" else memory_in_another_process(settings[0])
    for setting in settings:
        bench.experiment = experiment_of(setting)
        if setting.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        row = cost(bench, rounds)
        if setting.device == "cuda":
            own = weighed(torch.cuda.max_memory_allocated(), prepared.x0.size)
        print(f"| {setting.title} | {prepared.x0.size:,} | {row} | {own} |", flush=True)


def cost(bench: Bench, rounds: int) -> str:
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
    return (
        f"{middle(forwards) * 1e3:,.1f} ms | {middle(totals) * 1e3:,.1f} ms | "
        f"**{middle(ratios):.2f}** | {passes * 1e3:,.1f} ms | {middle(replays) * 1e3:,.1f} ms"
    )


def weighed(size: int, dimension: int) -> str:
    """Bytes in MiB and in weights."""
    return (
        "below 1 MiB" if size < MIB else f"{size / MIB:,.0f} MiB ({size / (4 * dimension):.1f} ×)"
    )


def memory_in_another_process(setting: Setting) -> str:
    """A worker's memory, from a process that has held nothing else."""
    names = ("dtype", "batch", "length", "probe_weights")
    options = [f"--{name.replace('_', '-')}={getattr(setting, name)}" for name in names]
    command = [sys.executable, __file__, "--memory-of", setting.model, *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def memory(setting: Setting) -> None:
    """Prints the peak of a worker's own memory over two rounds, in weights and MiB.

    x_0 lies in a memory-mapped file, as it lies in Ray's object store: shared, not the worker's.
    """
    from hiso_ray.method.philox import compiled  # noqa: F401 - numba is a library, as torch is

    prepared = prepared_for(setting)
    with tempfile.NamedTemporaryFile() as file:
        prepared.x0.tofile(file.name)
        prepared = dataclasses.replace(prepared, x0=np.memmap(file.name, np.float32, "r"))
        gc.collect()
        before, peak, stop = private(), [0], threading.Event()

        def watch() -> None:
            while not stop.wait(0.01):
                peak[0] = max(peak[0], private())

        watcher = threading.Thread(target=watch)
        watcher.start()
        bench = Bench(experiment_of(setting), prepared)
        for _ in range(2):
            bench.round()
        stop.set()
        peak[0] = max(peak[0], private())  # small rounds end before anybody looks
        watcher.join()
    print(weighed(peak[0] - before, prepared.x0.size))


def private() -> int:
    """Anonymous resident memory of this process [bytes]."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status: Linux is needed here")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = tuple(ROUNDS["cpu"])
    parser.add_argument("cases", nargs="*", metavar="|".join(known))
    parser.add_argument("--device", choices=tuple(CASES), default="cpu")
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--clients", nargs="+", type=int, default=[8], help="m, of a round")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=32, help="tokens of a prompt")
    parser.add_argument("--probe-weights", choices=("whole", "layer"), default="whole")
    parser.add_argument("--rounds", type=int, help="rounds to time (default: by case)")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.cases) - set(known):
        parser.error(f"unknown: {', '.join(unknown)} (allowed: {', '.join(known)})")
    torch.set_num_threads(1)
    size = {name: getattr(given, name) for name in ("batch", "length", "probe_weights")}
    if given.memory_of:  # more clients add no memory
        return memory(Setting(given.memory_of, "cpu", given.dtype[0], 1, **size))
    print(
        "| model | d | forwards | round | round ÷ forwards | probes | replay "
        "| own memory (÷ weights) |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for model in given.cases or CASES[given.device]:
        if model == "opt-1m" and not OPT_1M.is_dir():
            print(f"| {model} | not measured: {OPT_1M} is absent |")
            continue
        prepared = prepared_for(Setting(model, given.device, **size))
        rounds = given.rounds or ROUNDS[given.device][model]
        for dtype in given.dtype:
            settings = [Setting(model, given.device, dtype, m, **size) for m in given.clients]
            costs(settings, prepared, rounds)


if __name__ == "__main__":
    main()
