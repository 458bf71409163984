"""Wire format of a client's scalars: float32, float16, int8 or one bit each.

A message is a payload without a header: the server knows precision and shape. Numbers are little
endian. The server aggregates what :func:`decode` returns, so the ledger stays exact.

========= ============== ==================================================================
precision bytes          value received
========= ============== ==================================================================
float32   4n             g
float16   2n             g rounded to nearest, clipped to ±65504, 0 below 3e-8
int8      n + 4          q·s, where s = max|g| / 127 is the message's scale, a float32, and q
                         is g/s rounded stochastically to an adjacent integer, so that
                         E[q·s] = g (QSGD, Alistarh et al. 2017, arXiv 1610.02132, with the
                         largest magnitude for the norm)
sign      ⌈n / 8⌉        +1 for g ≥ 0, else -1 (signSGD, Bernstein et al. 2018,
                         arXiv 1802.04434; FeedSign, arXiv 2501.17610)
========= ============== ==================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

LARGEST_INT8 = 127  # -128 has no positive counterpart
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def payload_bytes(precision: str, count: int) -> int:
    """Length of one message that carries ``count`` scalars."""
    return _FORMATS[precision].size(count)


def encode(scalars: np.ndarray, precision: str, rng: np.random.Generator | None) -> bytes:
    """The payload of one client's message.

    Args:
        scalars: float32 of any shape, finite.
        rng: for int8's stochastic rounding, one draw per scalar; the other precisions ignore it.
    """
    return _FORMATS[precision].encode(scalars.astype(np.float32, copy=False).ravel(), rng)


def decode(payloads: Sequence[bytes], precision: str, shape: tuple[int, ...]) -> np.ndarray:
    """The scalars of m messages, as the server receives them.

    Args:
        payloads: from :func:`encode` with the same precision, each for scalars of this shape.

    Returns:
        (m, ``*shape``) float32, newly allocated.
    """
    m, count = len(payloads), math.prod(shape)
    size, lengths = payload_bytes(precision, count), set(map(len, payloads))
    assert lengths <= {size}, f"{precision}, {shape}: {lengths} bytes"
    received = np.frombuffer(b"".join(payloads), np.uint8).reshape(m, size)
    return _FORMATS[precision].decode(received, count).reshape(m, *shape)


class _Format(NamedTuple):
    size: Callable[[int], int]
    encode: Callable[[np.ndarray, np.random.Generator | None], bytes]
    decode: Callable[[np.ndarray, int], np.ndarray]  # (m, size) uint8 -> (m, count) float32


def _to_float32(scalars: np.ndarray, _: np.random.Generator | None) -> bytes:
    return scalars.astype("<f4", copy=False).tobytes()


def _from_float32(payloads: np.ndarray, _: int) -> np.ndarray:
    return payloads.view("<f4").astype(np.float32)


def _to_float16(scalars: np.ndarray, _: np.random.Generator | None) -> bytes:
    return scalars.clip(-LARGEST_FLOAT16, LARGEST_FLOAT16).astype("<f2").tobytes()


def _from_float16(payloads: np.ndarray, _: int) -> np.ndarray:
    return payloads.view("<f2").astype(np.float32)


def _to_int8(scalars: np.ndarray, rng: np.random.Generator | None) -> bytes:
    assert rng is not None, "stochastic rounding needs a generator"
    wide = scalars.astype(np.float64)
    scale = _scale(float(np.abs(wide).max(initial=0.0)))
    steps = wide / scale if scale > 0 else wide
    below = np.floor(steps)
    # A comparison, since floor(steps + coin) could round up to 128.
    rounded = below + (rng.random(len(wide)) < steps - below)
    return np.array(scale, "<f4").tobytes() + rounded.astype(np.int8).tobytes()


def _from_int8(payloads: np.ndarray, _: int) -> np.ndarray:
    scales = payloads[:, :4].copy().view("<f4").astype(np.float64)
    values = payloads[:, 4:].view(np.int8) * scales
    return values.clip(-LARGEST_FLOAT32, LARGEST_FLOAT32).astype(np.float32)


def _scale(largest: float) -> np.float32:
    """The float32 s nearest to largest / 127 for which 127·s ≥ largest."""
    scale = np.float32(largest / LARGEST_INT8)
    return (
        scale if float(scale) * LARGEST_INT8 >= largest else np.nextafter(scale, np.float32(1e38))
    )


def _to_sign(scalars: np.ndarray, _: np.random.Generator | None) -> bytes:
    return np.packbits(scalars >= 0).tobytes()


def _from_sign(payloads: np.ndarray, count: int) -> np.ndarray:
    bits = np.unpackbits(payloads, axis=1, count=count)
    return np.where(bits, np.float32(1), np.float32(-1))


_FORMATS = {
    "float32": _Format(lambda n: 4 * n, _to_float32, _from_float32),
    "float16": _Format(lambda n: 2 * n, _to_float16, _from_float16),
    "int8": _Format(lambda n: n + 4, _to_int8, _from_int8),
    "sign": _Format(lambda n: -(-n // 8), _to_sign, _from_sign),
}
