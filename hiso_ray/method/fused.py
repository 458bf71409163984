"""Passes over the weights on a GPU, one kernel each: only weights and H go through memory;
directions are generated inside the kernel.

Probe and replay give the same bits as ``perturbed.perturb`` and ``scalar.apply_record`` chunk by
chunk: the same operations in the same order, each rounded as IEEE 754 requires.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from hiso_ray.method.naming import Name
from hiso_ray.method.philox import Distribution, stream_id
from hiso_ray.method.philox.kernels import BLOCKS, EXACT, draw, in_order, on, placed, programs

LEARN = {"none": 0, "last": 1, "all": 2}


@triton.jit
def _probe(
    out, x, h, key, start, stop, mu,
    WHITEN: tl.constexpr, GAUSSIAN: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    first = start // 4 + tl.program_id(0).to(tl.int64) * BLOCKS
    at = first * 4 + tl.arange(0, 4 * BLOCKS)
    inside = (at >= start) & (at < stop)
    u0, u1, u2, u3 = draw(first + tl.arange(0, BLOCKS), key, GAUSSIAN)
    z = in_order(u0, u1, u2, u3)
    if WHITEN:
        z = tl.div_rn(1.0, tl.sqrt_rn(tl.load(h + at, mask=inside, other=1.0))) * z
    before = tl.load(x + at, mask=inside, other=0.0)
    after = tl.fma(z, mu, before)
    tl.store(out + (at - start), after.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _apply(
    out, x, h, keys, g, squares, d, steps, n, count, lr, beta, learned, eps,
    WHITEN: tl.constexpr, LEARN: tl.constexpr, SEVERAL: tl.constexpr, GAUSSIAN: tl.constexpr,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0).to(tl.int64) * BLOCKS
    at = first * 4 + tl.arange(0, 4 * BLOCKS)
    block = first + tl.arange(0, BLOCKS)
    inside = at < d
    weights = tl.load(x + at, mask=inside, other=0.0)
    delta = tl.zeros_like(weights)
    if WHITEN or LEARN > 0:
        old = tl.load(h + at, mask=inside, other=1.0)
        new = old
    if WHITEN:
        root = tl.div_rn(1.0, tl.sqrt_rn(old))
    for k in range(steps):
        # Summed in drawing order, then reordered once: reordering exchanges data between threads.
        t0, t1, t2, t3 = draw(block, keys + 4 * k * n, GAUSSIAN)
        weight = tl.load(g + k * n)
        t0, t1, t2, t3 = t0 * weight, t1 * weight, t2 * weight, t3 * weight
        for p in range(1, n):
            u0, u1, u2, u3 = draw(block, keys + 4 * (k * n + p), GAUSSIAN)
            weight = tl.load(g + k * n + p)
            t0, t1 = tl.fma(u0, weight, t0), tl.fma(u1, weight, t1)
            t2, t3 = tl.fma(u2, weight, t2), tl.fma(u3, weight, t3)
        total = in_order(t0, t1, t2, t3)
        if WHITEN:
            total = root * total
        delta = tl.div_rn(total, count) if SEVERAL else total
        weights = tl.fma(delta, -lr, weights)
        if LEARN > 0:  # noqa: SIM102 - known at compile time, the inner one at run time
            if (LEARN == 2) | (k == steps - 1):
                new = tl.fma(delta * delta + eps, learned, new * beta)
    tl.store(out + at, weights, mask=inside)
    if LEARN > 0:
        tl.store(h + at, new, mask=inside)
    tl.store(squares + tl.program_id(0), tl.sum(tl.where(inside, delta * delta, 0.0)))


def probe(
    out: Tensor,
    x: Tensor,
    h: Tensor | None,
    name: Name,
    mu: float,
    distribution: Distribution,
    start: int = 0,
) -> Tensor:
    """out = (x + μ H^{-1/2} u)[start : start + len(out)], reading x and H once.

    Args:
        out: (n,) in the dtype of the forward passes.
        x: (d,) float32.
        h: (d,) float32, or None for H = 1.
    """
    n = out.numel()
    _probe[(programs(start, n),)](
        out, x, x if h is None else h, placed(name, x.device), start, start + n, mu,
        h is not None, distribution == "gaussian", BLOCKS, **EXACT,
    )  # fmt: skip
    return out


def apply(
    out: Tensor,
    x: Tensor,
    h: Tensor | None,
    names: Sequence[Sequence[Name]],
    g: np.ndarray,
    distribution: Distribution,
    *,
    lr: float,
    whiten: bool,
    learn: Literal["none", "last", "all"] = "none",
    beta: float = 0.0,
    eps: float = 0.0,
) -> Tensor:
    """out = x - η Σ_k Δ_k, and H learns in place: reads and writes x and H once, whatever the
    number of steps and directions.

    Args:
        out: (d,) float32; may be ``x``.
        h: (d,) float32; None if nothing reads it.
        names: τ lists of n directions.
        g: (τ, n) float32 scalars.
        learn: whether H learns from no step's Δ², the last one's, or each one's in order.

    Returns:
        ‖Δ‖² of the last step, () float64 on the device.
    """
    d, (steps, n) = x.numel(), g.shape
    stream_ids = np.concatenate([stream_id(name) for some in names for name in some])
    squares = torch.empty(programs(0, d), device=x.device)
    _apply[(programs(0, d),)](
        out, x, x if h is None else h, on(x.device, stream_ids),
        torch.from_numpy(np.ascontiguousarray(g)).to(x.device), squares, d, steps, n,
        float(n), lr, beta, 1 - beta, eps,
        whiten, LEARN[learn], n > 1, distribution == "gaussian", BLOCKS, **EXACT,
    )  # fmt: skip
    return squares.double().sum()
