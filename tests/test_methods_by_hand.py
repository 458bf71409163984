"""Whole runs of each method against its paper, in float64 on whole vectors.

On f(x) = ½ Σ λ (x - b)² every number that a client measures has a closed form: with ∇F = λ(x - b̄)
of a minibatch, a forward difference along z is ∇F·z + (μ/2) zᵀΛz, a central one ∇F·z, and a second
difference zᵀΛz. No loss is evaluated here, nothing is shared or streamed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from hiso_ray import Experiment, replay, run, tasks
from hiso_ray.config import METHODS
from hiso_ray.federation.sampling import cohort, minibatch
from hiso_ray.method.philox import stream_id
from hiso_ray.method.philox.reference import normals
from hiso_ray.run_folder.ledger import Ledger
from hiso_ray.seeds import direction_key, pool_seed, step_seeds

Array = np.ndarray


def experiment(name: str, **dotted: Any) -> Experiment:
    """Five clients, three a round, three rounds; μ is large, for there is no truncation to fear."""
    one = METHODS[name].one_client
    small = {
        "method.name": name,
        "method.lr": 0.05,
        "task.name": "quadratic",
        "task.model": "diagonal-37",
        "federation.num_clients": 1 if one else 5,
        "federation.clients_per_round": 1 if one else 3,
        "federation.rounds": 3,
        "federation.local_steps": 2,
        "resources.executor": "serial",
    }
    mu = {"method.mu": 0.1} if "mu" in METHODS[name].reads else {}
    return Experiment().changed(**(small | mu | dotted))


def whole(*name: int, d: int) -> Array:
    """u of a direction, drawn in one piece."""
    return normals(stream_id(name), 0, d).astype(np.float64)


class Plain:
    """An experiment's data, and what its clients measure.

    Attributes:
        lam: (d,) λ.
        x: (d,) x_0, then whatever a method makes of it.
    """

    def __init__(self, e: Experiment) -> None:
        self.e, self.method = e, e.method
        prepared, self.partition = tasks.load(e)
        self.lam = prepared.arrays["curvature"].astype(np.float64)
        self.targets = prepared.arrays["targets"].astype(np.float64)
        self.x = prepared.x0.astype(np.float64)
        self.d, self.p = len(self.x), e.method.num_perturbations

    def lr(self, round_: int) -> float:
        """η of a round: the warm-up, then what is left of it at the round's share of the rest."""
        m, rounds = self.method, self.e.federation.rounds
        if round_ < m.warmup_rounds:
            return m.lr / m.warmup_rounds * (round_ + 1)
        left = (rounds - round_) / (rounds - m.warmup_rounds)
        falling = {"constant": 1.0, "linear": left, "cosine": np.sin(np.pi / 2 * left) ** 2}
        return m.lr * (m.schedule_floor + (1 - m.schedule_floor) * falling[m.schedule])

    def cohort(self, round_: int) -> list[int]:
        sizes = np.diff(self.partition.offsets)
        return cohort(self.e.seed, round_, self.e.federation, sizes).tolist()

    def seeds(self, round_: int) -> tuple[int, ...]:
        return step_seeds(self.e.seed, round_, self.e.federation.local_steps)

    def gradient(self, x: Array, round_: int, client: int, step: int) -> Array:
        own, size = self.partition.of(client), self.e.task.batch_size
        chosen = minibatch(self.e.seed, round_, client, step, own, size)
        return self.lam * (x - self.targets[chosen % len(self.targets)].mean(0))

    def difference(self, gradient: Array, z: Array) -> float:
        bend = 0.5 * self.method.mu * self.second(z) if self.method.probe == "forward" else 0.0
        return float(gradient @ z) + bend

    def second(self, z: Array) -> float:
        return float(z @ (self.lam * z))

    def directions(self, seed: int, client: int) -> Array:
        """(P, d) u of a client's local step."""
        if self.method.seed_pool:
            return np.array([whole(pool_seed(self.e.seed), self.drawn(seed, client), d=self.d)])
        own = () if self.method.directions == "shared" else (client,)
        return np.array([whole(seed, *own, p, d=self.d) for p in range(self.p)])

    def drawn(self, seed: int, client: int) -> int:
        """j of FedKSeed."""
        word = direction_key(seed, client, 0).generate_state(1, np.uint64)[0]
        return int(word) % self.method.seed_pool

    def walk(self, round_: int, client: int, h: Array) -> tuple[Array, Array]:
        """A client's τ local steps: (τ, P) scalars g, and (τ, P, d) directions z = H^{-1/2} u."""
        x, g, z = self.x, [], []
        for step, seed in enumerate(self.seeds(round_)):
            slope = self.gradient(x, round_, client, step)
            z.append(self.directions(seed, client) / np.sqrt(h))
            g.append(np.array([self.difference(slope, along) for along in z[-1]]))
            walked = np.sign(g[-1]) if self.method.name == "feedsign" else g[-1]
            x = x - self.lr(round_) * walked @ z[-1] / self.p
        return np.array(g), np.array(z)


