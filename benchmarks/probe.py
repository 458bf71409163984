"""The cost of a streaming pass over the weights, compared with a plain copy of them.

    python benchmarks/probe.py [--device cpu|cuda] [--dimension D] [--profile | --tune | --check]

Times directions alone, probes and replays; the cases of a table take turns, so that all see the
same load; medians. GB/s counts what a pass has to move, not what it generates: a probe reads x (and
H) and writes out, a replay reads and writes x (and H). One torch thread.

``--profile`` (CPU) times each stage of a probe alone, on one chunk that stays in the cache.
``--tune`` (CUDA) tries launch shapes of the fused kernels.
``--check`` (CUDA) compares the results of GPU and CPU bit for bit, and exits with 1 if they differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from measuring import in_turns

from hiso_ray.method import philox, torch_stream
from hiso_ray.method.curvature import Curvature, Diagonal, Identity
from hiso_ray.method.direction import CHUNK, Directions, Generator
from hiso_ray.method.naming import Naming
from hiso_ray.method.perturbed import perturb
from hiso_ray.method.philox import Distribution
from hiso_ray.method.scalar import Rule, State, Step, apply_record

DIMENSION = {"cpu": 1 << 24, "cuda": 1_300_000_000}
REPEATS = 7
BLOCKS, WARPS = (128, 256, 512), (2, 4, 8)
CHECKED_DIMENSION = 4_300_003  # more than one of a GPU's chunks
RULE = Rule(lr=1e-6, beta=0.95, eps=1e-5)
NAME = (7, 0)


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        moved: bytes per element that it has to read and write; 0 if they stay in the cache.
    """

    what: str
    moved: int
    run: Callable[[], Any]


class Passes:
    """x, H and ``out`` of one size on one device, and the passes over them."""

    def __init__(self, dimension: int, device: torch.device) -> None:
        self.dimension, self.device = dimension, device
        rng = torch.Generator(device).manual_seed(0)
        self.x = torch.empty(dimension, device=device).normal_(generator=rng)
        self.diagonal = Diagonal(dimension, device)
        self.diagonal.h.uniform_(0.5, 1.5, generator=rng)
        self.out = torch.empty(dimension, device=device)

    def directions(
        self,
        generator: Generator = "philox",
        fused: bool | None = None,
        distribution: Distribution = "gaussian",
    ) -> Directions:
        made = Directions(self.dimension, self.device, 0, generator, distribution)
        made.fused = made.fused if fused is None else fused
        return made

    def copy(self) -> Case:
        return Case("copy", 8, lambda: self.out.copy_(self.x))

    def probe(self, *, h: bool, dtype: torch.dtype, generator: Generator, fused: bool) -> Case:
        curvature: Curvature = self.diagonal if h else Identity()
        out = self.out if dtype == torch.float32 else self.out.view(dtype)[: self.dimension]
        directions = self.directions(generator, fused)
        return Case(
            f"probe, H {_h(h)}, {str(dtype).removeprefix('torch.')}, {_made(directions)}",
            4 + 4 * h + dtype.itemsize,
            lambda: perturb(out, self.x, NAME, curvature, directions, 1e-3),
        )

    def replay(
        self,
        count: int,
        *,
        h: bool,
        generator: Generator,
        fused: bool,
        distribution: Distribution = "gaussian",
    ) -> Case:
        state = State(self.x, self.diagonal if h else Identity())
        directions = self.directions(generator, fused, distribution)
        steps = [Step(Naming(count).of(7, 0), np.linspace(-1, 1, count, dtype=np.float32))]
        return Case(
            f"replay, P = {count}, H {_h(h)}, {_made(directions)}"
            + (", rademacher" if distribution == "rademacher" else ""),
            8 + 8 * h,
            lambda: apply_record(state, directions, steps, RULE),
        )


def _h(diagonal: bool) -> str:
    return "diagonal" if diagonal else "none"


def _made(directions: Directions) -> str:
    if directions.device.type == "cpu":
        return directions.generator
    return "fused" if directions.fused else f"chunk-wise {directions.generator}"


def medians(cases: Sequence[Case], device: torch.device, repeats: int = REPEATS) -> list[float]:
    """Seconds of each case, measured in turns."""
    for case in cases:  # compiles kernels
        case.run()
    return [
        statistics.median(some) for some in in_turns([case.run for case in cases], device, repeats)
    ]


def table(cases: Sequence[Case], dimension: int, device: torch.device) -> None:
    """Prints all cases; the first is the copy that the others are compared with."""
    took = medians(cases, device)
    copied = cases[0].moved * dimension / took[0]
    print("| | ms | ns per element | bytes per element | GB/s | ÷ copy |")
    print("|---|---|---|---|---|---|")
    for case, t in zip(cases, took, strict=True):
        rate = case.moved * dimension / t
        moved = f"{case.moved} | {rate / 1e9:,.1f} | {rate / copied:.2f}" if case.moved else "| |"
        print(f"| {case.what} | {t * 1e3:,.2f} | {t / dimension * 1e9:.4f} | {moved} |")


def on_cpu(dimension: int, device: torch.device) -> None:
    passes = Passes(dimension, device)
    scratch = torch.empty(CHUNK["cpu"])
    slices = [slice(i, min(i + CHUNK["cpu"], dimension)) for i in range(0, dimension, CHUNK["cpu"])]

    def philox_alone(distribution: Distribution) -> None:
        for s in slices:
            philox.fill(scratch[: s.stop - s.start], NAME, s.start, distribution)

    def torch_alone() -> None:
        for _ in torch_stream.chunks(NAME, iter(slices), scratch):
            pass

    table(
        [
            passes.copy(),
            Case("directions alone, philox gaussian", 0, lambda: philox_alone("gaussian")),
            Case("directions alone, philox rademacher", 0, lambda: philox_alone("rademacher")),
            Case("directions alone, torch normal_", 0, torch_alone),
            *(
                passes.probe(h=h, dtype=dtype, generator=generator, fused=False)
                for generator in ("philox", "torch")
                for h in (False, True)
                for dtype in (torch.float32, torch.bfloat16)
            ),
            *(
                passes.replay(count, h=h, generator=generator, fused=False)
                for generator in ("philox", "torch")
                for count in (1, 5, 20)
                for h in (False, True)
            ),
        ],
        dimension,
        device,
    )


