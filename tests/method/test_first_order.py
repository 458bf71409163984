"""Local SGD and whole first-order rounds: by hand, against torch and a plain reference, traps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hiso_ray.method.direction import CHUNK
from hiso_ray.method.first_order import Gradient, local_sgd
from hiso_ray.server import optimizers

# ---- a federation small enough to do by hand -------------------------------------------------
# F_i(x) = ½ Σ_j λ_ij (x_j - b_ij)²: two clients, two weights, two local steps of lr ½, x_0 = 0.
LAMBDA = {0: torch.tensor([1.0, 0.5]), 1: torch.tensor([0.5, 1.0])}
TARGET = {0: torch.tensor([4.0, 16.0]), 1: torch.tensor([-16.0, -8.0])}
CLIENT_LR = 0.5


def bowl(client: int) -> Gradient:
    def gradient(x: Tensor, step: int) -> tuple[float, Tensor]:
        slope = LAMBDA[client] * (x - TARGET[client])
        return float(0.5 * (slope * (x - TARGET[client])).sum()), slope

    return gradient


def federate(
    gradients: dict[int, Gradient],
    x0: np.ndarray,
    optimizer: str,
    rounds: int,
    *,
    steps: int = 2,
    client: dict[str, float] | None = None,
    **of_server: float,
) -> np.ndarray:
    """(rounds, d): x_1, x_2, ... with full participation and equal weights.

    The clients read the server's own memory, as on one machine: the trap of shared storage.
    """
    state = optimizers.initial(optimizer, x0, of_server["eps"])
    chunks, path = optimizers.chunks(sorted(gradients)), []
    for _ in range(rounds):
        start = torch.from_numpy(state.x)
        parts = {
            i: local_sgd(g, start, steps=steps, **(client or {"lr": CLIENT_LR}))[0].numpy()
            for i, g in gradients.items()
        }
        optimizers.step(
            state, optimizers.weighted_mean(parts, chunks, len(parts)), optimizer, **of_server
        )
        path.append(state.x.copy())
    return np.stack(path)


# With a = lr·λ, two steps of plain SGD give Δ_i = -a(2-a)(x - b): 0.75 (b - x) where λ = 1, and
# 0.4375 (b - x) where λ = ½. The mean of both clients is
#     Δ(x) = [(0.75·4 - 0.4375·16)/2, (0.4375·16 - 0.75·8)/2] - (0.75+0.4375)/2 · x
#          = (-2, 0.5) - 0.59375 x.
# FedProx, ρ = 1: Δ_i = -a(2-a-½)(x - b), 0.5 (b - x) and 0.3125 (b - x), so
#     Δ(x) = [(0.5·4 - 0.3125·16)/2, (0.3125·16 - 0.5·8)/2] - 0.40625 x = (-1.5, 0.5) - 0.40625 x.
# The servers below: lr 1; for the adaptive ones τ = 1, so v_{-1} = (1, 1), and β2 = 0.75.
BY_HAND: dict[str, tuple[str, dict[str, float], dict[str, float], list[list[float]]]] = {
    # x_{r+1} = (-2, 0.5) + 0.40625 x_r
    "fedavg": (
        "sgd",
        {"lr": 0.5},
        {"beta1": 0.0},
        [[-2.0, 0.5], [-2.8125, 0.703125], [-3.142578125, 0.78564453125]],
    ),
    # x_{r+1} = (-1.5, 0.5) + 0.59375 x_r
    "fedprox": (
        "sgd",
        {"lr": 0.5, "prox": 1.0},
        {"beta1": 0.0},
        [[-1.5, 0.5], [-2.390625, 0.796875], [-2.91943359375, 0.97314453125]],
    ),
    # β1 = ½.
    # r = 0: Δ = (-2, 0.5), Δ² = (4, 0.25), m = (-1, 0.25),
    #        v = (0.75 + 1, 0.75 + 0.0625) = (1.75, 0.8125), √v = (1.3228757, 0.9013878),
    #        x = (-1/2.3228757, 0.25/1.9013878)
    # r = 1: Δ = (-2 + 0.2556099, 0.5 - 0.0780680) = (-1.7443901, 0.4219320),
    #        m = (-0.5 - 0.8721951, 0.125 + 0.2109660) = (-1.3721951, 0.3359660),
    #        v = (1.3125 + 0.25·3.0428968, 0.609375 + 0.25·0.1780266) = (2.0732242, 0.6538817),
    #        √v = (1.4398695, 0.8086295), x += (-1.3721951/2.4398695, 0.3359660/1.8086295)
    "fedadam": (
        "adam",
        {"lr": 0.5},
        {"beta1": 0.5},
        [[-0.4305009, 0.1314829], [-0.9929060, 0.3172401]],
    ),
    # β1 = ½.
    # r = 0: Δ and m as for adam; v = (1 + 0.25·4, 1 - 0.25·0.25) = (2, 0.9375),
    #        √v = (1.4142136, 0.9682458), x = (-1/2.4142136, 0.25/1.9682458)
    # r = 1: Δ = (-2 + 0.2459393, 0.5 - 0.0754161) = (-1.7540607, 0.4245839),
    #        m = (-0.5 - 0.8770303, 0.125 + 0.2122919) = (-1.3770303, 0.3372919),
    #        v = (2 + 0.25·3.0767289, 0.9375 - 0.25·0.1802715) = (2.7691822, 0.8924321),
    #        √v = (1.6640860, 0.9446863), x += (-1.3770303/2.6640860, 0.3372919/1.9446863)
    "fedyogi": (
        "yogi",
        {"lr": 0.5},
        {"beta1": 0.5},
        [[-0.4142136, 0.1270167], [-0.9311002, 0.3004595]],
    ),
    # β1 = 0, so m = Δ.
    # r = 0: v = (1 + 4, 1 + 0.25) = (5, 1.25), √v = (2.2360680, 1.1180340),
    #        x = (-2/3.2360680, 0.5/2.1180340)
    # r = 1: Δ = (-2 + 0.3669577, 0.5 - 0.1401654) = (-1.6330423, 0.3598346),
    #        v = (5 + 2.6668272, 1.25 + 0.1294810) = (7.6668272, 1.3794810),
    #        √v = (2.7689036, 1.1745131), x += (-1.6330423/3.7689036, 0.3598346/2.1745131)
    "fedadagrad": (
        "adagrad",
        {"lr": 0.5},
        {"beta1": 0.0},
        [[-0.6180340, 0.2360680], [-1.0513277, 0.4015462]],
    ),
}


def walk(method: str) -> np.ndarray:
    optimizer, client, of_server, path = BY_HAND[method]
    return federate(
        {i: bowl(i) for i in (0, 1)},
        np.zeros(2, np.float32),
        optimizer,
        len(path),
        client=client,
        **of_server,
        lr=1.0,
        beta2=0.75,
        eps=1.0,
    )


@pytest.mark.parametrize("method", BY_HAND)
def test_the_trajectory_is_the_one_computed_by_hand(method: str) -> None:
    assert walk(method) == pytest.approx(np.array(BY_HAND[method][3]), rel=2e-6)


def test_the_five_methods_differ_after_one_round_and_after_two() -> None:
    paths = [walk(method) for method in BY_HAND]
    for r in (0, 1):
        points = [path[r] for path in paths]
        for i, one in enumerate(points):
            for other in points[:i]:
                # FedAvg and FedProx share one coordinate of x_1, (·, 0.5).
                assert np.abs(one - other).max() > 1e-2


def test_losses_are_those_at_each_local_step_and_leave_the_penalties_out() -> None:
    # Client 0 from 0: ½(1·16 + ½·256) = 72; then x = (2, 4): ½(1·4 + ½·144) = 38.
    # Client 1 from 0: ½(½·256 + 1·64) = 96; then x = (-4, -4): ½(½·144 + 1·16) = 44.
    start = torch.zeros(2)
    for prox in (0.0, 1.0):  # the second point does not depend on it yet
        for client, expected in ((0, [72.0, 38.0]), (1, [96.0, 44.0])):
            losses = local_sgd(bowl(client), start, steps=2, lr=CLIENT_LR, prox=prox)[1]
            assert losses.tolist() == expected
            assert losses.dtype == np.float64


# ---- against torch ---------------------------------------------------------------------------


def softmax_regression(examples: int, seed: int, d: int = 20) -> Callable[[Tensor], Tensor]:
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.randn(examples, d // 4, generator=rng)
    labels = torch.randint(0, 4, (examples,), generator=rng)
    return lambda w: torch.nn.functional.cross_entropy(inputs @ w.view(-1, 4), labels)


def autograd(loss: Callable[[Tensor], Tensor]) -> Gradient:
    def gradient(x: Tensor, step: int) -> tuple[float, Tensor]:
        value = loss(x.requires_grad_())
        (slope,) = torch.autograd.grad(value, x)
        return value.item(), slope

    return gradient


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"momentum": 0.9, "weight_decay": 0.1}],
)
def test_local_sgd_is_torch_sgd(options: dict[str, float]) -> None:
    loss = softmax_regression(30, seed=0)
    start = torch.linspace(-1, 1, 20)
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([weights], lr=0.3, **options)
    expected = []
    for _ in range(5):
        optimizer.zero_grad()
        value = loss(weights)
        value.backward()
        expected.append(value.item())
        optimizer.step()
    delta, losses = local_sgd(autograd(loss), start, steps=5, lr=0.3, **options)
    torch.testing.assert_close(start + delta, weights.detach(), rtol=1e-5, atol=1e-6)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert np.ptp(losses) > 0.01


def test_momentum_does_not_outlive_the_round() -> None:
    loss, start = autograd(softmax_regression(30, seed=0)), torch.linspace(-1, 1, 20)
    first, _ = local_sgd(loss, start, steps=3, lr=0.3, momentum=0.9)
    again, _ = local_sgd(loss, start, steps=3, lr=0.3, momentum=0.9)
    assert torch.equal(first, again)


def test_prox_is_the_gradient_of_the_penalised_loss() -> None:
    loss, start, rho = softmax_regression(30, seed=0), torch.linspace(-1, 1, 20), 0.7
    penalised = autograd(lambda w: loss(w) + 0.5 * rho * (w - start).square().sum())
    with_prox, _ = local_sgd(autograd(loss), start, steps=6, lr=0.3, prox=rho)
    explicit, _ = local_sgd(penalised, start, steps=6, lr=0.3)
    without, _ = local_sgd(autograd(loss), start, steps=6, lr=0.3)
    torch.testing.assert_close(with_prox, explicit, rtol=1e-5, atol=1e-6)
    assert with_prox.norm() < 0.9 * without.norm()


def test_fedavg_with_one_step_and_everyone_is_centralised_sgd() -> None:
    own = [softmax_regression(12, seed) for seed in range(20)]  # 20 clients: chunks of two
    x0 = np.linspace(-1, 1, 20, dtype=np.float32)
    path = federate(
        {i: autograd(loss) for i, loss in enumerate(own)},
        x0, "sgd", 4, steps=1, client={"lr": 0.5}, lr=1.0, beta1=0.0, beta2=0.0, eps=0.0,
    )  # fmt: skip
    weights = torch.from_numpy(x0.copy()).requires_grad_()
    optimizer = torch.optim.SGD([weights], lr=0.5)
    for x in path:
        optimizer.zero_grad()
        torch.stack([loss(weights) for loss in own]).mean().backward()
        optimizer.step()
        assert x == pytest.approx(weights.detach().numpy(), rel=1e-5, abs=1e-6)


# ---- against one round of FedOpt as the paper writes it --------------------------------------


def plain_round(
    gradients: dict[int, Callable[[np.ndarray, int], np.ndarray]],
    x: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    weights: dict[int, float],
    optimizer: str,
    client: dict[str, float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole float64 vectors, one client after the other; servers: lr ½, β (0.9, 0.99), τ 1e-3."""
    total = np.zeros_like(x)
    for i, gradient in gradients.items():
        local, velocity = x.copy(), np.zeros_like(x)
        for k in range(3):
            pull = client["weight_decay"] * local + client["prox"] * (local - x)
            velocity = client["momentum"] * velocity + gradient(local, k) + pull
            local = local - client["lr"] * velocity
        total = total + weights[i] * (local - x)
    delta = total / sum(weights.values())
    if optimizer == "sgd":
        return x + 0.5 * delta, m, v
    m = 0.9 * m + 0.1 * delta
    if optimizer == "adam":
        v = 0.99 * v + 0.01 * delta**2
    elif optimizer == "yogi":
        v = v - 0.01 * delta**2 * np.sign(v - delta**2)
    else:
        v = v + delta**2
    return x + 0.5 * m / (np.sqrt(v) + 1e-3), m, v


