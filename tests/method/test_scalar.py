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
from hiso_ray.method.scalar import Probe, State, apply_record, deltas, step_out_of_place

CPU = torch.device("cpu")


def quadratic(lam: torch.Tensor) -> Any:
    """½ Σ λ (x - b)² in float64, one b per batch."""

    def losses(weights: torch.Tensor, batches: Sequence[float]) -> np.ndarray:
        x = weights.double()
        return np.array([float(0.5 * (lam * (x - b) ** 2).sum()) for b in batches])

    return losses


def state(d: int, arm: str = "none", h: torch.Tensor | None = None) -> State:
    curvature = initial(arm, d, CPU)
    if h is not None:
        curvature.h = h
    return State(torch.linspace(-1, 1, d), curvature)


def measure(s: State, losses: Any, batches: Any, probe: Probe, seed: int = 5) -> np.ndarray:
    directions = Directions(len(s.x), CPU, 0)
    return probe.scalars(losses, s.x, batches, seed, s, directions, torch.empty_like(s.x))[0]


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
    forward = measure(s, quadratic(lam), [0.3], Probe(4, mu))
    central = measure(s, quadratic(lam), [0.3], Probe(4, mu, central=True))
    assert forward[0] == pytest.approx((slope + bend).numpy(), rel=1e-4, abs=1e-4)
    assert central[0] == pytest.approx(slope.numpy(), rel=1e-4, abs=1e-4)
    assert forward.dtype == central.dtype == np.float32


def test_g_agrees_with_autograd_on_a_network() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    ).double()
    inputs, labels = torch.randn(10, 6, dtype=torch.float64), torch.randint(0, 3, (10,))
    shapes = [p.shape for p in net.parameters()]
    names = [n for n, _ in net.named_parameters()]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        tensors = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return torch.nn.functional.cross_entropy(
            torch.func.functional_call(net, tensors, (inputs,)), labels
        )

    s = state(sum(shape.numel() for shape in shapes))
    x = s.x.double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x)
    for mu, tolerance, central in ((1e-3, 2e-2, False), (1e-3, 1e-3, True)):
        g = measure(
            s, lambda w, bs: np.array([float(loss(w.double()))]), [0], Probe(5, mu, central)
        )
        exact = [float(gradient @ reference.direction(5, p, len(x)).double()) for p in range(5)]
        assert g[0] == pytest.approx(np.array(exact), abs=tolerance)


@pytest.mark.slow
def test_expected_step_is_the_whitened_gradient_with_the_stated_second_moment() -> None:
    # E[Δ] = H^{-1}∇f and, for P = 1, E[Δ_i²] = H_i^{-1}(‖H^{-1/2}∇f‖² + 2 (∇f)_i²/H_i).
    d, n = 4, 40_000
    gradient, h = torch.tensor([3.0, -1.0, 0.5, 2.0]), torch.tensor([4.0, 1.0, 0.25, 2.0])
    s = state(d, "diagonal", h)
    directions = Directions(d, CPU, 0)
    samples = torch.empty(n, d)
    for i in range(n):
        z = reference.direction(i, 0, d) / h.sqrt()
        g = np.array([float(gradient @ z)], np.float32)
        ((_, samples[i]),) = list(deltas(g, i, s, directions))
    white = gradient / h.sqrt()
    square = (white.square().sum() + 2 * white**2) / h
    assert samples.mean(0).tolist() == pytest.approx((gradient / h).tolist(), abs=0.25)
    assert samples.square().mean(0).tolist() == pytest.approx(square.tolist(), rel=0.06)


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
    losses = quadratic(lam)
    lr, mu, beta, eps = 0.3, 1e-2, 0.9, 1e-3
    seeds, cohort = list(range(70, 70 + case["tau"])), [2, 5, 6]
    s = state(d, case["curvature"])
    x, h = s.x.clone(), torch.ones(d)
    directions = Directions(d, CPU, 3 * 4 * d)
    probe = Probe(case["perturbations"], mu, case["central"])
    for round_ in range(3):
        here = [seed + 10 * round_ for seed in seeds]
        x, h, expected = reference.one_round(
            lambda client, k, w: losses(w, [client + k])[0], x, h, cohort, here, lr=lr, mu=mu,
            perturbations=case["perturbations"], central=case["central"], beta=beta, eps=eps,
            curvature=case["curvature"], learn_from_all=case["all"],
        )  # fmt: skip
        buffer = torch.empty_like(s.x)
        g = np.empty((3, case["tau"], case["perturbations"]), np.float32)
        for i, client in enumerate(cohort):
            local = s.x.clone()
            for k, seed in enumerate(here):
                (g[i, k],), _ = probe.scalars(
                    losses, local, [client + k], seed, s, directions, buffer
                )
                step_out_of_place(local, local, g[i, k], seed, lr, s, directions)
        mean = g.astype(np.float64).mean(0).astype(np.float32)
        assert mean == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-4)
        apply_record(
            s, directions, here, mean, lr=lr, beta=beta, eps=eps, learn_from_all=case["all"]
        )
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
        local = step_out_of_place(torch.empty(d), local, g[k], k, 0.1, s, directions)
    apply_record(s, directions, [0, 1, 2], g, lr=0.1, beta=0.9, eps=0, learn_from_all=False)
    assert torch.equal(local, s.x)


