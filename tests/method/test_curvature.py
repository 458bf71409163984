"""Curvature arms: numbers by hand, a plain whole-vector computation, and traps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from hiso_ray.method.curvature import ARMS, Curvature, OracleDiagonal, initial, stored_floats

CPU = torch.device("cpu")
LAYOUT = (("embed", (7, 5)), ("bias", (6,)), ("gain", ()), ("conv", (3, 2, 4)), ("column", (4, 1)))
D = 35 + 6 + 1 + 24 + 4
CONTROLS = ["random", "permuted"]  # they weigh samples by the H of the round's start
LEARNING = ["diagonal", "row", "tensor", "scalar", "frozen", "random", "permuted"]
SMALL = ("tensor", "row", "scalar")
SINGLE = ("rounds", "log_moments")  # what stored_floats does not count
BETA, EPS = 0.75, 0.5


def make(arm: str, d: int | None = None, seed: int = 3, rounds: int = 10**6) -> Curvature:
    layout = LAYOUT if d is None else (("x", (d,)),)
    return initial(arm, layout, CPU, seed=seed, rounds=rounds)


def chunks(d: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, d)) for i in range(0, d, size)]


def apply(arm: Curvature, samples: Sequence[torch.Tensor], size: int = D, eps: float = EPS) -> None:
    """One round, chunk by chunk; the caller's samples stay as they are."""
    for where in chunks(len(samples[0]), size):
        arm.absorb([sample[where].clone() for sample in samples], where, BETA, eps)
    arm.commit(BETA, eps)


def used(arm: Curvature, d: int = D, size: int = D) -> torch.Tensor:
    """H on every weight, seen from outside: (H^{1/2} 1)²."""
    parts = [arm.color(torch.ones(w.stop - w.start), w).clone() for w in chunks(d, size)]
    return torch.cat(parts).double().square()


def draw(count: int, seed: int = 0, d: int = D) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [
        torch.randn(d, generator=rng).square() * torch.linspace(0.1, 9, d) for _ in range(count)
    ]


# By hand


def test_diagonal_by_hand() -> None:
    arm = make("diagonal", 3)
    arm.stored()["h"].copy_(torch.tensor([1.0, 4.0, 0.25]))
    assert arm.whiten(torch.ones(3), slice(0, 3)).tolist() == [1.0, 0.5, 2.0]
    assert arm.color(torch.ones(3), slice(0, 3)).tolist() == [1.0, 2.0, 0.5]
    apply(arm, [torch.tensor([4.0, 0.0, 1.0])])
    # β H + (1-β)(sample + ε)
    expected = [0.75 + 0.25 * 4.5, 3 + 0.25 * 0.5, 0.1875 + 0.25 * 1.5]
    assert arm.stored()["h"].tolist() == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # rows [0 2] [4 10], vector [1 5 6], number [8]; β + (1-β)(mean + ε)
        ("row", [1.125, 2.625, 1.875, 2.875]),
        ("tensor", [1.875, 1.875, 2.875]),
        ("scalar", [0.75 + 0.25 * (36 / 8 + 0.5)]),
    ],
)
def test_means_by_hand(name: str, expected: list[float]) -> None:
    layout = (("w", (2, 2)), ("b", (3,)), ("g", ()))
    sample = torch.tensor([0.0, 2, 4, 10, 1, 5, 6, 8])
    arm = initial(name, layout, CPU, seed=0, rounds=0)
    apply(arm, [sample], size=3)  # chunks end inside a row and inside the vector
    assert arm.stored()["h"].tolist() == expected
    per_weight = {
        "row": [0, 0, 1, 1, 2, 2, 2, 3],
        "tensor": [0, 0, 0, 0, 1, 1, 1, 2],
        "scalar": [0] * 8,
    }[name]
    h = torch.tensor(expected)[torch.tensor(per_weight)]
    assert torch.equal(arm.whiten(torch.full((8,), 3.0), slice(0, 8)), 3 * torch.rsqrt(h))
    colored = arm.color(torch.full((5,), 3.0), slice(1, 6))
    assert torch.allclose(colored, 3 * torch.sqrt(h[1:6]), rtol=3e-7)


def test_identity_holds_nothing() -> None:
    arm, u = make("none"), torch.randn(D)
    apply(arm, draw(2))
    assert arm.whiten(u, slice(0, D)) is u
    assert arm.color(u, slice(0, D)) is u
    assert arm.values() is None
    assert arm.stored() == {}


# Against plain code on whole vectors


