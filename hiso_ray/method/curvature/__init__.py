"""H, the shared curvature estimate: z = H^{-1/2} u, and H <- β H + (1-β)(sample + ε).

REFERENCE: HiSo, arXiv 2506.02370, whose sample is Δ²; HiZOO, arXiv 2402.15173, takes second
differences instead. β (``hessian_retention``) is the share of the *old* H that is kept; ε is
inside the average, so H never falls below it. H is float32 whatever the weights' dtype.

============  =============================  ==============================================
``none``      H = 1                          DeComFL (arXiv 2405.15861)
``diagonal``  one H_i per weight             HiSo
``row``       mean of H over each row        is one number per output neuron enough?
``tensor``    mean of H over each tensor     is one number per tensor enough?
``scalar``    mean of H over all weights     is one number enough?
``frozen``    diagonal, fixed after k rounds is it enough to learn H early?
``random``    drawn like the learned H       does the spread of H alone help?
``permuted``  the learned H, shuffled        does it matter which weight has which H_i?
``oracle``    the loss's own |diag ∇²f|      would a perfect H help more?
============  =============================  ==============================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from hiso_ray.method.curvature.contract import Curvature
from hiso_ray.method.curvature.controls import PermutedDiagonal, RandomDiagonal, index_dtype
from hiso_ray.method.curvature.diagonal import Diagonal, FrozenDiagonal, OracleDiagonal
from hiso_ray.method.curvature.identity import Identity
from hiso_ray.method.curvature.means import BlockMeans, rows, tensors, whole
from hiso_ray.method.layout import Layout, dimension

__all__ = [
    "ARMS",
    "Curvature",
    "Diagonal",
    "Identity",
    "OracleDiagonal",
    "initial",
    "is_plain",
    "stored_floats",
]


class Arm(NamedTuple):
    """How an arm is built, and what it holds.

    Attributes:
        build: (layout, device, seed, rounds) -> H_0.
        floats: layout -> number of float32-sized elements held.
    """

    build: Callable[[Layout, torch.device, int, int], Curvature]
    floats: Callable[[Layout], int]


def _permuted_floats(layout: Layout) -> int:
    d = dimension(layout)
    return d * (2 + index_dtype(d).itemsize // 4)


ARMS: dict[str, Arm] = {
    "none": Arm(lambda layout, device, seed, k: Identity(), lambda layout: 0),
    "diagonal": Arm(lambda layout, device, seed, k: Diagonal(dimension(layout), device), dimension),
    "row": Arm(
        lambda layout, device, seed, k: BlockMeans(rows(layout), device),
        lambda layout: sum(run.blocks for run in rows(layout)),
    ),
    "tensor": Arm(
        lambda layout, device, seed, k: BlockMeans(tensors(layout), device),
        lambda layout: sum(run.blocks for run in tensors(layout)),
    ),
    "scalar": Arm(
        lambda layout, device, seed, k: BlockMeans(whole(layout), device), lambda layout: 1
    ),
    "frozen": Arm(
        lambda layout, device, seed, k: FrozenDiagonal(dimension(layout), device, k), dimension
    ),
    "random": Arm(
        lambda layout, device, seed, k: RandomDiagonal(dimension(layout), device, seed),
        lambda layout: 2 * dimension(layout),
    ),
    "permuted": Arm(
        lambda layout, device, seed, k: PermutedDiagonal(dimension(layout), device, seed),
        _permuted_floats,
    ),
    "oracle": Arm(
        lambda layout, device, seed, k: OracleDiagonal(dimension(layout), device), dimension
    ),
}


def _arm(name: str) -> Arm:
    if name not in ARMS:
        raise ValueError(f"curvature {name!r} is unknown; choose one of {', '.join(ARMS)}")
    return ARMS[name]


def initial(arm: str, layout: Layout, device: torch.device, *, seed: int, rounds: int) -> Curvature:
    """Creates an arm with H_0 = 1.

    Args:
        arm: one of :data:`ARMS`.
        layout: (name, shape) of every trainable tensor, in the order of the flat vector.
        device: where H lives and chunks come from.
        seed: of the run; ``permuted`` draws its permutation from it, ``random`` its draws.
        rounds: k, for ``frozen`` only: how many rounds H learns.

    Raises:
        ValueError: no such arm.
    """
    return _arm(arm).build(layout, device, seed, rounds)


def is_plain(curvature: Curvature) -> bool:
    """Whether directions are divided by a vector stored in memory, or not at all, as fused passes
    require."""
    return isinstance(curvature, Identity) or (
        isinstance(curvature, Diagonal) and type(curvature).used is Diagonal.used
    )


def stored_floats(arm: str, layout: Layout) -> int:
    """How many float32-sized elements an arm holds besides x: H, fixed draws and indices.

    Leaves out a counter or two moments, and the sums of ``row`` and ``tensor`` during an update
    (one float64 per block and sample).

    Raises:
        ValueError: no such arm.
    """
    return _arm(arm).floats(layout)
