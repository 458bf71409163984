"""A round's time ÷ that of its forward passes, ours and plain ones, and the memory of its process.

One worker (what an actor holds) with one torch thread. Each turn times the bare forward passes of a
round as we compute them; the (P+1)·m forward passes that plain torch needs for the same minibatches
(transformers, padded, head at the last position; for digits an nn.Sequential); and a whole round:
catch-up, minibatches, directions, probes, losses.

    python benchmarks/round_cost.py [digits | opt-1m | opt-4m | opt-125m | opt-1.3b | FOLDER ...]
        [--data DIR] [--tokenizer DIR] [--length N] [--device cpu|cuda] [--dtype float32 bfloat16]
        [--clients 1 8] [--batch N] [--probe-weights whole|layer]

Text is SST-2; with ``--length``, and by default on GPUs, prompts of that many random tokens. Memory
is the peak of torch's allocator on a GPU, and the process's own on a CPU.

For digits a second table times rounds of a serial run, with driver, tables and the ledger on the
disk of ``$TMPDIR``: the time between two rows of its metrics, without evaluations.
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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import subjects
import torch
from measuring import MIB, seconds, status
from rounds import Bench, Plain, Setting

from hiso_ray import run
from hiso_ray.run_folder.metrics_reader import Row

CASES = {
    "cpu": ("digits", "opt-1m", "opt-4m", "opt-125m"),
    "cuda": ("opt-125m", "opt-1.3b", "opt-2.7b"),
}
ROUNDS = {
    "cpu": {"digits": 60, "opt-1m": 8, "opt-4m": 6},
    "cuda": {"digits": 60, "opt-125m": 10, "opt-1.3b": 5},
}
FEW = {"cpu": 2, "cuda": 4}  # rounds, for other models
ON_DISK = 400  # rounds in the second table of digits


def costs(settings: Sequence[Setting], rounds: int) -> None:
    """A row for each setting; they differ only in m, so they share a worker."""
    bench = Bench(settings[0].experiment(), settings[0].prepared())
    cuda, size = bench.device.type == "cuda", bench.prepared.x0.size
    own = [] if cuda else [memory_in_another_process(settings[0])] * len(settings)
    for setting in settings if cuda else ():
        bench.experiment = setting.experiment()
        bench.round()
        torch.cuda.reset_peak_memory_stats()
        bench.round()
        own.append(weighed(torch.cuda.max_memory_allocated(), size))
    plain = bench.plain()
    for setting, memory in zip(settings, own, strict=True):
        bench.experiment = setting.experiment()
        row = cost(bench, plain, rounds)
        print(f"| {setting.title} | {size:,} | {row} | {memory} |", flush=True)


def cost(bench: Bench, plain: Plain, rounds: int) -> str:
    bench.plain_forwards(plain, points=1)()  # warm-up
    bench.round()  # likewise; its record makes the next round catch up
    found = []
    for _ in range(rounds):
        runs = [bench.forwards(), bench.plain_forwards(plain), bench.catch_up, bench.turns]
        found.append([seconds(some, bench.device) for some in runs])
    own, plainly, replay, turns = np.array(found).T
    whole, middle = replay + turns, statistics.median
    passes = middle(whole) - middle(own) - middle(replay)
    return (
        f"{middle(own) * 1e3:,.1f} ms | {middle(plainly) * 1e3:,.1f} ms "
        f"| {middle(whole) * 1e3:,.1f} ms | **{middle(whole / own):.2f}** "
        f"| **{middle(whole / plainly):.2f}** | {passes * 1e3:,.1f} ms "
        f"| {middle(replay) * 1e3:,.1f} ms"
    )


def on_disk(rounds: int) -> None:
    """A serial run of digits; after each of its rounds, the forward passes of plain torch. Both in
    wall-clock time, since a round waits for the disk."""
    bench = Bench(Setting("digits", "cpu").experiment(), Setting("digits", "cpu").prepared())
    forwards = bench.plain_forwards(bench.plain())
    plainly, whole, left = [], [], [time.perf_counter()]

    def on_row(row: Row) -> None:
        entered = time.perf_counter()
        forwards()
        if row["eval_loss"] is None and row["round"] > 5:  # after warm-up
            whole.append(entered - left[0])
            plainly.append(time.perf_counter() - entered)
        left[0] = time.perf_counter()

    fields = {"resources.executor": "serial", "federation.rounds": rounds, "eval.every": rounds}
    with tempfile.TemporaryDirectory() as name:
        run(bench.experiment.changed(**fields), Path(name) / "run", on_row)
    ratio = statistics.median(w / p for w, p in zip(whole, plainly, strict=True))
    print(
        "\n| digits, 8 clients, serial, ledger on disk | 48 forwards of plain torch | a round "
        f"| ÷ |\n|---|---|---|---|\n| medians of {len(whole)} rounds "
        f"| {statistics.median(plainly) * 1e3:.2f} ms | {statistics.median(whole) * 1e3:.2f} ms "
        f"| **{ratio:.2f}** |\n"
    )


def weighed(size: int, dimension: int) -> str:
    """Bytes in MiB and as a multiple of the weights."""
    return (
        "below 1 MiB" if size < MIB else f"{size / MIB:,.0f} MiB ({size / (4 * dimension):.1f} ×)"
    )


def memory_in_another_process(setting: Setting) -> str:
    """A worker's memory, measured in a fresh process."""
    options = [
        f"--{field.name.replace('_', '-')}={getattr(setting, field.name)}"
        for field in dataclasses.fields(setting)
        if field.name not in ("model", "clients") and getattr(setting, field.name) is not None
    ]
    command = [sys.executable, __file__, "--memory-of", setting.model, *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def memory(setting: Setting) -> None:
    """Prints the peak of a worker's own memory over two rounds, in MiB and relative to the weights.

    x_0 is in a memory-mapped file, which is shared, as it is in Ray's object store.
    """
    from hiso_ray.method.philox import compiled  # noqa: F401 - numba is a library, as torch is

    prepared = setting.prepared()
    with tempfile.NamedTemporaryFile() as file:
        prepared.x0.tofile(file.name)
        prepared = dataclasses.replace(prepared, x0=np.memmap(file.name, np.float32, "r"))
        gc.collect()
        before, peak, stop = status("RssAnon"), [0], threading.Event()

        def watch() -> None:
            while not stop.wait(0.01):
                peak[0] = max(peak[0], status("RssAnon"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        bench = Bench(setting.experiment(), prepared)
        for _ in range(2):
            bench.round()
        stop.set()
        peak[0] = max(peak[0], status("RssAnon"))  # small rounds end before the first sample
        watcher.join()
    print(weighed(peak[0] - before, prepared.x0.size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="digits|MODEL")
    parser.add_argument("--device", choices=tuple(CASES), default="cpu")
    parser.add_argument("--data", type=Path, default=subjects.SST2, help="SST-2's folder")
    parser.add_argument("--tokenizer", type=Path, default=subjects.TOKENIZER, help="for shapes")
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--clients", nargs="+", type=int, default=[8], help="m, of a round")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, help="random tokens of a prompt")
    parser.add_argument("--probe-weights", choices=("whole", "layer"), default="whole")
    parser.add_argument("--rounds", type=int, help="rounds to time (default: by case)")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = ("data", "tokenizer", "batch", "length", "probe_weights")
    size = {name: getattr(given, name) for name in names}
    if given.device == "cuda" and given.length is None:
        size["length"] = 32
    if given.memory_of:  # more clients add no memory
        return memory(Setting(given.memory_of, "cpu", dtype=given.dtype[0], clients=1, **size))
    print(
        "| model | d | forwards | plain forwards | round | ÷ forwards | ÷ plain | probes | replay "
        "| own memory (÷ weights) |\n" + "|---" * 10 + "|"
    )
    for model in given.cases or CASES[given.device]:
        if missing := Setting(model, given.device, **size).absent:
            print(f"| {model} | not measured: {missing} is absent |")
            continue
        rounds = given.rounds or ROUNDS[given.device].get(model, FEW[given.device])
        for dtype in given.dtype:
            settings = [
                Setting(model, given.device, dtype=dtype, clients=m, **size) for m in given.clients
            ]
            costs(settings, rounds)
    if "digits" in (given.cases or CASES[given.device]):
        on_disk(ON_DISK)


if __name__ == "__main__":
    main()
