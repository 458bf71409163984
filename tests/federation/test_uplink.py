"""Payloads byte by byte, what they decode to, and that int8 is right on average."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from hiso_ray.federation.uplink import decode, encode, payload_bytes
from hiso_ray.seeds import Purpose, generator

PRECISIONS = ("float32", "float16", "int8", "sign")


def draws(seed: int = 0) -> np.random.Generator:
    return generator(seed, Purpose.QUANTIZE, 0, 0)


def sent(values: list[float], precision: str, seed: int = 0) -> list[float]:
    scalars = np.array(values, np.float32)
    (received,) = decode([encode(scalars, precision, draws(seed))], precision, scalars.shape)
    return received.tolist()


@pytest.mark.parametrize(
    ("precision", "bytes_"),
    [
        ("float32", (4, 32, 36)),
        ("float16", (2, 16, 18)),
        ("int8", (5, 12, 13)),
        ("sign", (1, 1, 2)),
    ],
)
def test_bytes_of_1_8_and_9_scalars(precision: str, bytes_: tuple[int, ...]) -> None:
    assert tuple(payload_bytes(precision, n) for n in (1, 8, 9)) == bytes_


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(1,), (1, 5), (3, 3), (4, 5, 2)])
def test_a_payload_is_as_long_as_its_formula_and_keeps_its_shape(
    precision: str, shape: tuple[int, ...]
) -> None:
    scalars = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    payload = encode(scalars, precision, draws())
    (received,) = decode([payload], precision, shape)
    assert len(payload) == payload_bytes(precision, scalars.size)
    assert received.shape == shape
    assert received.dtype == np.float32
    assert payload == encode(scalars, precision, draws())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_messages_are_decoded_together_as_one_by_one(precision: str) -> None:
    scalars = np.random.default_rng(1).standard_normal((7, 3, 3)).astype(np.float32)
    scalars *= np.logspace(-3, 3, 7, dtype=np.float32)[:, None, None]
    payloads = [encode(g, precision, draws(i)) for i, g in enumerate(scalars)]
    apart = [decode([payload], precision, (3, 3)) for payload in payloads]
    assert decode(payloads, precision, (3, 3)).tobytes() == np.concatenate(apart).tobytes()
    assert decode([], precision, (3, 3)).shape == (0, 3, 3)


def test_payloads_by_hand() -> None:
    scalars = np.array([[1.0, -2.0]], np.float32)
    assert encode(scalars, "float32", None) == struct.pack("<2f", 1, -2)
    assert encode(scalars, "float16", None) == struct.pack("<2e", 1, -2)
    # Multiples of the scale need no coin.
    exact = np.array([127, -127, 64, 0], np.float32) / 4
    assert encode(exact, "int8", draws()) == struct.pack("<f4b", 0.25, 127, -127, 64, 0)
    # 1 for g ≥ 0, the first scalar in the highest bit, the last byte filled up with zeros
    signs = np.array([3, -3, 0, -0.0, -1e-30, -1, -1, -1, 5], np.float32)
    assert encode(signs, "sign", None) == bytes([0b10110000, 0b10000000])


def test_float32_is_exact() -> None:
    values = np.random.default_rng(2).standard_normal(100).astype(np.float32) * 1e-20
    assert np.array_equal(decode([encode(values, "float32", None)], "float32", (100,))[0], values)


def test_float16_rounds_and_saturates() -> None:
    assert sent([1 + 2**-11, 1 + 3 * 2**-11], "float16") == [1.0, 1 + 2**-9]  # ties to even
    assert sent([65519, 65520, -1e30], "float16") == [65504.0, 65504.0, -65504.0]
    assert sent([2.0e-8, 6e-8], "float16") == [0.0, 2**-24]


def test_signs() -> None:
    assert sent([2.5, -0.1, 0.0], "sign") == [1.0, -1.0, 1.0]


def test_int8_falls_on_a_neighbour_with_the_right_odds() -> None:
    # Trap: rounding to nearest would send 32.25 steps as 32 always. 254 / 127 = 2 is the scale.
    scalars, rng = np.tile(np.array([254, 64.5, -64.5], np.float32), (4000, 1)), draws()
    received = decode([encode(g, "int8", rng) for g in scalars], "int8", (3,))
    assert set(received[:, 0]) == {254.0}
    assert set(received[:, 1]) == {64.0, 66.0}
    assert set(received[:, 2]) == {-64.0, -66.0}
    # P(66) = 1/4; four standard errors of 4000 coins
    assert abs((received[:, 1] == 66).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    assert abs((received[:, 2] == -66).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)


def test_int8_is_unbiased_for_any_scalars() -> None:
    honest = np.random.default_rng(3).standard_normal(10).astype(np.float32)
    scalars, rng = np.tile(honest, (4000, 1)), draws()
    received = decode([encode(g, "int8", rng) for g in scalars], "int8", (10,))
    step = np.abs(honest).max() / 127
    assert np.abs(received - honest).max() < step * (1 + 1e-5)
    # A coin's standard deviation is at most half a step.
    assert np.abs(received.mean(axis=0) - honest).max() < 4.5 * step / 2 / np.sqrt(4000)


@pytest.mark.parametrize("largest", [1.4e-45, 1e-40, 1.1, 1e30, float(np.finfo(np.float32).max)])
def test_int8_reaches_every_magnitude(largest: float) -> None:
    received = sent([largest, -largest, 0.0], "int8")
    assert np.isfinite(received).all()
    # The smallest subnormals have no finer step than themselves.
    assert received == pytest.approx([largest, -largest, 0.0], rel=2e-7, abs=127 * 1.4e-45)


class Heads(np.random.Generator):
    """A coin that always rounds up."""

    def __init__(self) -> None:
        super().__init__(np.random.Philox(0))

    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        return np.zeros(size)


def test_int8_never_rounds_the_largest_up() -> None:
    # Trap: with a scale rounded down, 127.00001 steps become 128, which an int8 holds as -128.
    for largest in np.random.default_rng(4).standard_normal(200).astype(np.float32) ** 2:
        payload = encode(np.array([largest], np.float32), "int8", Heads())
        assert payload[4:] == bytes([127])


def test_int8_of_zeros() -> None:
    assert sent([0.0, -0.0], "int8") == [0.0, 0.0]


def test_int8_without_a_generator_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="generator"):
        encode(np.ones(2, np.float32), "int8", None)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_payload_of_another_length_is_not_decoded(precision: str) -> None:
    payload = encode(np.ones(16, np.float32), precision, draws())
    with pytest.raises(AssertionError):
        decode([payload, payload[:-1]], precision, (16,))
