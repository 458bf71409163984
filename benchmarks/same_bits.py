"""Checks that a GPU computes the same bits as the CPU: ``python benchmarks/probe.py --check``.

Compares directions, and the results of the fused and the chunk-wise passes over the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method import philox
from hiso_ray.method.curvature import Curvature, Diagonal, Identity
from hiso_ray.method.direction import Directions
from hiso_ray.method.naming import Naming
from hiso_ray.method.perturbed import perturb
from hiso_ray.method.philox import Distribution
from hiso_ray.method.scalar import Rule, State, Step, apply_record, step_out_of_place

NAME = (7, 0)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check(device: torch.device, dimension: int) -> int:
    """Prints how many elements differ, and returns the number of comparisons that differ.

    Kernels are compiled separately for sizes that are multiples of 16, so both kinds are compared.
    """
    print("| what | elements | differ | largest difference |\n|---|---|---|---|")
    failed = 0
    for d in (dimension // 16 * 16, dimension // 16 * 16 + 3):
        for what, found, expected in comparisons(device, d):
            words = {2: torch.int16, 4: torch.int32}[expected.dtype.itemsize]
            found = found.cpu()
            differ = int((found.view(words) != expected.view(words)).sum())
            largest = float((found.double() - expected.double()).abs().max())
            print(f"| {what} | {expected.numel():,} | {differ:,} | {largest:g} |", flush=True)
            failed += int(differ > 0)
    return failed


def comparisons(device: torch.device, d: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(what is compared, the device's result, the CPU's result)."""
    yield from _fills(device, d)
    rng = torch.Generator().manual_seed(0)
    x, h = torch.empty(d).normal_(generator=rng), torch.empty(d).log_normal_(0, 3, generator=rng)
    yield from _probes(device, x, h)
    yield from _replays(device, x, h)
    yield from _local_steps(device, x, h)