def test_probes_never_write_to_the_weights() -> None:
    # Trap: perturb, then subtract in place: drift.
    s = state(500, "diagonal")
    x, h = s.x.clone(), s.curvature.values().clone()
    s.x.requires_grad_(False)
    for seed in range(50):
        measure(
            s, quadratic(torch.ones(500, dtype=torch.float64)), [0.1, 0.2], Probe(3, 1e-3), seed
        )
    assert torch.equal(s.x, x)
    assert torch.equal(s.curvature.values(), h)


def test_h_learns_once_per_step_from_the_averaged_delta() -> None:
    # Trap: one update per probe applies β P times and loses the cross terms.
    d, beta, eps = 20, 0.5, 0.01
    s, directions = state(d, "diagonal"), Directions(d, CPU, 0)
    g = np.array([[1.0, -2.0, 0.5]], np.float32)
    delta = sum(float(g[0, p]) * reference.direction(8, p, d) for p in range(3)) / 3
    apply_record(s, directions, [8], g, lr=0.1, beta=beta, eps=eps, learn_from_all=False)
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
    apply_record(s, directions, [1, 2], g, lr=0.1, beta=0.5, eps=1.0, learn_from_all=True)
    assert torch.allclose(s.x, x, atol=1e-6)


def test_bf16_forwards_keep_fp32_masters() -> None:
    # Trap: a 1e-5 update changes 12 % of bf16 weights.
    d = 4096
    s, directions = State(torch.full((d,), 0.5), initial("none", d, CPU)), Directions(d, CPU, 0)
    seen = []

    def losses(weights: torch.Tensor, batches: Any) -> np.ndarray:
        seen.append(weights.clone())
        return np.zeros(len(batches))

    buffer = torch.empty(d, dtype=torch.bfloat16)
    Probe(1, 1e-2).scalars(losses, s.x, [0], 4, s, directions, buffer)
    u = reference.direction(4, 0, d)
    assert torch.equal(seen[0], s.x.bfloat16())
    assert torch.equal(seen[1], (s.x + 1e-2 * u).bfloat16())  # rounded once, from fp32
    apply_record(s, directions, [4], np.ones((1, 1), np.float32), lr=1e-5, beta=0.9, eps=0,
                 learn_from_all=False)  # fmt: skip
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
        loss = quadratic(lam)
        for seed in range(400):
            g = measure(s, loss, [0.0], Probe(1, 1e-3, central=True), seed)
            apply_record(s, directions, [seed], g, lr=lr, beta=0.9, eps=0, learn_from_all=False)
            if float(loss(s.x, [0.0])[0]) > 1e6:
                break
        end[name] = float(loss(s.x, [0.0])[0])
    assert end["below"] < 0.05 * float(quadratic(lam)(state(d).x, [0.0])[0])
    assert end["above"] > 1e6


def test_diagonal_is_created_in_float32() -> None:
    assert Diagonal(3, CPU).h.dtype == torch.float32