def on_cuda(dimension: int, device: torch.device) -> None:
    passes = Passes(dimension, device)
    table(
        [
            passes.copy(),
            Case("philox.fill, gaussian", 4, lambda: philox.fill(passes.out, NAME, 0, "gaussian")),
            *(
                passes.probe(h=h, dtype=dtype, generator="philox", fused=fused)
                for fused in (True, False)
                for h in (False, True)
                for dtype in (torch.float32, torch.bfloat16)
            ),
            *(
                passes.replay(count, h=h, generator="philox", fused=True, distribution=distribution)
                for distribution in get_args(Distribution)
                for count in (1, 5, 20)
                for h in (False, True)
            ),
            passes.replay(5, h=True, generator="philox", fused=False),
        ],
        dimension,
        device,
    )


def profile() -> None:
    """Where a probe's time goes on the CPU: each stage, repeated on one chunk."""
    device, n, again = torch.device("cpu"), CHUNK["cpu"], 50
    passes, here = Passes(n, device), slice(0, n)
    x, out, u = passes.x, passes.out, torch.empty(n).normal_()
    half = torch.empty(n, dtype=torch.bfloat16)
    rng = torch.Generator().manual_seed(0)

    def add_half() -> None:
        half[here] = torch.add(x, u, alpha=1e-3)

    stages: dict[str, Callable[[], Any]] = {
        "generation, philox gaussian": lambda: philox.fill(u, NAME, 0, "gaussian"),
        "generation, philox rademacher": lambda: philox.fill(u, NAME, 0, "rademacher"),
        "generation, torch normal_": lambda: u.normal_(generator=rng),
        "whitening (√, ÷, ·)": lambda: passes.diagonal.whiten(u, here),
        "adding, float32": lambda: torch.add(x, u, alpha=1e-3, out=out),
        "adding, bfloat16": add_half,
        **{
            f"whole: {case.what}": case.run
            for case in (
                passes.probe(h=True, dtype=dtype, generator="philox", fused=False)
                for dtype in (torch.float32, torch.bfloat16)
            )
        },
    }

    def often(stage: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(again):
                stage()

        return run

    cases = [Case(what, 0, often(stage)) for what, stage in stages.items()]
    took = dict(zip(stages, medians(cases, device), strict=True))
    whole = next(t for what, t in took.items() if what.startswith("whole"))
    print("| stage | ns per element | share of a float32 probe with H |\n|---|---|---|")
    for what, t in took.items():
        print(f"| {what} | {t / again / n * 1e9:.3f} | {t / whole:.0%} |")


def tune(dimension: int, device: torch.device) -> None:
    from hiso_ray.method import fused
    from hiso_ray.method.philox import kernels

    passes = Passes(dimension, device)
    launch: dict[str, Any] = kernels.EXACT
    (copy,) = medians([passes.copy()], device)
    cases = [
        passes.probe(h=True, dtype=torch.float32, generator="philox", fused=True),
        passes.replay(5, h=True, generator="philox", fused=True),
    ]
    print(f"copy: {copy * 1e3:.3f} ms")
    print("| BLOCKS | num_warps | probe, ms | ÷ copy | replay, P = 5, ms | ÷ copy |")
    print("|---|---|---|---|---|---|")
    for blocks in BLOCKS:
        for warps in WARPS:
            kernels.BLOCKS = fused.BLOCKS = blocks
            launch["num_warps"] = warps
            cells = [
                f"{t * 1e3:.3f} | {case.moved / 8 * copy / t:.2f}"
                for case, t in zip(cases, medians(cases, device, 3), strict=True)
            ]
            print(f"| {blocks} | {warps} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--dimension", type=int, help="d (default: 16M on CPUs, 1.3e9 on GPUs)")
    mode = parser.add_mutually_exclusive_group()
    for name in ("profile", "tune", "check"):
        mode.add_argument(f"--{name}", action="store_true")
    given = parser.parse_args()
    cuda = torch.cuda.is_available()
    kind = given.device or ("cuda" if cuda and not given.profile else "cpu")
    if kind == "cuda" and not cuda:
        parser.error("--device cuda: torch sees no GPU here")
    if ((given.tune or given.check) and kind == "cpu") or (given.profile and kind == "cuda"):
        parser.error("--tune and --check are for GPUs, --profile for CPUs")
    torch.set_num_threads(1)
    device, dimension = torch.device(kind), given.dimension or DIMENSION[kind]
    if kind == "cuda":
        free, _ = torch.cuda.mem_get_info()
        dimension = min(dimension, int(0.8 * free / 12) // 16 * 16)  # x, H and out
    where = torch.cuda.get_device_name() if kind == "cuda" else "CPU, one thread"
    print(f"{where}, torch {torch.__version__}")
    if given.profile:
        return profile()
    if given.check:
        from same_bits import check

        differ = check(device, given.dimension or CHECKED_DIMENSION)
        print(f"{differ} comparisons differ")
        sys.exit(int(differ > 0))
    if given.tune:
        return tune(dimension, device)
    print(f"d = {dimension:,}\n")
    return (on_cuda if kind == "cuda" else on_cpu)(dimension, device)


if __name__ == "__main__":
    main()