@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
@pytest.mark.parametrize(
    "client",
    [
        {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "prox": 0.0},
        {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.2, "prox": 0.3},
    ],
)
def test_rounds_agree_with_the_plain_reference(optimizer: str, client: dict[str, float]) -> None:
    rng, d = np.random.default_rng(3), CHUNK["cpu"] + 77
    slopes, targets = rng.uniform(0.2, 2, (19, d)), rng.standard_normal((19, 3, d))

    def exact(i: int) -> Callable[[np.ndarray, int], np.ndarray]:
        return lambda x, k: slopes[i] * (x - targets[i, k])

    def rounded(i: int) -> Gradient:
        slope, target = torch.from_numpy(slopes[i]), torch.from_numpy(targets[i])
        return lambda x, k: (0.0, (slope * (x - target[k])).float())

    weights = {i: float(1 + i % 4) for i in range(19)}
    x0 = rng.standard_normal(d).astype(np.float32)
    state, chunks = optimizers.initial(optimizer, x0, 1e-3), optimizers.chunks(range(19))
    x, m, v = x0.astype(np.float64), np.zeros(d), np.full(d, 1e-6)
    for _ in range(2):
        x, m, v = plain_round({i: exact(i) for i in weights}, x, m, v, weights, optimizer, client)
        parts = {}
        for chunk in chunks:
            start = torch.from_numpy(state.x)
            parts[chunk[0]] = optimizers.add_up(
                local_sgd(rounded(i), start, steps=3, **client)[0].mul_(weights[i]).numpy()
                for i in chunk
            )
        update = optimizers.weighted_mean(parts, chunks, sum(weights.values()))
        optimizers.step(state, update, optimizer, lr=0.5, beta1=0.9, beta2=0.99, eps=1e-3)
    np.testing.assert_allclose(state.x, x, rtol=1e-4, atol=1e-4)
    assert np.abs(x - x0).mean() > 0.02


