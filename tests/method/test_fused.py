"""Passes in one kernel against the same passes chunk by chunk in torch.

On a machine with a GPU both run there and must agree to the last bit, and with the CPU; elsewhere
the kernels run in Triton's interpreter, which rounds a fused multiply-add twice and cuts bfloat16
off instead of rounding it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from hiso_ray.method.curvature import initial
from hiso_ray.method.direction import Directions
from hiso_ray.method.perturbed import perturb
from hiso_ray.method.philox import Distribution
from hiso_ray.method.scalar import Rule, State, Step, apply_record, step_out_of_place

CPU, GPU = torch.device("cpu"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
Scaled = Literal["both", "probe", "update"]
SIZES = [1, 5, 1027, 100_003] if GPU.type == "cuda" else [5, 1027]
ROUNDING = {torch.float32: 3e-7, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def standing(
    d: int, arm: str, scaled: Scaled, device: torch.device, *, fused: bool, of: Distribution
) -> tuple[State, Directions]:
    """Some x and H, the same on every device."""
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(d, generator=rng).to(device)
    curvature = initial(arm, (("w", (d,)),), device, seed=0, rounds=1)
    for tensor in curvature.stored().values():
        if tensor.numel() == d:
            tensor.copy_(torch.rand(d, generator=rng) + 0.1)
    directions = Directions(d, device, 0, distribution=of)
    directions.fused = fused
    return State(x, curvature, scaled), directions


def same(fused: Tensor, plain: Tensor) -> None:
    assert fused.dtype == plain.dtype
    if GPU.type == "cuda":
        assert torch.equal(fused.cpu(), plain.cpu())
    else:
        atol = ROUNDING[fused.dtype] * float(plain.float().abs().max())
        assert torch.allclose(fused.float(), plain.float(), rtol=ROUNDING[fused.dtype], atol=atol)


def every_way(d: int, arm: str, scaled: Scaled, of: Distribution) -> list[tuple[State, Directions]]:
    """Fused on the GPU, chunk by chunk on it, and chunk by chunk on the CPU."""
    return [
        standing(d, arm, scaled, GPU, fused=True, of=of),
        standing(d, arm, scaled, GPU, fused=False, of=of),
        standing(d, arm, scaled, CPU, fused=False, of=of),
    ]


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("arm", ["none", "diagonal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_probe_in_one_kernel(d: int, arm: str, dtype: torch.dtype) -> None:
    cases: list[tuple[Distribution, int, int]] = [
        ("gaussian", 0, d), ("gaussian", d // 3, d // 2 + 1), ("rademacher", d // 2, d - d // 2),
    ]  # fmt: skip
    for of, start, n in cases:
        found = []
        for state, directions in every_way(d, arm, "both", of):
            out = torch.full((n,), torch.nan, dtype=dtype, device=state.x.device)
            before = state.x.clone()
            perturb(out, state.x, (7, 2), state.in_probe, directions, 0.5, start)
            assert torch.equal(state.x, before)
            found.append(out)
        same(found[0], found[1])
        same(found[0], found[2])


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize(
    ("arm", "scaled"),
    [("none", "both"), ("diagonal", "both"), ("diagonal", "probe"), ("frozen", "update")],
)
@pytest.mark.parametrize(("steps", "n", "every"), [(1, 3, False), (2, 1, False), (2, 2, True)])
def test_a_replay_in_one_kernel(
    d: int, arm: str, scaled: Scaled, steps: int, n: int, every: bool
) -> None:
    g = np.random.default_rng(1).standard_normal((steps, n)).astype(np.float32) * 10
    found = []
    for state, directions in every_way(d, arm, scaled, "gaussian"):
        local = torch.full_like(state.x, torch.nan)
        names = [[(k, p) for p in range(n)] for k in range(steps)]
        step_out_of_place(local, state.x, g[0], names[0], 0.1, state, directions)
        some = [Step(own, scalars) for own, scalars in zip(names, g, strict=True)]
        for _ in range(2):  # a frozen H learns from the first alone
            apply_record(state, directions, some, Rule(0.01, 0.95, 1e-8, every))
        stored = list(state.curvature.stored().values())
        found.append(([local, state.x, *stored], state.update_norm))
    for other, norm in found[1:]:
        for one, tensor in zip(found[0][0], other, strict=True):
            same(one, tensor)
        assert found[0][1] == pytest.approx(norm, rel=1e-5)


def test_more_directions_than_are_read_side_by_side() -> None:
    g = np.random.default_rng(2).standard_normal(40).astype(np.float32)
    names = [(1, client, p) for client in range(8) for p in range(5)]
    found = []
    for state, directions in every_way(21, "diagonal", "both", "gaussian"):
        apply_record(state, directions, [Step(names, g)], Rule(0.1, 0.9, 1e-8))
        found.append(state.x)
    same(found[0], found[1])
    same(found[0], found[2])


@pytest.mark.parametrize("bad", [0.0, float("inf"), float("nan")])
def test_what_a_bad_h_does_is_the_same_in_one_kernel(bad: float) -> None:
    found = []
    for state, directions in every_way(64, "diagonal", "both", "gaussian"):
        state.curvature.stored()["h"][10] = bad
        out = torch.empty_like(state.x)
        found.append(perturb(out, state.x, (7, 2), state.in_probe, directions, 1e-3).cpu())
    for other in found[1:]:
        assert torch.equal(found[0].isfinite(), other.isfinite())
    assert bool(found[0][10].isfinite()) == (bad == float("inf"))
    assert found[0].isfinite().sum() >= 63
