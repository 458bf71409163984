"""Hutchinson's diagonal against matrices whose diagonal is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hiso_ray.method.hutchinson import diagonal


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def symmetric(dimension: int) -> Tensor:
    half = torch.randn(dimension, dimension, generator=rng(1))
    return half + half.T


def test_a_diagonal_matrix_needs_one_sample() -> None:
    wanted = torch.tensor([3.0, -1.0, 0.0, 0.25])
    assert torch.equal(diagonal(lambda v: wanted * v, 4, 1, rng()), wanted)


def test_the_probes_are_signs_each_one_anew() -> None:
    seen: list[Tensor] = []

    def identity(v: Tensor) -> Tensor:
        seen.append(v.clone())
        return v

    diagonal(identity, 1000, 3, rng())
    assert all(set(v.tolist()) == {-1.0, 1.0} for v in seen)
    assert all(abs(float(v.mean())) < 0.15 for v in seen)
    assert not torch.equal(seen[0], seen[1])


def test_a_full_matrix_is_approached_as_fast_as_the_off_diagonal_says() -> None:
    matrix = symmetric(20)
    deviation = (matrix.square().sum(1) - matrix.diagonal().square()).sqrt()
    for samples in (100, 10_000):
        found = diagonal(lambda v: matrix @ v, 20, samples, rng())
        scaled = (found - matrix.diagonal()) / deviation * samples**0.5
        assert scaled.abs().max() < 4
        assert scaled.square().mean().item() == pytest.approx(1, abs=0.9)


def test_the_generator_decides_everything() -> None:
    matrix = symmetric(8)
    one, two, other = (diagonal(lambda v: matrix @ v, 8, 3, rng(s)) for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