# ---- traps -----------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.1, "prox": 0.2}


def test_a_client_writes_neither_to_the_servers_weights_nor_to_a_gradient() -> None:
    start, slope = torch.linspace(-1, 1, 9), torch.full((9,), 2.0)
    seen = []

    def gradient(x: Tensor, step: int) -> tuple[float, Tensor]:
        seen.append(x)
        return 0.0, slope  # one buffer for every step

    before = start.clone()
    delta, _ = local_sgd(gradient, start, steps=3, **OPTIONS)
    assert torch.equal(start, before)
    assert torch.equal(slope, torch.full((9,), 2.0))
    for other in (start, slope):
        assert delta.untyped_storage().data_ptr() != other.untyped_storage().data_ptr()
    assert all(x.data_ptr() != start.data_ptr() for x in seen)
    assert delta.abs().min() > 0.5
    assert delta.dtype == torch.float32


def test_the_order_in_which_clients_run_does_not_matter() -> None:
    start = torch.zeros(2)
    alone = {i: local_sgd(bowl(i), start, steps=2, **OPTIONS)[0] for i in (0, 1)}
    swapped = {i: local_sgd(bowl(i), start, steps=2, **OPTIONS)[0] for i in (1, 0)}
    assert not torch.equal(alone[0], alone[1])
    for i in (0, 1):
        assert torch.equal(alone[i], swapped[i])


def test_memory_stays_below_three_vectors_beside_the_gradient() -> None:
    d = 8 * CHUNK["cpu"]
    start, slope = torch.zeros(d), torch.ones(d)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        local_sgd(lambda x, k: (0.0, slope), start, steps=2, **OPTIONS)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert 2 * 4 * d <= peak < 3 * 4 * d
