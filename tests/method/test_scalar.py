"""The engine: first against what is known, then against the plain reference, then for traps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from hiso_ray.method import reference
from hiso_ray.method.curvature import Diagonal, initial
from hiso_ray.method.direction import CHUNK, Directions
from hiso_ray.method.naming import Name, Naming
from hiso_ray.method.probe import Probe
from hiso_ray.method.scalar import (
    STREAMS,
    Rule,
    State,
    Step,
    apply_record,
    deltas,
    step_out_of_place,
)

CPU = torch.device("cpu")


class Quadratic:
    """½ Σ λ (x - b)² in float64, one b per client, a group of them per batch; as a task."""

    def __init__(self, lam: torch.Tensor, at_once: int = 1) -> None:
        self.lam, self.at_once = lam, at_once
        self.several = self if at_once > 1 else None

    def losses(self, weights: torch.Tensor, batches: Sequence[Sequence[float]]) -> np.ndarray:
        x = weights.double()
        everyone = [b for batch in batches for b in batch]
        return np.array([float(0.5 * (self.lam * (x - b) ** 2).sum()) for b in everyone])

    def losses_at(self, weights: torch.Tensor, batches: Sequence[Sequence[float]]) -> np.ndarray:
        assert len(weights) <= self.at_once
        return np.stack([self.losses(row, batches) for row in weights])

    def slopes(
        self, weights: torch.Tensor, z: torch.Tensor, batches: Sequence[Sequence[float]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Exact ⟨∇F, z⟩ and F."""
        x = weights.double()
        everyone = [b for batch in batches for b in batch]
        found = [float((self.lam * (x - b)) @ z.double()) for b in everyone]
        return np.array(found), self.losses(weights, batches)


class Given:
    """A task of losses alone: a finite difference asks for no derivative."""

    at_once, several = 1, None

    def __init__(self, losses: Any) -> None:
        self.losses = losses

    def slopes(self, *_: Any) -> Any:
        raise AssertionError("asked for a derivative")


def names(seed: int, count: int) -> list[Name]:
    """Of a step's shared directions."""
    return Naming(count).of(seed, client=0)


def state(d: int, arm: str = "none", h: torch.Tensor | None = None, scaled: Any = "both") -> State:
    curvature = initial(arm, (("x", (d,)),), CPU, seed=0, rounds=100)
    if h is not None:
        curvature.h = h
    return State(torch.linspace(-1, 1, d), curvature, scaled)


def measure(
    s: State,
    task: Any,
    batches: Any,
    probe: Probe,
    perturbations: int,
    seed: int = 5,
) -> np.ndarray:
    return probe.scalars(
        task, s.x, batches, names(seed, perturbations), s.in_probe,
        Directions(len(s.x), CPU, 0), torch.empty(task.at_once, len(s.x)),
    )[0]  # fmt: skip


def steps(seeds: Sequence[int], g: np.ndarray) -> list[Step]:
    """Of a record with shared directions."""
    return [Step(names(seed, len(row)), row) for seed, row in zip(seeds, g, strict=True)]


def test_g_of_a_quadratic_is_exact() -> None:
    # g = <∇f, z> + (μ/2) zᵀ diag(λ) z for the forward difference; the last term cancels in the
    # central one.
    d, mu = 50, 1e-2
    lam = torch.linspace(0.1, 2, d, dtype=torch.float64)
    s = state(d, "diagonal", torch.linspace(0.5, 3, d))
    z = (
        torch.stack([reference.direction(5, p, d) for p in range(4)]).double()
        / s.curvature.h.sqrt()
    )
    slope = z @ (lam * (s.x.double() - 0.3))
    bend = 0.5 * mu * (z**2 @ lam)
    forward = measure(s, Quadratic(lam), [[0.3]], Probe(mu), 4)
    central = measure(s, Quadratic(lam), [[0.3]], Probe(mu, "central"), 4)
    assert forward[0] == pytest.approx((slope + bend).numpy(), rel=1e-4, abs=1e-4)
    assert central[0] == pytest.approx(slope.numpy(), rel=1e-4, abs=1e-4)
    assert forward.dtype == central.dtype == np.float32
    exact = measure(s, Quadratic(lam), [[0.3]], Probe(mu, "exact"), 4)
    assert exact[0] == pytest.approx(slope.numpy(), rel=1e-5, abs=1e-5)
    assert exact.dtype == np.float32