def scalar_family(w: Plain) -> None:
    """HiSo (arXiv 2506.02370) with whatever H, momentum and directions; HiZOO's H (arXiv
    2402.15173), FedKSeed's pool (arXiv 2312.06353) and MeZO (arXiv 2305.17333) among them."""
    m, h, velocity, iterates = w.method, np.ones(w.d), np.zeros(w.d), []
    for round_ in range(w.e.federation.rounds):
        walks = [w.walk(round_, client, h) for client in w.cohort(round_)]
        # With shared directions z is the same for all, so the mean of g z is the mean g times z.
        deltas = np.mean([np.einsum("kp,kpd->kd", g, z) / w.p for g, z in walks], axis=0)
        learned, old = list(deltas**2), h
        if m.row.second_differences:
            # z is shared, and Σ^{-1} z zᵀ Σ^{-1} = H^{1/2} u uᵀ H^{1/2}
            learned = [
                0.5 * np.mean([abs(w.second(along)) * (h * along) ** 2 for along in z], 0)
                for z in walks[0][1]
            ]
        if m.curvature == "diagonal":
            for sample in learned if m.hessian_update == "all" else learned[-1:]:
                h = m.hessian_retention * h + (1 - m.hessian_retention) * (sample + m.hessian_eps)
        if m.row.second_differences:  # g was measured along the old z; its authors step by the new
            deltas = deltas * np.sqrt(old / h)
        velocity = m.momentum * velocity + deltas.sum(0)
        w.x = w.x - w.lr(round_) * velocity
        iterates.append(w.x)
    weights = m.averaging ** np.arange(len(iterates))[::-1]  # without averaging 0, …, 0, 1
    w.x = np.average(iterates, axis=0, weights=weights)


def feedsign(w: Plain) -> None:
    """arXiv 2501.17610: x <- x - η u times the sign of the sum of the clients' signs."""
    for round_ in range(w.e.federation.rounds):
        walks = [w.walk(round_, client, np.ones(w.d)) for client in w.cohort(round_)]
        votes = np.sign(sum(np.sign(g) for g, _ in walks))
        w.x = w.x - w.lr(round_) * np.einsum("kp,kpd->d", votes, walks[0][1]) / w.p


def fedzo(w: Plain) -> None:
    """arXiv 2201.09531, algorithm 1: e = (d/ν) [F(x + ν v) - F(x)] v, v on the unit sphere, with
    ν = √d·μ; τ steps of it, then a mean of weights."""
    m, radius = w.method, np.sqrt(w.d) * w.method.mu
    for round_ in range(w.e.federation.rounds):
        changes = []
        for client in w.cohort(round_):
            x = w.x
            for step, seed in enumerate(w.seeds(round_)):
                slope, estimates = w.gradient(x, round_, client, step), []
                for u in w.directions(seed, client):
                    v = u / np.linalg.norm(u)
                    rise = float(slope @ v) * radius + 0.5 * radius**2 * w.second(v)
                    estimates.append(w.d / radius * rise * v)
                x = x - w.lr(round_) * np.mean(estimates, axis=0)
            changes.append(x - w.x)
        w.x = w.x + m.server_lr * np.mean(changes, axis=0)


def ferret(w: Plain) -> None:
    """arXiv 2409.06277 with all weights in one block, as its authors' code scales it: with
    v = u/√d, c = (d/K) <x_r - x_τ, v> and x <- x - η_s Σ c̄ v. ``tests/method/test_projection.py``
    has several blocks."""
    o, velocity = w.method, np.zeros(w.d)
    for round_ in range(w.e.federation.rounds):
        (seed,) = step_seeds(w.e.seed, round_, 1)
        v = np.array([whole(seed, 0, k, d=w.d) for k in range(o.projections)]) / np.sqrt(w.d)
        coordinates = []
        for client in w.cohort(round_):
            x = w.x
            for step in range(w.e.federation.local_steps):
                x = x - o.lr * (w.gradient(x, round_, client, step) + o.weight_decay * x)
            coordinates.append(w.d / o.projections * v @ (w.x - x))
        velocity = o.momentum * velocity + np.mean(coordinates, axis=0) @ v
        w.x = w.x - o.server_lr * velocity


def first_order(w: Plain) -> None:
    """Local SGD (with FedProx's pull, arXiv 1812.06127), then algorithm 2 of arXiv 2003.00295."""
    o, mean, square = w.method, np.zeros(w.d), np.full(w.d, w.method.server_eps**2)
    for round_ in range(w.e.federation.rounds):
        changes = []
        for client in w.cohort(round_):
            x, b = w.x, np.zeros(w.d)
            for step in range(w.e.federation.local_steps):
                slope = w.gradient(x, round_, client, step) + o.weight_decay * x
                b = o.momentum * b + slope + o.prox * (x - w.x)
                x = x - w.lr(round_) * b
            changes.append(x - w.x)
        delta = np.mean(changes, axis=0)
        if o.row.server == "sgd":
            w.x = w.x + o.server_lr * delta
            continue
        mean = o.server_beta1 * mean + (1 - o.server_beta1) * delta
        square = {
            "adagrad": square + delta**2,
            "adam": o.server_beta2 * square + (1 - o.server_beta2) * delta**2,
            "yogi": square - (1 - o.server_beta2) * delta**2 * np.sign(square - delta**2),
        }[o.row.server]
        w.x = w.x + o.server_lr * mean / (np.sqrt(square) + o.server_eps)


