"""Directions on GPUs, in Triton: the operations of ``reference``, four elements a thread.

``enable_fp_fusion=False`` keeps products and sums separate where the reference does; where the
reference fuses them, ``tl.fma`` does.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from hiso_ray.method.naming import Name
from hiso_ray.method.philox import reference
from hiso_ray.method.philox.streams import Distribution, stream_id

BLOCKS = 512  # counters per program; four elements each
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
def philox(block, key):
    """The four words of each counter.

    Args:
        block: (n,) int64.
        key: pointer to a direction's stream id, 4 uint32 held as int64.
    """
    k0 = tl.load(key).to(tl.uint32)
    k1 = tl.load(key + 1).to(tl.uint32)
    c0 = block.to(tl.uint32)
    c1 = (block >> 32).to(tl.uint32)
    c2 = tl.zeros_like(c0) + tl.load(key + 2).to(tl.uint32)
    c3 = tl.zeros_like(c0) + tl.load(key + 3).to(tl.uint32)
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
def _sqrt(x):
    """√x, rounded once, for 0 and numbers far from the limits of float32: ``tl.sqrt_rn`` without
    its branches for all others."""
    inverse = tl.rsqrt(x)
    root = x * inverse
    root = tl.fma(tl.fma(-root, root, x), inverse * 0.5, root)
    return tl.where(x == 0.0, x, root)


@triton.jit
def _flip(x, signs):
    """x, negated where the top bit of ``signs`` is set."""
    bits = x.to(tl.uint32, bitcast=True) ^ (signs & 0x80000000)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _box_muller(a, b):
    u = tl.fma(a.to(tl.float32), 1.0 / 4294967296.0, 0.5 / 4294967296.0)
    bits = u.to(tl.int32, bitcast=True)
    e = (bits - _SQRT_HALF) >> 23
    f = (bits - (e << 23)).to(tl.float32, bitcast=True) - 1.0
    square = f * f
    scaled = e.to(tl.float32)
    p = tl.fma(f, _L0, _L1)
    p = tl.fma(p, f, _L2)
    p = tl.fma(p, f, _L3)
    p = tl.fma(p, f, _L4)
    p = tl.fma(p, f, _L5)
    p = tl.fma(p, f, _L6)
    p = tl.fma(p, f, _L7)
    p = tl.fma(p, f, _L8)
    p = p * f * square
    p = tl.fma(scaled, _LN2_LOW, p)
    p = tl.fma(square, -0.5, p)
    log = tl.fma(scaled, _LN2_HIGH, f + p)
    r = _sqrt(log * -2.0)
    turned = b + 0x20000000  # its top two bits are the quarter, the others y
    y = ((turned & 0x3FFFFFFF).to(tl.int32) - 0x20000000).to(tl.float32) * _QUARTER_TURN
    square = y * y
    sine = tl.fma(tl.fma(square, _S0, _S1), square, _S2)
    sine = tl.fma(sine * square, y, y)
    cosine = tl.fma(tl.fma(square, _C0, _C1), square, _C2)
    cosine = tl.fma(cosine * square, square, tl.fma(square, -0.5, 1.0))
    odd = (turned & 0x40000000) != 0
    cos = _flip(tl.where(odd, sine, cosine), turned + 0x40000000)
    sin = _flip(tl.where(odd, cosine, sine), turned)
    return r * cos, r * sin


@triton.jit
def draw(block, key, GAUSSIAN: tl.constexpr):
    """The four elements of each of n counters: four (n,) float32, see :func:`in_order`."""
    a, b, c, d = philox(block, key)
    if GAUSSIAN:
        u0, u1 = _box_muller(a, b)
        u2, u3 = _box_muller(c, d)
    else:
        one = tl.full(a.shape, 1.0, tl.float32)
        u0, u1, u2, u3 = _flip(one, a), _flip(one, b), _flip(one, c), _flip(one, d)
    return u0, u1, u2, u3


@triton.jit
def in_order(u0, u1, u2, u3):
    """(4n,) float32, in element order."""
    return tl.join(tl.join(u0, u2), tl.join(u1, u3)).reshape(4 * u0.shape[0])


@triton.jit
def _fill(out, key, start, count, GAUSSIAN: tl.constexpr, BLOCKS: tl.constexpr):
    first = start // 4 + tl.program_id(0).to(tl.int64) * BLOCKS
    u0, u1, u2, u3 = draw(first + tl.arange(0, BLOCKS), key, GAUSSIAN)
    at = first * 4 - start + tl.arange(0, 4 * BLOCKS)
    tl.store(out + at, in_order(u0, u1, u2, u3), mask=(at >= 0) & (at < count))


def fill(out: Tensor, name: Name, start: int, distribution: Distribution) -> Tensor:
    """See ``philox.fill``."""
    n = out.numel()
    _fill[(programs(start, n),)](
        out, placed(name, out.device), start, n, distribution == "gaussian", BLOCKS, **EXACT
    )
    return out


def programs(start: int, count: int) -> int:
    """Number of programs that ``count`` elements from ``start`` on take."""
    blocks = -(-(start + count) // 4) - start // 4
    return triton.cdiv(blocks, BLOCKS)


@lru_cache(maxsize=1024)  # 32 bytes each; layer-wise probes ask once per layer
def placed(name: Name, device: torch.device) -> Tensor:
    """A direction's stream id, on the device."""
    return on(device, stream_id(name))


def on(device: torch.device, identities: np.ndarray) -> Tensor:
    """uint32 as int64 on a device; torch has few operations on unsigned integers."""
    return torch.from_numpy(identities.astype(np.int64)).to(device)
