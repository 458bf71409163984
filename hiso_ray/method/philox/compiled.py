"""Directions on CPUs, compiled by numba: the operations of ``reference``, vectorised.

Compiled code is cached beside the source, like Python's bytecode, per processor type: the first
process takes seconds to compile it, the others a third of a second to load it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hiso_ray.method.philox import reference
from hiso_ray.method.philox.streams import Distribution

_f32, _i32, _u32, _u64 = np.float32, np.int32, np.uint32, np.uint64
_M0, _M1 = (_u64(m) for m in reference.MULTIPLIERS)
_W0, _W1 = (_u32(w) for w in reference.KEY_STEPS)
_LOG, _SIN, _COS = (
    tuple(_f32(c) for c in some) for some in (reference.LOG, reference.SIN, reference.COS)
)
_LN2_LOW, _LN2_HIGH = (_f32(c) for c in reference.LN2)
_ROUNDS, _SQRT_HALF = reference.ROUNDS, _i32(reference.SQRT_HALF)
_QUARTER_TURN = _f32(reference.QUARTER_TURN)

_function = numba.njit(inline="always")
_SIGNATURE = types.void(
    types.float32[::1], types.Array(types.uint32, 1, "C", readonly=True), types.int64
)


@intrinsic
def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c, rounded once; numba has no function for it."""
    f32 = types.float32
    return f32(f32, f32, f32), lambda context, builder, signature, args: builder.fma(*args)


@intrinsic
def _bits(typing: Any, a: Any) -> Any:
    """The bits of a float32 as an int32."""
    return types.int32(types.float32), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.IntType(32)
    )


@intrinsic
def _float(typing: Any, a: Any) -> Any:
    """The float32 of an int32's bits."""
    return types.float32(types.int32), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.FloatType()
    )


@_function
def _philox(block, identity):
    c0, c1 = _u32(block), _u32(block >> _u64(32))
    c2, c3 = identity[2], identity[3]
    k0, k1 = identity[0], identity[1]
    for _ in range(_ROUNDS):
        first, second = _u64(c0) * _M0, _u64(c2) * _M1
        c0, c2 = _u32(second >> _u64(32)) ^ c1 ^ k0, _u32(first >> _u64(32)) ^ c3 ^ k1
        c1, c3 = _u32(second), _u32(first)
        k0, k1 = _u32(k0 + _W0), _u32(k1 + _W1)
    return c0, c1, c2, c3


@_function
def _box_muller(a, b):
    bits = _bits(_fma(_f32(a), _f32(2.0**-32), _f32(2.0**-33)))
    e = (bits - _SQRT_HALF) >> _i32(23)
    f = _float(_i32(bits - (e << _i32(23)))) - _f32(1)
    square, scaled = f * f, _f32(e)
    p = _LOG[0]
    for c in _LOG[1:]:
        p = _fma(p, f, c)
    p = p * f * square
    p = _fma(scaled, _LN2_LOW, p)
    p = _fma(square, _f32(-0.5), p)
    log = _fma(scaled, _LN2_HIGH, f + p)
    r = np.sqrt(_f32(-2) * log)
    quarter = _u32(b + _u32(2**29)) >> _u32(30)
    y = _f32(_i32(_u32(b - _u32(quarter << _u32(30))))) * _QUARTER_TURN
    square = y * y
    sine, cosine = _SIN[0], _COS[0]
    for c in _SIN[1:]:
        sine = _fma(sine, square, c)
    for c in _COS[1:]:
        cosine = _fma(cosine, square, c)
    sine = _fma(sine * square, y, y)
    cosine = _fma(cosine * square, square, _fma(square, _f32(-0.5), _f32(1)))
    odd = (quarter & _u32(1)) != _u32(0)
    cos, sin = (sine, cosine) if odd else (cosine, sine)
    cos = -cos if (quarter + _u32(1)) & _u32(2) else cos
    sin = -sin if quarter & _u32(2) else sin
    return r * cos, r * sin


@_function
def _normals(block, identity):
    a, b, c, d = _philox(block, identity)
    return (*_box_muller(a, b), *_box_muller(c, d))


@_function
def _sign(word):
    return _f32(-1) if word >> _u32(31) else _f32(1)


@_function
def _signs(block, identity):
    a, b, c, d = _philox(block, identity)
    return _sign(a), _sign(b), _sign(c), _sign(d)


@_function
def _fill(four, out, identity, start):
    head = min(-start % 4, len(out))
    if head:
        some = four(_u64(start // 4), identity)
        for i in range(head):
            out[i] = some[start % 4 + i]
    first, rest = _u64((start + head) // 4), out[head:]
    blocks = len(rest) // 4
    for i in range(blocks):
        # Indices that cannot be negative let the compiler vectorise the loop.
        rest[4 * i], rest[4 * i + 1], rest[4 * i + 2], rest[4 * i + 3] = four(
            first + _u64(i), identity
        )
    if 4 * blocks < len(rest):
        some = four(first + _u64(blocks), identity)
        for i in range(4 * blocks, len(rest)):
            rest[i] = some[i - 4 * blocks]


def _fill_normals(out, identity, start):
    _fill(_normals, out, identity, start)


def _fill_signs(out, identity, start):
    _fill(_signs, out, identity, start)


Kernel = Callable[[np.ndarray, np.ndarray, int], None]
"""(out, identity, start): fills ``out`` with a direction's elements from ``start`` on."""


def _compiled(function: Any, oracle: Callable[[np.ndarray, int, int], np.ndarray]) -> Kernel:
    """Loads the cached kernel if there is one that agrees with the reference (numba does not notice
    when that changes), else compiles it."""
    compiler = partial(numba.njit, _SIGNATURE, nogil=True, error_model="numpy")
    with suppress(Exception):  # a read-only folder, a truncated file
        kept = compiler(cache=True)(function)
        identity, out = np.arange(4, dtype=np.uint32), np.empty(64, np.float32)
        kept(out, identity, 2)
        if np.array_equal(out, oracle(identity, 2, 66)):
            return kept
    return compiler()(function)


@cache
def filler(distribution: Distribution) -> Kernel:
    """The kernel that fills an array with a direction's elements."""
    if distribution == "gaussian":
        return _compiled(_fill_normals, reference.normals)
    return _compiled(_fill_signs, reference.signs)