def _fills(device: torch.device, d: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    from hiso_ray.method.philox import kernels

    kinds: tuple[Distribution, ...] = ("gaussian", "rademacher")
    for kind in kinds:
        for start, size in ((0, d), (1, d), (2, 3), (3, d // 3), (10**9 + 7, 4097), (2**34 - 5, 9)):
            out = torch.empty(size, device=device)
            found = kernels.fill(out, NAME, start, kind)
            expected = philox.fill(torch.empty(size), NAME, start, kind)
            yield f"fill, {kind}, from {start:,}", found, expected


def _ways(
    device: torch.device, d: int, kind: Distribution = "gaussian"
) -> tuple[Directions, dict[str, Directions]]:
    """The CPU's directions, and the device's for both kinds of passes over the weights."""
    ways = {way: Directions(d, device, 0, distribution=kind) for way in ("fused", "chunk-wise")}
    ways["fused"].fused, ways["chunk-wise"].fused = True, False
    return Directions(d, torch.device("cpu"), 0, distribution=kind), ways


def _curvature(h: Tensor | None, device: torch.device) -> Curvature:
    if h is None:
        return Identity()
    diagonal = Diagonal(len(h), device)
    diagonal.h.copy_(h)
    return diagonal


def _probes(device: torch.device, x: Tensor, h: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    cases: list[tuple[Tensor | None, Distribution, torch.dtype, int]] = [
        *((some, "gaussian", dtype, 0) for some in (None, h) for dtype in DTYPES),
        (h, "rademacher", torch.float32, 0),
        (h, "gaussian", torch.bfloat16, len(x) // 2 + 1),
    ]
    for some, kind, dtype, start in cases:
        cpu, ways = _ways(device, len(x), kind)
        expected = torch.empty(len(x) - start, dtype=dtype)
        perturb(expected, x, NAME, _curvature(some, cpu.device), cpu, 1e-3, start)
        for way, directions in ways.items():
            out = torch.empty_like(expected, device=device)
            perturb(out, x.to(device), NAME, _curvature(some, device), directions, 1e-3, start)
            shown = "H none" if some is None else "H diagonal"
            what = f"probe, {way}, {kind}, {shown}, {dtype}, from {start:,}"
            yield what, out, expected


def _steps(tau: int, count: int) -> list[Step]:
    g = np.random.default_rng(0).standard_normal((tau, count), dtype=np.float32)
    return [Step(Naming(count).of(11 + k, 0), g[k]) for k in range(tau)]


def _replays(device: torch.device, x: Tensor, h: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    cases: list[tuple[Tensor | None, int, int, bool]] = [
        *((h, p, tau, every) for p in (1, 5) for tau in (1, 2) for every in (False, True)),
        (h, 40, 1, False),  # more than a pass reads at once
        (None, 5, 2, False),
    ]
    cpu, ways = _ways(device, len(x))
    for some, count, tau, every in cases:
        rule, steps = Rule(1e-3, 0.95, 1e-5, learn_from_all=every), _steps(tau, count)
        expected = State(x.clone(), _curvature(some, cpu.device))
        apply_record(expected, cpu, steps, rule)
        for way, directions in ways.items():
            state = State(x.to(device, copy=True), _curvature(some, device))
            apply_record(state, directions, steps, rule)
            learns = "H none" if some is None else f"learn {'all' if every else 'last'}"
            what = f"replay, {way}, P = {count}, τ = {tau}, {learns}"
            yield f"{what}: x", state.x, expected.x
            if some is not None:
                yield f"{what}: H", _values(state), _values(expected)
            yield f"{what}: ‖Δ‖ to five digits", *_five_digits(state, expected)
    others: list[tuple[bool, float, Distribution]] = [
        (True, 0.0, "gaussian"), (False, 0.9, "rademacher"), (False, 0.0, "rademacher"),
    ]  # fmt: skip
    for way, directions in ways.items():  # some of these always go chunk by chunk on GPUs
        for second, momentum, kind in others:
            yield from _others(x, h, directions, way, second, momentum, kind)


def _others(
    x: Tensor,
    h: Tensor,
    directions: Directions,
    way: str,
    second: bool,
    momentum: float,
    kind: Distribution,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    rule, found = Rule(1e-3, 0.95, 1e-5, momentum=momentum), []
    steps = [Step(s.names, s.g, s.g * 3 if second else None) for s in _steps(2, 3)]
    for device in (directions.device, torch.device("cpu")):
        here = Directions(len(x), device, 0, distribution=kind)
        here.fused = directions.fused and device.type != "cpu"
        state = State(x.to(device, copy=True), _curvature(h, device))
        state.velocity = torch.zeros_like(state.x) if momentum else None
        apply_record(state, here, steps, rule)
        found.append(state)
    what = f"replay, {way}, {kind}"
    if momentum:
        what += ", momentum"
    if second:
        what += ", second differences"
    yield f"{what}: x", found[0].x, found[1].x
    yield f"{what}: H", _values(found[0]), _values(found[1])


def _five_digits(state: State, expected: State) -> tuple[Tensor, Tensor]:
    """For a sum over all elements, whose order may differ: compares five digits."""
    close = math.isclose(state.update_norm, expected.update_norm, rel_tol=1e-5)
    return torch.tensor([float(close)]), torch.tensor([1.0])


def _local_steps(
    device: torch.device, x: Tensor, h: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    (step,) = _steps(1, 5)
    cpu, ways = _ways(device, len(x))

    def taken(directions: Directions) -> Tensor:
        where = directions.device
        state = State(x.to(where), _curvature(h, where))
        out = torch.empty_like(state.x)
        return step_out_of_place(out, state.x, step.g, step.names, 1e-3, state, directions)

    for way, directions in ways.items():
        yield f"local step, {way}, P = 5", taken(directions), taken(cpu)


def _values(state: State) -> Tensor:
    h = state.curvature.values()
    assert h is not None
    return h