def test_the_second_difference_of_a_quadratic_is_exact() -> None:
    # c = zᵀ diag(λ) z, whatever x, b and μ are; the central difference beside it is as ever.
    d, mu = 50, 1e-2
    lam = torch.linspace(0.1, 2, d, dtype=torch.float64)
    s = state(d, "diagonal", torch.linspace(0.5, 3, d))
    z = torch.stack([reference.direction(5, p, d) for p in range(4)]) / s.curvature.h.sqrt()
    g = measure(s, Quadratic(lam), [[0.3], [-2.0]], Probe(mu, "central", second=True), 4)
    assert g.shape == (2, 8)
    assert g[:, :4] == pytest.approx(
        measure(s, Quadratic(lam), [[0.3], [-2.0]], Probe(mu, "central"), 4)
    )
    for row in g:
        assert row[4:] == pytest.approx((z.double() ** 2 @ lam).numpy(), rel=1e-3)


@pytest.mark.parametrize("at_once", [1, 2, 4, 9])
@pytest.mark.parametrize(
    "probe",
    [Probe(1e-2), Probe(1e-2, "central"), Probe(1e-2, "central", second=True), Probe(1, "exact"),
     Probe(1e-2, sphere=True)],
)  # fmt: skip
def test_groups_and_several_weight_vectors_at_once_change_nothing(
    probe: Probe, at_once: int
) -> None:
    # Five clients in two batches, or one a batch; P = 3 makes 3, 4, 6 or 7 points, which 2 and 4
    # do not divide.
    d, clients = 50, [0.3, -2.0, 1.0, 0.0, 7.0]
    lam = torch.linspace(0.1, 2, d, dtype=torch.float64)
    s = state(d, "diagonal", torch.linspace(0.5, 3, d))
    alone = measure(s, Quadratic(lam), [[b] for b in clients], probe, 3)
    groups = measure(s, Quadratic(lam, at_once), [clients[:3], clients[3:]], probe, 3)
    assert alone.shape == (5, 6 if probe.second else 3)
    assert np.array_equal(groups, alone)
    assert len({tuple(row) for row in groups[:, :3].tolist()}) == 5  # nobody got another's


@pytest.mark.parametrize("kind", ["forward", "central", "exact"])
def test_directions_on_the_sphere(kind: Any) -> None:
    # v = √d u/‖u‖; g multiplies u in the update, so it is v's slope times √d/‖u‖.
    d, mu = 50, 1e-2
    lam = torch.linspace(0.1, 2, d, dtype=torch.float64)
    s = state(d)
    u = torch.stack([reference.direction(5, p, d) for p in range(4)]).double()
    scale = d**0.5 / u.norm(dim=1, keepdim=True)
    v = u * scale
    slope = v @ (lam * (s.x.double() - 0.3)) + (kind == "forward") * 0.5 * mu * (v**2 @ lam)
    probe = Probe(mu, kind, sphere=True)
    g = measure(s, Quadratic(lam), [[0.3]], probe, 4)
    assert g[0] == pytest.approx((slope * scale[:, 0]).numpy(), rel=1e-4, abs=1e-4)


def test_g_agrees_with_autograd_on_a_network() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    ).double()
    inputs, labels = torch.randn(10, 6, dtype=torch.float64), torch.randint(0, 3, (10,))
    shapes = [p.shape for p in net.parameters()]
    tensor_names = [n for n, _ in net.named_parameters()]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        tensors = {n: p.view(s) for n, p, s in zip(tensor_names, parts, shapes, strict=True)}
        return torch.nn.functional.cross_entropy(
            torch.func.functional_call(net, tensors, (inputs,)), labels
        )

    s = state(sum(shape.numel() for shape in shapes))
    x = s.x.double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x)
    plain = Given(lambda w, _: np.array([float(loss(w.double()))]))
    for mu, tolerance, kind in ((1e-3, 2e-2, "forward"), (1e-3, 1e-3, "central")):
        g = measure(s, plain, [0], Probe(mu, kind), 5)
        exact = [float(gradient @ reference.direction(5, p, len(x)).double()) for p in range(5)]
        assert g[0] == pytest.approx(np.array(exact), abs=tolerance)


