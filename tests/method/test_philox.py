"""Philox4x32-10 against its published vectors, and its three implementations against each other.

On a machine with a GPU the Triton kernels run there, elsewhere in Triton's interpreter, whose fused
multiply-add rounds twice: values are then the same but for their last bit.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from hiso_ray.method import philox
from hiso_ray.method.naming import Name
from hiso_ray.method.philox import Distribution, compiled, kernels, reference, stream_id

GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ORACLE = {"gaussian": reference.normals, "rademacher": reference.signs}
DISTRIBUTIONS: list[Distribution] = ["gaussian", "rademacher"]
# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, words
VECTORS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def parse(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


@triton.jit
def _words(out, block, key):
    a, b, c, d = kernels.philox(tl.load(block + tl.arange(0, 1)), key)
    at = tl.arange(0, 1)
    tl.store(out + at, a.to(tl.int64))
    tl.store(out + 1 + at, b.to(tl.int64))
    tl.store(out + 2 + at, c.to(tl.int64))
    tl.store(out + 3 + at, d.to(tl.int64))


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_the_published_vectors(counter: str, key: str, words: str) -> None:
    c, k, expected = parse(counter), parse(key), parse(words)
    assert reference.philox(c, k).tolist() == expected.tolist()
    name, block = np.concatenate([k, c[2:]]), int(c[0]) + (int(c[1]) << 32)
    assert _compiled_words(np.uint64(block), name).tolist() == expected.tolist()
    out = torch.empty(4, dtype=torch.int64, device=GPU)
    start = torch.tensor([block - 2**64 if block >= 2**63 else block], device=GPU)
    _words[(1,)](out, start, kernels.on(GPU, name))
    assert out.tolist() == expected.tolist()


def _compiled_words(block: np.uint64, name: np.ndarray) -> np.ndarray:
    import numba

    words = numba.njit(lambda block, name: compiled._philox(block, name))
    return np.array(words(block, name), np.uint32)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(
    ("start", "count"), [(0, 5003), (1, 2), (1, 4), (3, 1), (2, 9), (2**34 - 5, 33)]
)
def test_processor_and_gpu_make_what_the_reference_makes(
    start: int, count: int, distribution: Distribution
) -> None:
    name = (5, 1)
    expected = ORACLE[distribution](stream_id(name), start, start + count)
    on_cpu = philox.fill(torch.empty(count), name, start, distribution)
    assert on_cpu.numpy().tobytes() == expected.tobytes()
    on_gpu = kernels.fill(torch.empty(count, device=GPU), name, start, distribution)
    if GPU.type == "cuda":
        assert on_gpu.cpu().numpy().tobytes() == expected.tobytes()
    np.testing.assert_allclose(on_gpu.cpu().numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_slices_in_any_order_are_the_whole(distribution: Distribution) -> None:
    whole = philox.fill(torch.empty(10_007), (8, 3), 0, distribution)
    cuts = [0, 1, 6, 4097, 4098, 9000, 10_007]
    pieces = torch.full((10_007,), torch.nan)
    for start, stop in reversed(list(pairwise(cuts))):
        philox.fill(pieces[start:stop], (8, 3), start, distribution)
    assert torch.equal(pieces, whole)


def test_normals_are_box_and_mullers() -> None:
    n = 1_000_000
    words = reference.words(stream_id((2, 0)), 0, n).reshape(-1, 2)
    # float32 cannot tell all 2^32 u from each other near 1, where normals are near 0.
    u = np.float64(np.float32(words[:, 0].astype(np.float32) / 2.0**32 + 2.0**-33))
    radius, angle = np.sqrt(-2 * np.log(u)), 2 * np.pi * words[:, 1] / 2**32
    exact = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).ravel()
    found = philox.fill(torch.empty(n), (2, 0), 0, "gaussian").numpy()
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-6)


def test_every_word_makes_finite_normals() -> None:
    ends = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], np.uint32)
    a, b = (grid.ravel() for grid in np.meshgrid(ends, ends))
    normals = np.stack(reference.box_muller(a, b))
    assert np.isfinite(normals).all()
    assert 6.6 < np.abs(normals).max() < 6.8


def test_signs_are_signs_and_fair() -> None:
    n = 400_000
    found = philox.fill(torch.empty(n), (1, 1), 0, "rademacher")
    assert found.abs().eq(1).all()
    assert abs(float(found.mean())) < 5 / n**0.5
    assert abs(float((found[:-1] * found[1:]).mean())) < 5 / n**0.5


def test_names_that_differ_anywhere_are_other_directions() -> None:
    names: list[Name] = [(s, *i) for s in (0, 1, 2**63) for i in ((0,), (1,), (0, 0), (1, 0))]
    assert len({stream_id(name).tobytes() for name in names}) == len(names)


def test_rounding_to_odd_first_is_rounding_once() -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, 20_000)).astype(np.float32)
    c[::2] *= np.float32(1e-7)  # far below the product, where rounding twice goes wrong
    exact = a.astype(np.longdouble) * b + c  # 64 bits hold the product and most sums
    assert np.array_equal(reference.fma(a, b, c), exact.astype(np.float32))
    # a·b = 2^-24 + 2^-60: float64 rounds 1 + a·b to 1 + 2^-24, a tie, and that to 1.
    x = 2.0**-12
    a, b, c = (np.array([v], np.float32) for v in (2.0**-24 * (1 + x), 1 - x + x * x, 1))
    assert np.float32(a.astype(np.float64) * b + c) == 1
    assert reference.fma(a, b, c) == np.float32(1 + 2.0**-23)


def test_version_one_stays_what_it_is() -> None:
    """Ledgers name it: another result needs another ``VERSION``."""
    assert philox.VERSION == 1
    made = [philox.fill(torch.empty(1000), (11, 4), 9, of).numpy() for of in DISTRIBUTIONS]
    digests = [hashlib.sha256(some.tobytes()).hexdigest()[:16] for some in made]
    assert digests == ["1bf4ea3e4c9129ba", "6dd1555d38d6e8bf"]


@pytest.mark.parametrize("spoilt", ["stale", "broken"])
def test_compiled_code_that_was_kept_is_checked(
    monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    """numba does not see that the reference has changed since, nor that a file was cut short."""
    made: list[bool] = []

    def njit(*_: Any, cache: bool = False, **__: Any) -> Any:
        made.append(cache)
        if cache and spoilt == "broken":
            raise EOFError("pickle data was truncated")
        wrong = cache and spoilt == "stale"
        return lambda function: (
            lambda out, identity, start: np.copyto(
                out, reference.normals(identity, start, start + len(out)) + np.float32(wrong)
            )
        )

    monkeypatch.setattr(compiled.numba, "njit", njit)
    kernel = compiled._compiled(compiled._fill_normals, reference.normals)
    assert made == [True, False]
    out = np.empty(9, np.float32)
    kernel(out, stream_id((1, 2)), 3)
    assert np.array_equal(out, reference.normals(stream_id((1, 2)), 3, 12))


def test_without_triton_a_gpu_gets_the_processors_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(philox, "has_triton", lambda: False)
    found = philox.fill(torch.empty(77, device=GPU), (3, 3), 5, "gaussian")
    assert np.array_equal(found.cpu().numpy(), reference.normals(stream_id((3, 3)), 5, 82))
