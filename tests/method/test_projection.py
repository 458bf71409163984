"""Ferret's blocks, scalars and steps, against its authors' formulas in float64 on whole vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hiso_ray.method.curvature import Identity
from hiso_ray.method.layout import Layout
from hiso_ray.method.philox import stream_id
from hiso_ray.method.philox.reference import normals
from hiso_ray.method.projection import Blocks, block_sizes
from hiso_ray.method.scalar import State

CPU = torch.device("cpu")
SEED = 7
# The median is (18 + 60) / 2: tensors share a block of up to 35 weights, which 4 + 6 + 18 do.
SIZES = (60, 800, 4, 6, 18, 180)
LAYOUT: Layout = [(f"w{i}", (size,)) for i, size in enumerate(SIZES)]
D = sum(SIZES)


def blocks(projections: int, layout: Layout = LAYOUT, cache: int = 0) -> Blocks:
    return Blocks(layout, projections, CPU, budget_bytes=cache)


def changes(clients: int) -> np.ndarray:
    """(clients, D) float32: no two blocks change alike."""
    rng, scale = np.random.default_rng(0), np.repeat([1.0, 0.01, 9.0, 3.0, 1.0, 0.3], SIZES)
    return (rng.standard_normal((clients, D)) * scale).astype(np.float32)


def start() -> State:
    return State(torch.linspace(-1, 1, D), Identity())


@pytest.mark.parametrize(
    ("tensors", "most", "sizes"),
    [
        (SIZES, 99, [60, 800, 28, 180]),
        ((10, 10, 10), 99, [10, 10, 10]),  # 9 is too little for any two
        ((2, 2, 2, 100, 100, 100, 100), 99, [6, 100, 100, 100, 100]),
        ((2, 2, 2, 100, 100, 100, 100), 5, [6, 100, 100, 100, 100]),
        ((2, 2, 2, 100, 100, 100, 100), 4, [406]),
        ((40,), 0, [40]),
    ],
)
def test_blocks_by_hand(tensors: tuple[int, ...], most: int, sizes: list[int]) -> None:
    assert block_sizes([(str(i), (n,)) for i, n in enumerate(tensors)], most) == sizes


def test_directions_go_where_the_last_change_was_and_are_k_in_all() -> None:
    made = blocks(1000)
    assert made.counts() == [250] * 4
    made.norms.copy_(torch.tensor([3.0, 0.0, 2.0, 5.0]))
    assert made.counts() == [2 + 297, 2, 2 + 199, 2 + 496]  # 992 in parts that end at 297.6, 496
    made.norms.zero_()
    assert made.counts() == [250] * 4
    for projections in (1, 7, 8, 9, D):
        few = blocks(projections)
        few.norms.copy_(torch.rand(len(few.sizes)))
        assert sum(few.counts()) == projections
        assert len(few.sizes) == (4 if projections >= 8 else 1)


@pytest.mark.parametrize("cache", [0, 1 << 20])
def test_two_rounds_are_the_authors_formulas(cache: int) -> None:
    """For v = u/√d_b: c = (d_b/n_b) <δ_b, v>, and x_b <- x_b - η_s Σ_k c̄_k v_k."""
    made, state, lr = blocks(200, cache=cache), start(), 0.3
    x = state.x.double().numpy()
    for seed in (SEED, SEED + 1):
        counts, deltas = made.counts(), changes(3)
        scalars = np.array([made.project(torch.from_numpy(delta), seed) for delta in deltas])
        made.apply(state, seed, scalars.mean(0), lr)
        at = 0
        for b, (size, n) in enumerate(zip(made.sizes, counts, strict=True)):
            block = slice(at, at := at + size)
            u = np.array([normals(stream_id((seed, b, k)), 0, size) for k in range(n)])
            v = u.astype(np.float64) / np.sqrt(size)
            coordinates = size / n * deltas[:, block].astype(np.float64) @ v.T
            x[block] -= lr * coordinates.mean(0) @ v
        assert np.abs(state.x.numpy() - x).max() < 1e-6 * np.abs(x).max()
    assert counts != [50] * 4, "the second round had the shares of the first"


def test_the_mean_of_many_rebuilt_changes_is_the_change() -> None:
    made, (delta,), rebuilt = blocks(D), changes(1), np.zeros(D)
    for seed in range(10):
        state = State(torch.zeros(D), Identity())
        made.apply(state, seed, made.project(torch.from_numpy(delta), seed), -1.0)
        rebuilt += state.x.numpy() / 10
    # A rebuilt change is off by √(d_b / n_b) of its length, the mean of 10 by a third of that.
    assert np.linalg.norm(rebuilt - delta) < 0.5 * np.linalg.norm(delta)
    of_blocks = np.split(delta, np.cumsum(made.sizes)[:-1])
    assert made.norms.numpy() == pytest.approx([np.linalg.norm(b) for b in of_blocks], rel=0.3)