@pytest.mark.slow
def test_expected_step_is_the_whitened_gradient_with_the_stated_second_moment() -> None:
    # E[Δ] = H^{-1}∇f and, for P = 1, E[Δ_i²] = H_i^{-1}(‖H^{-1/2}∇f‖² + 2 (∇f)_i²/H_i).
    d, n = 4, 10_000
    gradient, h = torch.tensor([3.0, -1.0, 0.5, 2.0]), torch.tensor([4.0, 1.0, 0.25, 2.0])
    s = state(d, "diagonal", h)
    directions = Directions(d, CPU, 0)
    samples = torch.empty(n, d)
    for i in range(n):
        z = reference.direction(i, 0, d) / h.sqrt()
        g = np.array([float(gradient @ z)], np.float32)
        ((_, samples[i]),) = list(deltas(g, names(i, 1), s, directions))
    white = gradient / h.sqrt()
    square = (white.square().sum() + 2 * white**2) / h
    assert samples.mean(0).tolist() == pytest.approx((gradient / h).tolist(), abs=0.25)
    assert samples.square().mean(0).tolist() == pytest.approx(square.tolist(), rel=0.12)


CASES = [
    {"tau": tau, "perturbations": p, "central": central, "curvature": arm, "all": every}
    for tau, p, central, arm, every in [
        (1, 1, False, "none", False),
        (1, 5, False, "diagonal", False),
        (3, 2, False, "diagonal", False),
        (3, 2, True, "diagonal", True),
        (2, 3, False, "scalar", True),
        (2, 3, True, "none", False),
    ]
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c.values())))
@pytest.mark.parametrize("d", [37, CHUNK["cpu"] + 100])
def test_equals_the_plain_reference(case: dict[str, Any], d: int) -> None:
    lam = torch.linspace(0.1, 1, d, dtype=torch.float64) / d
    task = Quadratic(lam)
    lr, mu, beta, eps = 0.3, 1e-2, 0.9, 1e-3
    seeds, cohort = list(range(70, 70 + case["tau"])), [2, 5, 6]
    s = state(d, case["curvature"])
    x, h = s.x.clone(), torch.ones(d)
    directions = Directions(d, CPU, 3 * 4 * d)
    probe = Probe(mu, "central" if case["central"] else "forward")
    perturbations = case["perturbations"]
    rule = Rule(lr, beta, eps, case["all"])
    for round_ in range(3):
        here = [seed + 10 * round_ for seed in seeds]
        x, h, expected = reference.one_round(
            lambda client, k, w: task.losses(w, [[client + k]])[0], x, h, cohort, here, lr=lr,
            mu=mu, perturbations=perturbations, central=case["central"], beta=beta, eps=eps,
            curvature=case["curvature"], learn_from_all=case["all"],
        )  # fmt: skip
        buffer = torch.empty(1, d)
        g = np.empty((3, case["tau"], perturbations), np.float32)
        for i, client in enumerate(cohort):
            local = s.x.clone()
            for k, seed in enumerate(here):
                here_names = names(seed, perturbations)
                (g[i, k],), _ = probe.scalars(
                    task, local, [[client + k]], here_names, s.in_probe, directions, buffer
                )  # fmt: skip
                step_out_of_place(local, local, g[i, k], here_names, lr, s, directions)
        mean = g.astype(np.float64).mean(0).astype(np.float32)
        assert mean == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-4)
        apply_record(s, directions, steps(here, mean), rule)
        directions.forget()
    assert torch.allclose(s.x, x, rtol=1e-4, atol=1e-5)
    if case["curvature"] != "none":
        assert torch.allclose(s.curvature.values().expand(d), h, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("arm", ["none", "diagonal", "scalar"])
def test_a_lone_client_walks_exactly_where_the_record_leads(arm: str) -> None:
    d = CHUNK["cpu"] + 33
    s, directions = state(d, arm), Directions(d, CPU, 0)
    g = np.array([[0.5, -1.25], [2.0, 0.125], [-0.75, 1.0]], np.float32)
    local = s.x
    for k in range(3):
        local = step_out_of_place(torch.empty(d), local, g[k], names(k, 2), 0.1, s, directions)
    apply_record(s, directions, steps([0, 1, 2], g), Rule(0.1, beta=0.9, eps=0))
    assert torch.equal(local, s.x)


def test_probes_never_write_to_the_weights() -> None:
    # Trap: perturb, then subtract in place: drift.
    s = state(500, "diagonal")
    x, h = s.x.clone(), s.curvature.values().clone()
    s.x.requires_grad_(False)
    for seed in range(50):
        measure(s, Quadratic(torch.ones(500).double()), [[0.1], [0.2]], Probe(1e-3), 3, seed)
    assert torch.equal(s.x, x)
    assert torch.equal(s.curvature.values(), h)


def test_h_learns_once_per_step_from_the_averaged_delta() -> None:
    # Trap: one update per probe applies β P times and loses the cross terms.
    d, beta, eps = 20, 0.5, 0.01
    s, directions = state(d, "diagonal"), Directions(d, CPU, 0)
    g = np.array([[1.0, -2.0, 0.5]], np.float32)
    delta = sum(float(g[0, p]) * reference.direction(8, p, d) for p in range(3)) / 3
    apply_record(s, directions, steps([8], g), Rule(0.1, beta, eps))
    assert torch.allclose(s.curvature.values(), beta + (1 - beta) * (delta**2 + eps), rtol=1e-6)
    assert s.update_norm == pytest.approx(float(delta.norm()), rel=1e-5)


def test_h_is_frozen_within_a_round() -> None:
    d = 20
    s, directions = state(d, "diagonal"), Directions(d, CPU, 0)
    x = s.x.clone()
    g = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
    for k, seed in enumerate((1, 2)):
        for p in range(2):
            x -= 0.1 / 2 * float(g[k, p]) * reference.direction(seed, p, d)  # H = 1 in both steps
    apply_record(s, directions, steps([1, 2], g), Rule(0.1, 0.5, 1.0, learn_from_all=True))
    assert torch.allclose(s.x, x, atol=1e-6)


def test_bf16_forwards_keep_fp32_masters() -> None:
    # Trap: a 1e-5 update changes 12 % of bf16 weights.
    d = 4096
    s, directions = state(d), Directions(d, CPU, 0)
    s.x.fill_(0.5)
    seen = []

    def losses(weights: torch.Tensor, batches: Any) -> np.ndarray:
        seen.append(weights.clone())
        return np.zeros(len(batches))

    buffer = torch.empty(1, d, dtype=torch.bfloat16)
    Probe(1e-2).scalars(Given(losses), s.x, [0], names(4, 1), s.in_probe, directions, buffer)
    u = reference.direction(4, 0, d)
    assert torch.equal(seen[0], s.x.bfloat16())
    assert torch.equal(seen[1], (s.x + 1e-2 * u).bfloat16())  # rounded once, from fp32
    apply_record(s, directions, steps([4], np.ones((1, 1), np.float32)), Rule(1e-5, 0.9, 0))
    assert s.x.dtype == torch.float32
    assert (s.x != 0.5).float().mean() > 0.99


def test_descends_as_fast_as_theory_allows_and_diverges_beyond() -> None:
    # P = 1 on a quadratic: stable below 2/(Tr + 2 λmax), unstable above 2/Tr (arXiv 2604.14669).
    d = 64
    lam = torch.linspace(0.1, 1, d, dtype=torch.float64)
    trace = float(lam.sum())
    end = {}
    for name, lr in (("below", 1 / (trace + 2)), ("above", 8 / trace)):
        s, directions = state(d), Directions(d, CPU, 0)
        task = Quadratic(lam)
        for seed in range(400):
            g = measure(s, task, [[0.0]], Probe(1e-3, "central"), 1, seed)
            apply_record(s, directions, steps([seed], g), Rule(lr, beta=0.9, eps=0))
            if float(task.losses(s.x, [[0.0]])[0]) > 1e6:
                break
        end[name] = float(task.losses(s.x, [[0.0]])[0])
    assert end["below"] < 0.05 * float(Quadratic(lam).losses(state(d).x, [[0.0]])[0])
    assert end["above"] > 1e6


def test_diagonal_is_created_in_float32() -> None:
    assert Diagonal(3, CPU).h.dtype == torch.float32


# The family beyond HiSo, each by hand from the update rule.


def test_h_learns_second_differences_before_x_moves() -> None:
    # HiZOO: H <- β H + (1-β)(mean_p ½|c_p| H u_p² + ε), and x moves by the new H.
    d, beta, eps, h = 20, 0.5, 0.01, torch.linspace(0.5, 3, 20)
    s, directions = state(d, "diagonal", h.clone()), Directions(d, CPU, 0)
    x = s.x.clone()
    g, c = np.array([1.0, -2.0], np.float32), np.array([-3.0, 0.5], np.float32)
    u = [reference.direction(8, p, d) for p in range(2)]
    apply_record(s, directions, [Step(names(8, 2), g, c)], Rule(0.1, beta, eps))
    sample = (1.5 * h * u[0] ** 2 + 0.25 * h * u[1] ** 2) / 2
    new = beta * h + (1 - beta) * (sample + eps)
    assert torch.allclose(s.curvature.values(), new, rtol=1e-5)
    assert torch.allclose(s.x, x - 0.1 * (u[0] - 2 * u[1]) / 2 / new.sqrt(), atol=1e-6)


def test_momentum_adds_up_updates_from_round_to_round() -> None:
    d, lr, kept = 20, 0.1, 0.5
    s, directions = state(d), Directions(d, CPU, 0)
    s.velocity = torch.zeros(d)
    x, velocity = s.x.clone(), torch.zeros(d)
    for round_ in range(3):
        seeds, g = (2 * round_, 2 * round_ + 1), np.array([[1.0], [-0.5]], np.float32)
        apply_record(s, directions, steps(seeds, g), Rule(lr, 0.9, 0, momentum=kept))
        moved = [reference.direction(seed, 0, d) for seed in seeds]
        velocity = kept * velocity + moved[0] - 0.5 * moved[1]
        x = x - lr * velocity
    assert torch.allclose(s.x, x, atol=1e-6)


@pytest.mark.parametrize("count", [STREAMS, STREAMS + 1])
def test_any_number_of_directions_is_averaged(count: int) -> None:
    # Few are read side by side, many one after the other.
    d = CHUNK["cpu"] + 33
    s, directions = state(d), Directions(d, CPU, 0)
    g = np.linspace(-1, 2, count, dtype=np.float32)
    own = Naming(1, shared=False).of_record(9, range(count))
    found = torch.empty(d)
    for where, delta in deltas(g, own, s, directions):
        found[where] = delta
    expected = torch.zeros(d)
    for scalar, name in zip(g, own, strict=True):
        for where, u in directions.chunks(name):
            expected[where] += float(scalar) * u
    assert torch.allclose(found, expected / count, atol=1e-6)


@pytest.mark.parametrize("scaled", ["both", "probe", "update"])
def test_where_directions_are_scaled(scaled: Any) -> None:
    d, h = 50, torch.linspace(0.5, 3, 50)
    lam = torch.linspace(0.1, 2, d, dtype=torch.float64)
    s, directions = state(d, "diagonal", h.clone(), scaled), Directions(d, CPU, 0)
    u, x = reference.direction(5, 0, d), s.x.clone()
    in_probe, in_update = (
        u / h.sqrt() if scaled in ("both", w) else u for w in ("probe", "update")
    )
    g = measure(s, Quadratic(lam), [[0.3]], Probe(1e-2, "central"), 1)
    slope = float(in_probe.double() @ (lam * (x.double() - 0.3)))
    assert g[0, 0] == pytest.approx(slope, rel=1e-4)
    apply_record(s, directions, steps([5], g), Rule(0.1, 0.5, 0))
    assert torch.allclose(s.x, x - 0.1 * g[0, 0] * in_update, atol=1e-5)
    learned = 0.5 * h + 0.5 * (g[0, 0] * in_update) ** 2
    assert torch.allclose(s.curvature.h, learned, rtol=1e-4)