TWO = {"task.model": "diagonal-2"}
SEVERAL = {"method.num_perturbations": 3}
COSINE = {"method.schedule": "cosine", "method.schedule_floor": 0.2}
LINEAR = {"method.schedule": "linear", "method.warmup_rounds": 2, "federation.rounds": 5}
CASES: list[tuple[str, Callable[[Plain], None], dict[str, Any]]] = [
    ("hiso", scalar_family, {}),
    ("hiso", scalar_family, {"method.directions": "per_client"}),
    ("hiso", scalar_family, {"method.momentum": 0.9, "method.lr": 0.01}),
    ("hiso", scalar_family, LINEAR | {"method.averaging": 0.7}),
    ("decomfl", scalar_family, {}),
    ("decomfl", scalar_family, {"method.momentum": 0.5, "method.directions": "per_client"}),
    ("mezo", scalar_family, {}),
    ("hizoo", scalar_family, {}),
    ("hizoo", scalar_family, SEVERAL | {"method.hessian_retention": 0.5}),
    ("fedkseed", scalar_family, {"method.seed_pool": 5}),
    ("feedsign", feedsign, {}),
    ("feedsign", feedsign, SEVERAL | LINEAR),
    ("ferret", ferret, {"method.projections": 12, "method.server_lr": 0.5}),
    (
        "ferret",
        ferret,
        {"method.projections": 37, "method.momentum": 0.5, "method.weight_decay": 0.1},
    ),
    ("fedzo", fedzo, TWO | {"method.num_perturbations": 1, "federation.rounds": 1}),
    ("fedzo", fedzo, SEVERAL | COSINE | {"method.server_lr": 0.5}),
    ("fedavg", first_order, TWO),
    ("fedavg", first_order, {"method.momentum": 0.9, "method.weight_decay": 0.1}),
    ("fedadam", first_order, TWO),
    ("fedyogi", first_order, TWO),
    ("fedadagrad", first_order, TWO),
    ("fedprox", first_order, TWO | COSINE | {"method.prox": 1.0}),
]
IDS = [f"{name} {' '.join(str(value) for value in own.values())}" for name, _, own in CASES]


def final_weights(folder: Path) -> Array:
    again = replay(folder, export=folder / "model")
    assert again["matches"] is True
    return load_file(folder / "model" / "model.safetensors")["x"].astype(np.float64)


@pytest.mark.parametrize(("name", "by_hand", "own"), CASES, ids=IDS)
def test_a_run_is_the_papers_algorithm(
    name: str, by_hand: Callable[[Plain], None], own: dict[str, Any], tmp_path: Path
) -> None:
    e = experiment(name, **own)
    plain = Plain(e)
    start = plain.x
    by_hand(plain)
    run(e, tmp_path / "r")
    moved = plain.x - start
    assert np.abs(moved).max() > 1e-3, "nothing was tested"
    error = final_weights(tmp_path / "r") - start - moved
    assert np.abs(error).max() < 1e-4 * np.abs(moved).max() + 1e-6


def test_fedkseed_collapses_into_sums_per_seed(tmp_path: Path) -> None:
    # x_R = x_0 - (η/m) Σ_j S_j u_j, S_j the sum of all scalars along seed j: K numbers are all
    # that a client needs, however many rounds it missed.
    e = experiment("fedkseed", **{"method.seed_pool": 5, "federation.rounds": 20})
    run(e, tmp_path / "r")
    plain, sums, draws = Plain(e), np.zeros(5), 0
    for record in Ledger.read(tmp_path / "r" / "ledger.jsonl").records:
        for seed, step in zip(record.seeds, record.scalars, strict=True):
            for client, g in zip(record.cohort, step, strict=True):
                sums[plain.drawn(seed, client)] += g
                draws += 1
    assert draws == 20 * 2 * 3
    u = np.array([whole(pool_seed(e.seed), j, d=plain.d) for j in range(5)])
    collapsed = plain.x - e.method.lr / 3 * sums @ u
    assert np.abs(collapsed - plain.x).max() > 0.1
    assert np.abs(final_weights(tmp_path / "r") - collapsed).max() < 1e-5


def test_fedavg_of_everyone_for_one_step_is_centralised_sgd(tmp_path: Path) -> None:
    one_step = {"federation.local_steps": 1, "federation.clients_per_round": 5}
    e = experiment("fedavg", **one_step)
    run(e, tmp_path / "r")
    plain, size = Plain(e), e.task.batch_size
    x = plain.x
    for round_ in range(3):
        joined = [
            minibatch(e.seed, round_, client, 0, plain.partition.of(client), size)
            for client in range(5)
        ]
        batch = plain.targets[np.concatenate(joined) % len(plain.targets)]
        x = x - e.method.lr * plain.lam * (x - batch.mean(0))
    assert np.abs(final_weights(tmp_path / "r") - x).max() < 1e-6
