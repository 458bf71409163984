"""Hutchinson's diagonal against matrices whose diagonal is known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hiso_ray.method import philox
from hiso_ray.method.hutchinson import diagonal


def signs(dimension: int, samples: int, seed: int = 0) -> Iterator[Tensor]:
    for i in range(samples):
        yield philox.fill(torch.empty(dimension), (seed, i), 0, "rademacher")


def symmetric(dimension: int) -> Tensor:
    half = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(1))
    return half + half.T


def test_a_diagonal_matrix_needs_one_sample() -> None:
    wanted = torch.tensor([3.0, -1.0, 0.0, 0.25])
    assert torch.equal(diagonal(lambda v: wanted * v, signs(4, 1)), wanted)


def test_a_full_matrix_is_approached_as_fast_as_the_off_diagonal_says() -> None:
    matrix = symmetric(20)
    deviation = (matrix.square().sum(1) - matrix.diagonal().square()).sqrt()
    for samples in (100, 10_000):
        found = diagonal(lambda v: matrix @ v, signs(20, samples))
        scaled = (found - matrix.diagonal()) / deviation * samples**0.5
        assert scaled.abs().max() < 4
        assert scaled.square().mean().item() == pytest.approx(1, abs=0.9)
