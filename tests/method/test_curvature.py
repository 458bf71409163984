from __future__ import annotations

import pytest
import torch

from hiso_ray.method.curvature import Diagonal, Identity, Scalar, initial

CPU = torch.device("cpu")
ALL = slice(0, 3)


def test_diagonal_by_hand() -> None:
    arm = Diagonal(3, CPU)
    arm.h = torch.tensor([1.0, 4.0, 0.25])
    assert arm.whiten(torch.ones(3), ALL).tolist() == [1.0, 0.5, 2.0]
    arm.absorb([torch.tensor([2.0, 0.0, 1.0])], ALL, beta=0.75, eps=0.5)
    arm.commit(0.75, 0.5)
    # β H + (1-β)(Δ² + ε)
    assert arm.h.tolist() == pytest.approx([0.75 + 0.25 * 4.5, 3 + 0.25 * 0.5, 0.1875 + 0.25 * 1.5])


def test_scalar_is_the_mean_and_waits_for_the_whole_vector() -> None:
    arm = Scalar(4, CPU)
    arm.absorb([torch.tensor([2.0, 0.0])], slice(0, 2), 0.75, 0.5)
    assert arm.h.tolist() == [1.0]
    arm.absorb([torch.tensor([4.0, 2.0])], slice(2, 4), 0.75, 0.5)
    arm.commit(0.75, 0.5)
    assert arm.h.tolist() == pytest.approx([0.75 + 0.25 * (24 / 4 + 0.5)])
    assert arm.whiten(torch.ones(2), slice(0, 2)).tolist() == pytest.approx(
        [arm.h.item() ** -0.5] * 2
    )


@pytest.mark.parametrize("arm", ["diagonal", "scalar"])
def test_learning_from_all_steps_is_one_average_each(arm: str) -> None:
    together, apart = initial(arm, 3, CPU), initial(arm, 3, CPU)
    deltas = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, 1.0])]
    together.absorb(deltas, ALL, 0.9, 0.1)
    together.commit(0.9, 0.1)
    for delta in deltas:
        apart.absorb([delta], ALL, 0.9, 0.1)
        apart.commit(0.9, 0.1)
    assert torch.equal(together.values(), apart.values())


@pytest.mark.parametrize("arm", ["diagonal", "scalar"])
def test_never_falls_below_eps_and_never_sticks_at_one(arm: str) -> None:
    # Trap: H in half precision freezes at 1 for β ≥ .999; without ε it underflows.
    slow, floor = initial(arm, 3, CPU), initial(arm, 3, CPU)
    slow.absorb([torch.zeros(3)], ALL, 0.999, 1e-8)
    slow.commit(0.999, 1e-8)
    assert slow.values().dtype == torch.float32
    assert (slow.values() < 1).all()
    for _ in range(2000):
        floor.absorb([torch.zeros(3)], ALL, 0.5, 1e-8)
        floor.commit(0.5, 1e-8)
    assert floor.values().min().item() == pytest.approx(1e-8, rel=1e-5)


def test_identity_holds_nothing() -> None:
    u = torch.randn(3)
    assert Identity(3, CPU).whiten(u, ALL) is u
    assert Identity(3, CPU).values() is None
