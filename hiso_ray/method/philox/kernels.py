"""Directions on GPUs, in Triton: ``reference``, operation by operation, four elements a thread.

``enable_fp_fusion=False`` keeps products and sums apart where the reference has them apart; where
it has them together, ``tl.fma`` does.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from hiso_ray.method.philox import Distribution, reference

BLOCKS = 256  # counters of one program; four elements each
EXACT = {"enable_fp_fusion": False}

_ROUNDS = tl.constexpr(reference.ROUNDS)
_M0, _M1 = (tl.constexpr(m) for m in reference.MULTIPLIERS)
_W0, _W1 = (tl.constexpr(w) for w in reference.KEY_STEPS)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = (tl.constexpr(c) for c in reference.LOG)
_S0, _S1, _S2 = (tl.constexpr(c) for c in reference.SIN)
_C0, _C1, _C2 = (tl.constexpr(c) for c in reference.COS)
_LN2_LOW, _LN2_HIGH = (tl.constexpr(c) for c in reference.LN2)
_SQRT_HALF = tl.constexpr(reference.SQRT_HALF)
_QUARTER_TURN = tl.constexpr(float(reference.QUARTER_TURN))


@triton.jit
def philox(block, identity):
    """The four words of each counter.

    Args:
        block: (n,) int64.
        identity: pointer to 4 uint32, held as int64.
    """
    k0 = tl.load(identity).to(tl.uint32)
    k1 = tl.load(identity + 1).to(tl.uint32)
    c0 = block.to(tl.uint32)
    c1 = (block >> 32).to(tl.uint32)
    c2 = tl.zeros_like(c0) + tl.load(identity + 2).to(tl.uint32)
    c3 = tl.zeros_like(c0) + tl.load(identity + 3).to(tl.uint32)
    for _ in tl.static_range(_ROUNDS):
        first = c0.to(tl.uint64) * _M0
        second = c2.to(tl.uint64) * _M1
        c0 = (second >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (first >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = second.to(tl.uint32)
        c3 = first.to(tl.uint32)
        k0 += _W0
        k1 += _W1
    return c0, c1, c2, c3


@triton.jit
def _fma(a, b, c):
    return tl.fma(a, tl.zeros_like(a) + b, tl.zeros_like(a) + c)


@triton.jit
def _box_muller(a, b):
    u = _fma(a.to(tl.float32), 1.0 / 4294967296.0, 0.5 / 4294967296.0)
    bits = u.to(tl.int32, bitcast=True)
    e = (bits - _SQRT_HALF) >> 23
    f = (bits - (e << 23)).to(tl.float32, bitcast=True) - 1.0
    square = f * f
    scaled = e.to(tl.float32)
    p = _fma(f, _L0, _L1)
    p = _fma(p, f, _L2)
    p = _fma(p, f, _L3)
    p = _fma(p, f, _L4)
    p = _fma(p, f, _L5)
    p = _fma(p, f, _L6)
    p = _fma(p, f, _L7)
    p = _fma(p, f, _L8)
    p = p * f * square
    p = _fma(scaled, _LN2_LOW, p)
    p = _fma(square, -0.5, p)
    log = _fma(scaled, _LN2_HIGH, f + p)
    r = tl.sqrt_rn(log * -2.0)
    quarter = (b + 536870912) >> 30
    y = (b - (quarter << 30)).to(tl.int32, bitcast=True).to(tl.float32) * _QUARTER_TURN
    square = y * y
    sine = _fma(_fma(square, _S0, _S1), square, _S2)
    sine = _fma(sine * square, y, y)
    cosine = _fma(_fma(square, _C0, _C1), square, _C2)
    cosine = _fma(cosine * square, square, _fma(square, -0.5, 1.0))
    odd = (quarter & 1) == 1
    cos = tl.where(odd, sine, cosine)
    sin = tl.where(odd, cosine, sine)
    cos = tl.where(((quarter + 1) & 2) == 2, -cos, cos)
    sin = tl.where((quarter & 2) == 2, -sin, sin)
    return r * cos, r * sin


@triton.jit
def draw(block, identity, GAUSSIAN: tl.constexpr):  # noqa: N803
    """The (4n,) elements of n counters, in order, float32."""
    a, b, c, d = philox(block, identity)
    if GAUSSIAN:
        u0, u1 = _box_muller(a, b)
        u2, u3 = _box_muller(c, d)
    else:
        u0 = tl.where((a >> 31) == 1, -1.0, 1.0)
        u1 = tl.where((b >> 31) == 1, -1.0, 1.0)
        u2 = tl.where((c >> 31) == 1, -1.0, 1.0)
        u3 = tl.where((d >> 31) == 1, -1.0, 1.0)
    return tl.join(tl.join(u0, u2), tl.join(u1, u3)).reshape(4 * block.shape[0])


@triton.jit
def _fill(out, identity, start, count, GAUSSIAN: tl.constexpr, BLOCKS: tl.constexpr):  # noqa: N803
    first = start // 4 + tl.program_id(0).to(tl.int64) * BLOCKS
    u = draw(first + tl.arange(0, BLOCKS), identity, GAUSSIAN)
    at = first * 4 - start + tl.arange(0, 4 * BLOCKS)
    tl.store(out + at, u, mask=(at >= 0) & (at < count))


def fill(out: Tensor, identity: np.ndarray, start: int, distribution: Distribution) -> Tensor:
    """See ``philox.fill``."""
    n = out.numel()
    grid = (programs(start, n),)
    _fill[grid](
        out, on(out.device, identity), start, n, distribution == "gaussian", BLOCKS, **EXACT
    )
    return out


def programs(start: int, count: int) -> int:
    """How many programs the elements from ``start`` take."""
    blocks = -(-(start + count) // 4) - start // 4
    return triton.cdiv(blocks, BLOCKS)


def on(device: torch.device, identities: np.ndarray) -> Tensor:
    """uint32 as int64 on a device; torch has few operations on unsigned integers."""
    return torch.from_numpy(identities.astype(np.int64)).to(device)
