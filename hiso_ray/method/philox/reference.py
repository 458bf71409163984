"""Philox4x32-10 and its normals in numpy: the formulas that the fast versions must match."""

from __future__ import annotations

import numpy as np

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and √3 − 1, as 32-bit fractions

# ln(1 + f) = f - f²/2 + f³ p(f) for 1 + f in [√½, √2), and sine and cosine on [-π/4, π/4], highest
# power first: the single-precision polynomials of Cephes (S. L. Moshier), accurate to about an ulp.
LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
LN2 = (
    -2.12194440e-4,
    0.693359375,
)  # ln 2 = their sum; the second has so few bits that e·LN2 is exact
SQRT_HALF = 0x3F3504F3  # the bits of √½
QUARTER_TURN = np.pi / 2 / 2**30  # radians per step, of 2^32 steps to a turn


def philox(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The four words of each counter.

    Args:
        counter: (..., 4) uint32.
        key: (2,) uint32.

    Returns:
        (..., 4) uint32.
    """
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = int(key[0]), int(key[1])
    low, m0, m1 = np.uint64(0xFFFFFFFF), *(np.uint64(m) for m in MULTIPLIERS)
    for _ in range(ROUNDS):
        first, second = c0 * m0, c2 * m1
        c0, c1, c2, c3 = (
            (second >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            second & low,
            (first >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            first & low,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) % 2**32, (k1 + KEY_STEPS[1]) % 2**32
    return np.stack([c0, c1, c2, c3], -1).astype(np.uint32)


def words(identity: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The words of elements start to stop of a direction, uint32.

    Args:
        identity: (4,) uint32.
    """
    block = np.arange(start // 4, -(-stop // 4), dtype=np.uint64)
    counter = np.empty((len(block), 4), np.uint32)
    counter[:, 0] = block & np.uint64(0xFFFFFFFF)
    counter[:, 1] = block >> np.uint64(32)
    counter[:, 2:] = identity[2:]
    return philox(counter, identity[:2]).ravel()[start % 4 :][: stop - start]


def signs(identity: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Rademacher elements: −1 where a word's top bit is set, else 1; float32."""
    return np.where(words(identity, start, stop) >> 31, np.float32(-1), np.float32(1))


def normals(identity: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Gaussian elements, float32."""
    whole = words(identity, start // 4 * 4, -(-stop // 4) * 4).reshape(-1, 2)
    both = np.stack(box_muller(whole[:, 0], whole[:, 1]), -1).ravel()
    return both[start % 4 :][: stop - start]


def box_muller(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two independent normals from each pair of words: r cos θ and r sin θ with r = √(−2 ln u),
    u = (a + ½) / 2^32 and θ = 2π b / 2^32."""
    f32, i32 = np.float32, np.int32
    # u = m · 2^e with m in [√½, √2)
    bits = fma(a.astype(f32), f32(2.0**-32), f32(2.0**-33)).view(i32)
    e = (bits - i32(SQRT_HALF)) >> i32(23)
    f = (bits - (e << i32(23))).view(f32) - f32(1)
    square, scaled = f * f, e.astype(f32)
    p = _horner(LOG, f) * f * square
    p = fma(scaled, f32(LN2[0]), p)
    p = fma(square, f32(-0.5), p)
    log = fma(scaled, f32(LN2[1]), f + p)
    r = np.sqrt(f32(-2) * log)
    # θ = quarter · π/2 + y with y in [-π/4, π/4)
    quarter = (b + np.uint32(2**29)) >> np.uint32(30)
    y = (b - (quarter << np.uint32(30))).view(i32).astype(f32) * f32(QUARTER_TURN)
    square = y * y
    sine = fma(_horner(SIN, square) * square, y, y)
    cosine = fma(_horner(COS, square) * square, square, fma(square, f32(-0.5), f32(1)))
    odd = (quarter & np.uint32(1)) == 1
    cos, sin = np.where(odd, sine, cosine), np.where(odd, cosine, sine)
    cos = np.where((quarter + np.uint32(1)) & np.uint32(2), -cos, cos)
    sin = np.where(quarter & np.uint32(2), -sin, sin)
    return r * cos, r * sin


def fma(a: np.ndarray, b: np.ndarray | np.float32, c: np.ndarray | np.float32) -> np.ndarray:
    """a·b + c, float32, rounded once.

    The product is exact in float64. The sum is rounded to odd in float64, so rounding it again to
    float32 equals rounding once.
    """
    product = np.multiply(a, b, dtype=np.float64)
    total = product + c
    part = total - product  # Knuth's two-sum: what the rounding lost
    lost = (product - (total - part)) + (c - part)
    bits = total.view(np.int64)
    away = np.where((lost > 0) == (total > 0), 1, -1)
    inexact = (lost != 0) & (bits & 1 == 0)
    return np.where(inexact, bits + away, bits).view(np.float64).astype(np.float32)


def _horner(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    p = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        p = fma(p, x, np.float32(c))
    return p