def per_row(h: torch.Tensor) -> torch.Tensor:
    parts = []
    for part, (_, shape) in zip(h.split([35, 6, 1, 24, 4]), LAYOUT, strict=True):
        table = part.reshape(shape[0], -1) if len(shape) > 1 else part.reshape(1, -1)
        parts.append(table.mean(1, keepdim=True).expand_as(table).reshape(-1))
    return torch.cat(parts)


def per_tensor(h: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.mean().expand_as(part) for part in h.split([35, 6, 1, 24, 4])])


def drawn(h: torch.Tensor, arm: Curvature) -> torch.Tensor:
    draws = arm.draws.double()  # type: ignore[attr-defined]
    return torch.exp(h.log().mean() + h.log().std(correction=0) * draws)


PLAIN: dict[str, Callable[[torch.Tensor, Curvature], torch.Tensor]] = {
    "diagonal": lambda h, arm: h,
    "frozen": lambda h, arm: h,
    "row": lambda h, arm: per_row(h),
    "tensor": lambda h, arm: per_tensor(h),
    "scalar": lambda h, arm: h.mean().expand_as(h),
    "random": drawn,
    "permuted": lambda h, arm: h[arm.order.long()],  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("name", LEARNING)
def test_equals_the_plain_computation(name: str) -> None:
    # The mean of the learned diagonal is the learned mean: both are linear in the samples.
    arm, h = make(name), torch.ones(D, dtype=torch.float64)
    for round_ in range(4):
        samples = draw(1 + round_ % 2, seed=round_)
        # The controls divide a sample by the learned H in place of the H in use.
        factor = PLAIN[name](h, arm) / h if name in CONTROLS else torch.ones(D)
        apply(arm, samples, size=13)
        for sample in samples:
            h = BETA * h + (1 - BETA) * (factor * sample.double() + EPS)
        expected, u = PLAIN[name](h, arm), torch.randn(D)
        for where in chunks(D, 13):
            root = expected[where].sqrt()
            assert torch.allclose(arm.whiten(u[where], where).double() * root, u[where].double())
            assert torch.allclose(arm.color(u[where], where).double() / root, u[where].double())
    values = arm.values()
    assert values is not None
    assert float(values.min()) == pytest.approx(float(expected.min()), rel=1e-5)
    assert float(values.max()) == pytest.approx(float(expected.max()), rel=1e-5)


def test_the_diagonal_has_the_bits_it_always_had() -> None:
    arm, h, d = make("diagonal", 70_001), torch.ones(70_001), 70_001
    for _ in range(3):
        deltas = [torch.randn(d) for _ in range(2)]
        for where in chunks(d, 1 << 16):
            arm.absorb([delta[where].square() for delta in deltas], where, 0.95, 1e-8)
        arm.commit(0.95, 1e-8)
        for delta in deltas:
            h.mul_(0.95).add_(delta.square().add_(1e-8), alpha=1 - 0.95)
        assert torch.equal(arm.stored()["h"], h)
    u = torch.randn(d)
    assert torch.equal(arm.whiten(u.clone(), slice(0, d)), torch.rsqrt(h).mul_(u))


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("size", [1, 4, 16, 37])
def test_chunks_do_not_show(name: str, size: int) -> None:
    cut, uncut = make(name), make(name)
    for round_ in range(3):
        samples = draw(2, seed=round_)
        apply(cut, samples, size)
        apply(uncut, samples)
    assert torch.allclose(used(cut, size=size), used(uncut), rtol=1e-6, atol=0)
    for name_, tensor in cut.stored().items():
        assert torch.allclose(tensor, uncut.stored()[name_], rtol=1e-6, atol=0)


def test_means_of_many_elements_are_exact() -> None:
    # Trap: a float32 running sum loses the small terms: 2^24 + 1 = 2^24.
    d = 1 << 12
    arm = make("scalar", d)
    sample = torch.ones(d)
    sample[0] = 2.0**26
    apply(arm, [sample], size=1 << 6, eps=0.0)
    mean = (2.0**26 + d - 1) / d
    assert arm.stored()["h"].item() == np.float32(BETA + (1 - BETA) * mean)


# What every learning arm promises


@pytest.mark.parametrize("name", LEARNING)
def test_h_is_frozen_within_a_round(name: str) -> None:
    # Clients used H_r; the record's update reads chunk j after chunks 0..j-1 were absorbed.
    arm = make(name)
    apply(arm, draw(1))
    before, (sample,) = used(arm), draw(1, seed=1)
    for where in chunks(D, 9):
        now = arm.color(torch.ones(where.stop - where.start), where).double().square()
        assert torch.allclose(now, before[where], rtol=1e-6, atol=0)
        arm.absorb([sample[where].clone()], where, BETA, EPS)
    arm.commit(BETA, EPS)
    assert not torch.allclose(used(arm), before)


@pytest.mark.parametrize("name", [arm for arm in LEARNING if arm not in CONTROLS])
def test_learning_from_all_steps_is_one_average_each(name: str) -> None:
    together, apart = make(name), make(name)
    samples = draw(3)
    apply(together, samples)
    for sample in samples:
        apply(apart, [sample])
    assert torch.equal(together.stored()["h"], apart.stored()["h"])
    assert torch.allclose(used(together), used(apart), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", LEARNING)
def test_never_falls_below_eps_and_never_sticks_at_one(name: str) -> None:
    # Trap: H in half precision freezes at 1 for β ≥ .999; without ε it underflows.
    slow, floor = make(name), make(name)
    slow.absorb([torch.zeros(D)], slice(0, D), 0.999, 1e-8)
    slow.commit(0.999, 1e-8)
    assert (used(slow) < 1).all()
    for _ in range(200):
        floor.absorb([torch.zeros(D)], slice(0, D), 0.5, 1e-8)
        floor.commit(0.5, 1e-8)
    assert used(floor).tolist() == pytest.approx([1e-8] * D, rel=1e-4)


@pytest.mark.parametrize("name", ARMS)
def test_a_snapshot_restores_everything(name: str) -> None:
    old, new = make(name, rounds=2), make(name, rounds=2)
    if isinstance(old, OracleDiagonal):
        old.set_hessian(draw(1)[0])
    apply(old, draw(1))
    kept = {key: tensor.cpu().numpy().copy() for key, tensor in old.stored().items()}
    assert kept.keys() == new.stored().keys()
    assert all(array.dtype == np.float32 for array in kept.values())
    for key, tensor in new.stored().items():
        tensor.copy_(torch.from_numpy(kept[key]))
    assert torch.equal(used(new), used(old))
    held = new.stored()
    for round_ in range(3):  # across the round in which ``frozen`` stops
        apply(old, draw(1, seed=round_))
        apply(new, draw(1, seed=round_))
        assert torch.equal(used(new), used(old))
    assert all(held[key] is tensor for key, tensor in new.stored().items())


@pytest.mark.parametrize("name", ARMS)
def test_floats_are_counted(name: str) -> None:
    arm = make(name)
    held = sum(tensor.numel() for key, tensor in arm.stored().items() if key not in SINGLE)
    if name == "random":
        held += arm.draws.numel()  # type: ignore[attr-defined]
    if name == "permuted":  # the indices, and the next H while a round is absorbed
        held += arm.order.numel() + D  # type: ignore[attr-defined]
        assert arm.order.element_size() == 4  # type: ignore[attr-defined]
    assert stored_floats(name, LAYOUT) == held


def test_counts_by_hand() -> None:
    counts = {name: stored_floats(name, LAYOUT) for name in ARMS}
    assert counts == {
        "none": 0, "diagonal": 70, "row": 7 + 1 + 1 + 3 + 4, "tensor": 5, "scalar": 1,
        "frozen": 70, "random": 140, "permuted": 210, "oracle": 70,
    }  # fmt: skip
    assert stored_floats("permuted", (("x", (2**31 + 1,)),)) == 4 * (2**31 + 1)


def test_unknown_arms_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'diag' is unknown; choose one of none, .*oracle"):
        make("diag")
    with pytest.raises(ValueError, match="'diag' is unknown"):
        stored_floats("diag", LAYOUT)


@pytest.mark.parametrize("name", SMALL)
def test_means_never_hold_the_vector(name: str) -> None:
    # A vector of 2^50 elements: any allocation of d elements fails.
    layout = (("a", (4, 2**48)), ("b", (3,)))
    arm = initial(name, layout, CPU, seed=0, rounds=0)
    where = slice(2**48 - 2, 2**48 + 1)  # the end of row 0, the beginning of row 1
    arm.absorb([torch.tensor([2.0**47, 2.0**47, 2.0**48])], where, BETA, 0.0)
    arm.commit(BETA, 0.0)
    h = {"row": [1.0, 1.0, 0.75, 0.75, 0.75], "tensor": [0.875, 0.75], "scalar": [0.875]}[name]
    assert arm.stored()["h"].tolist() == pytest.approx(h)


# What one arm promises


def test_frozen_stops_after_k_rounds() -> None:
    frozen, diagonal = make("frozen", rounds=2), make("diagonal")
    for round_ in range(2):
        apply(frozen, draw(2, seed=round_))
        apply(diagonal, draw(2, seed=round_))
    h = diagonal.stored()["h"].clone()
    assert torch.equal(frozen.stored()["h"], h)
    for round_ in range(2, 5):
        apply(frozen, draw(2, seed=round_))
    assert torch.equal(frozen.stored()["h"], h)
    assert frozen.stored()["rounds"].tolist() == [2.0]
    never = make("frozen", rounds=0)
    apply(never, draw(1))
    assert torch.equal(used(never), torch.ones(D, dtype=torch.float64))


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_learn_what_the_diagonal_would_from_the_same_sums(name: str) -> None:
    # Without that, a weight whose H another one uses would feed on its own spread: H ran away.
    arm, diagonal = make(name), make("diagonal")
    for round_ in range(6):
        (square,) = draw(1, seed=round_)  # (Σ g u)², before H divides it
        for one in (arm, diagonal):
            h = used(one).float()
            apply(one, [square / h])
    assert torch.allclose(arm.stored()["h"], diagonal.stored()["h"], rtol=1e-5)
    assert not torch.allclose(used(arm), used(diagonal), rtol=0.1)


def test_permuted_is_the_learned_h_in_another_order() -> None:
    arm, diagonal = make("permuted"), make("diagonal")
    apply(arm, draw(1))
    apply(diagonal, draw(1))
    learned = diagonal.stored()["h"]
    assert torch.equal(arm.stored()["h"], learned)
    values = arm.values()
    assert values is not None
    assert torch.equal(values.sort().values, learned.sort().values)
    assert (values == learned).float().mean() < 0.2
    assert torch.allclose(values.double(), used(arm))


def test_random_has_the_learned_mean_and_spread_of_logs() -> None:
    d = 20_000
    arm, samples = make("random", d), draw(1, d=d)
    apply(arm, samples, size=d)
    learned, drawn = arm.stored()["h"].double().log(), used(arm, d, d).log()
    assert learned.std() > 0.5
    assert float(drawn.mean()) == pytest.approx(float(learned.mean()), abs=0.03)
    assert float(drawn.std()) == pytest.approx(float(learned.std()), rel=0.03)
    assert abs(float(torch.corrcoef(torch.stack([learned, drawn]))[0, 1])) < 0.03
    once = drawn.sub(drawn.mean()).div(drawn.std())
    apply(arm, samples, size=d)
    again = used(arm, d, d).log()
    again = again.sub(again.mean()).div(again.std())
    assert torch.allclose(once, again, atol=1e-4)  # the same draws round after round


@pytest.mark.parametrize(("name", "fixed"), [("permuted", "order"), ("random", "draws")])
def test_what_is_fixed_comes_from_the_seed(name: str, fixed: str) -> None:
    def drawn(seed: int) -> torch.Tensor:
        found = getattr(make(name, seed=seed), fixed)
        assert isinstance(found, torch.Tensor)
        return found

    assert torch.equal(drawn(2**64 - 1), drawn(2**64 - 1))
    assert not torch.equal(drawn(0), drawn(1))
    assert not torch.equal(drawn(1), drawn(1 + 2**32))


def test_oracle_knows_what_it_was_told_and_nothing_else() -> None:
    arm = make("oracle", 4)
    assert isinstance(arm, OracleDiagonal)
    apply(arm, [torch.full((4,), 9.0)])
    assert used(arm, 4).tolist() == [1.0] * 4
    told = torch.tensor([-3.0, 0.0, 5.0, 0.04])  # mean |·| = 2.01
    arm.set_hessian(told)
    assert told.tolist() == pytest.approx([-3.0, 0.0, 5.0, 0.04])
    assert arm.stored()["h"].tolist() == pytest.approx([3 / 2.01, 0.01, 5 / 2.01, 0.04 / 2.01])
    apply(arm, [torch.full((4,), 9.0)])
    assert arm.stored()["h"].tolist() == pytest.approx([3 / 2.01, 0.01, 5 / 2.01, 0.04 / 2.01])
    arm.set_hessian(torch.zeros(4))
    assert used(arm, 4).tolist() == [1.0] * 4


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_oracle_refuses_what_is_no_diagonal(bad: float) -> None:
    arm = make("oracle", 2)
    assert isinstance(arm, OracleDiagonal)
    with pytest.raises(ValueError, match="not finite"):
        arm.set_hessian(torch.tensor([1.0, bad]))
    with pytest.raises(ValueError, match=r"shape \(3,\) was measured for H of shape \(2,\)"):
        arm.set_hessian(torch.ones(3))
    assert used(arm, 2).tolist() == [1.0, 1.0]
