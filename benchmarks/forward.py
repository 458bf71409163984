"""Compares our forward pass with those of plain transformers, on real SST-2 sentences.

    python benchmarks/forward.py [MODEL ...] [--data DIR] [--tokenizer DIR] [--device cpu|cuda]
        [--dtype float32 bfloat16] [--clients 1 4] [--repeats N] [--threads 1]

A model is a folder with its weights, ``opt-1m`` or ``opt-4m``, or a published shape with random
weights (``opt-125m``, ``gemma-3-270m``, ...), which uses another model's tokenizer.

Plain: sequences are padded on the left, clients' minibatches of 16 run one after the other, and the
output head computes all logits, ``logits_to_keep=1``, or the last position made contiguous. Ours:
what a round computes for the same clients. For minibatches only forward passes are timed, since all
probes share them; for evaluation, both sides also build the batch. Losses are compared first.

- real tokens: without padding, whatever was computed.
- of the machine: operations per second of the decoder's linear layers on the real tokens, ÷ those
  of a matrix product of 2048 × 2048 × 2048 (8192 on GPUs) in the same dtype, in the same turns.
- memory: peak memory of a call beyond weights and inputs.
- ours ÷ it: medians over turns in which all ran on the same examples.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import subjects
import torch
from measuring import MIB, in_turns, peak_bytes
from plain import HEADS, Padded, Transformer

from hiso_ray import Experiment, tasks

MODELS = {"cpu": ("opt-1m", "opt-4m", "opt-125m"), "cuda": ("opt-125m", "opt-1.3b", "opt-2.7b")}
CLIENTS = {"cpu": (1, 4), "cuda": (1, 4, 8, 32)}  # in one forward pass
REPEATS = {"cpu": 6, "cuda": 30}
SIDE = {"cpu": 2048, "cuda": 8192}  # of the square matrices multiplied
TOO_MUCH = 1 << 30  # bytes beside the head's weights above which a head is not run
CLOSE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}  # losses
EXAMPLES = 4096  # of the training split
COLUMNS = ("model", "examples", "forward", "ms", "real tokens a second", "of the machine",
           "memory [MiB]", "ours ÷ it")  # fmt: skip


class Side(NamedTuple):
    """One way to compute the same losses.

    Attributes:
        run: called with a turn's number; returns losses.
        too_much: the bytes it would need, if it was left out for them.
    """

    name: str
    run: Callable[[int], Any]
    too_much: int = 0


class Bench:
    """One model in one dtype on one device, computed both ways."""

    def __init__(self, given: argparse.Namespace, model: str, dtype: str) -> None:
        fields = {
            "task.name": "sst2",
            "task.dtype": dtype,
            "task.train_examples": EXAMPLES,
        }
        self.experiment = Experiment().changed(**fields)
        self.prepared = subjects.sentences(model, self.experiment, given.data, given.tokenizer)
        self.device, self.dtype = torch.device(given.device), getattr(torch, dtype)
        resolved = tasks.resolve(self.experiment)
        self.task: Any = tasks.build(resolved, self.prepared, self.device)
        self.weights = torch.from_numpy(self.prepared.x0).to(self.device, self.dtype)
        self.plain = Transformer(self.prepared, self.weights)
        form = self.prepared.spec["forward"][0]
        self.ours = f"**ours** ({form})"
        self.title = f"{Path(model).name}, {dtype}"
        self.repeats = given.repeats or REPEATS[given.device]

    def minibatches(self, clients: int) -> Iterator[str]:
        """Rows for this many clients in a forward pass."""
        size, n = self.experiment.task.batch_size, len(self.prepared.labels)
        rng = np.random.default_rng(0)
        drawn = [
            [rng.choice(n, size, replace=False) for _ in range(clients)]
            for _ in range(self.repeats + 1)
        ]
        packed = [self.task.batch(*who) for who in drawn]
        padded = [[self.plain.batch("train", one) for one in who] for who in drawn]

        def ours(turn: int) -> np.ndarray:
            return self.task.losses(self.weights, [packed[turn]])

        def plainly(head: Any) -> Callable[[int], np.ndarray]:
            return lambda turn: self.plain.losses(padded[turn], head)

        what = f"{clients} × {size}"
        yield from self.rows(what, padded, [*self.heads(padded, plainly), Side(self.ours, ours)])

    def evaluation(self) -> Iterator[str]:
        size, n = self.experiment.task.eval_batch_size, len(self.prepared.arrays["eval_labels"])
        whole = n // size
        parts = [np.arange(i * size, (i + 1) * size) for i in range(whole)]
        padded = [[self.plain.batch("eval", parts[t % whole])] for t in range(self.repeats + 1)]

        def ours(turn: int) -> np.ndarray:
            score = self.task.score(self.weights, turn % whole)
            return score.losses.mean(keepdims=True)

        def plainly(head: Any) -> Callable[[int], np.ndarray]:
            def run(turn: int) -> np.ndarray:
                return self.plain.losses([self.plain.batch("eval", parts[turn % whole])], head)

            return run

        what = f"evaluation, {size}"
        yield from self.rows(what, padded, [*self.heads(padded, plainly), Side(self.ours, ours)])

    def heads(
        self, padded: Sequence[Sequence[Padded]], plainly: Callable[[Any], Callable[[int], Any]]
    ) -> list[Side]:
        sides = []
        for head in HEADS:
            most = max(self.plain.head_bytes(b, head) for some in padded for b in some)
            sides.append(Side(head, plainly(head), most if most > TOO_MUCH else 0))
        return sides

    def rows(
        self, what: str, padded: Sequence[Sequence[Padded]], sides: Sequence[Side]
    ) -> Iterator[str]:
        """Measures; the warm-up takes the examples of the last turn."""
        tried = [side for side in sides if not side.too_much]
        warm = [side.run(self.repeats) for side in tried]
        for side, losses in zip(tried, warm, strict=True):
            if not np.allclose(losses, warm[-1], rtol=CLOSE[self.dtype]):
                raise RuntimeError(f"{self.title}: {side.name} {losses}, ours {warm[-1]}")
        memory = [peak_bytes(lambda s=side: s.run(self.repeats), self.device) for side in tried]
        turns = [0] * (len(tried) + 1)

        def next_turn(i: int) -> Callable[[], object]:
            def run() -> None:
                turns[i] += 1
                tried[i].run(turns[i] - 1)

            return run

        product = self.product()
        product()
        runs = [*map(next_turn, range(len(tried))), product]
        *took, products = in_turns(runs, self.device, self.repeats)
        peak = 2 * SIDE[self.device.type] ** 3 / statistics.median(products)
        tokens = [sum(b.tokens for b in some) for some in padded[:-1]]
        operations = self.plain.operations_per_token()
        for side in sides:
            row = f"| {self.title} | {what} | {side.name} |"
            if side.too_much:
                yield f"{row} not run: {side.too_much / MIB:,.0f} MiB | | | | |"
                continue
            found, held = took[tried.index(side)], memory[tried.index(side)]
            rate = statistics.median(t / s for t, s in zip(tokens, found, strict=True))
            ratio = statistics.median(o / s for o, s in zip(took[-1], found, strict=True))
            shown = "" if side is tried[-1] else f"**{ratio:.2f}**"
            yield (
                f"{row} {statistics.median(found) * 1e3:,.1f} | {rate:,.0f} "
                f"| {rate * operations / peak:.0%} | {held / MIB:,.0f} | {shown} |"
            )

    def product(self) -> Callable[[], object]:
        side = SIDE[self.device.type]
        a, b = (torch.ones(side, side, dtype=self.dtype, device=self.device) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)

    def padding(self) -> str:
        """The lengths of the sentences, and what padding adds to minibatches."""
        rng, size = np.random.default_rng(0), self.experiment.task.batch_size
        lengths = np.diff(self.prepared.arrays["train_prompt_offsets"])
        some = rng.choice(lengths, (200, size))
        padded = (some.max(1) * size).sum() / some.sum()
        return f"{lengths.mean():.1f} tokens a prompt, {padded:.2f} with padding ÷ without"


def measure(given: argparse.Namespace, model: str) -> None:
    rest = "| " * (len(COLUMNS) - 2) + "|"
    if missing := subjects.absent(model, given.data, given.tokenizer):
        print(f"| {model} | not measured: {missing} is absent {rest}", flush=True)
        return
    for dtype in given.dtype:
        table(Bench(given, model, dtype), given.clients or CLIENTS[given.device], rest)


def table(bench: Bench, clients: Sequence[int], rest: str) -> None:
    """Prints a model's rows; the first describes its sentences."""
    why = bench.prepared.spec["forward"][2]
    about = bench.padding() + (f"; padded: {why}" if why else "")
    print(f"| {bench.title} | {about} {rest}", flush=True)
    for m in clients:
        for row in bench.minibatches(m):
            print(row, flush=True)
    for row in bench.evaluation():
        print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--data", type=Path, default=subjects.SST2, help="SST-2's folder")
    parser.add_argument("--tokenizer", type=Path, default=subjects.TOKENIZER, help="for shapes")
    parser.add_argument("--device", choices=tuple(MODELS), default="cpu")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16", "float16"),
                        default=["float32", "bfloat16"])  # fmt: skip
    parser.add_argument("--clients", nargs="+", type=int, help="in one forward pass")
    parser.add_argument("--repeats", type=int, help="turns (default: 6, on GPUs 30)")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    torch.set_num_threads(given.threads)
    cuda = given.device == "cuda"
    where = torch.cuda.get_device_name() if cuda else f"CPU, {given.threads} thread(s)"
    print(f"{where}, torch {torch.__version__}\n")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for model in given.models or MODELS[given.device]:
        measure(given, model)


if __name__ == "__main__":
    main()
