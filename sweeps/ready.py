"""Sweeps that are ready to run: each a table, to be used as it is or adapted.

All use ``digits``, which takes seconds per run; ``--task.name sst2 --task.model … --task.data …``
selects another task, which also needs other learning rates.
"""

from __future__ import annotations

from hiso_ray.sweeps.table import Sweep, Values

METHODS = ["hiso", "decomfl"]
SEEDS = [0, 1, 2]
RATES = [0.005, 0.01, 0.02, 0.04, 0.08, 0.16]
WIDE = [0.00125, 0.0025, *RATES, 0.32]
GRADIENT_RATES = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56]
ADAPTIVE = ["fedadam", "fedyogi", "fedadagrad"]
RULES = {"mean": 0.0, "median": 0.0, "trimmed_mean": 0.3, "krum": 0.3, "multi_krum": 0.3}
ARMS = ["diagonal", "tensor", "row", "scalar", "frozen", "random", "permuted", "oracle"]
DIGITS: Values = {
    "task.name": "digits",
    "federation.clients_per_round": 8,
    "federation.rounds": 800,
    "eval.every": 20,
}
TINY: Values = {"federation.rounds": 10, "eval.every": 2, "method.lr": [0.01, 0.02], "seed": [0]}


def _federations(*sizes: tuple[int, int]) -> list[Values]:
    """One arm per (number of clients, clients sampled per round)."""
    return [
        {"federation.num_clients": clients, "federation.clients_per_round": sampled}
        for clients, sampled in sizes
    ]


def _attacks(*kinds: tuple[str, float], shares: tuple[float, ...]) -> list[Values]:
    """One arm without attackers, and one per kind of attack (with its scale) and share of them."""
    return [{}] + [
        {"attack.kind": kind, "attack.scale": scale, "attack.fraction": share}
        for kind, scale in kinds
        for share in shares
    ]


def _defences(attacks: list[Values]) -> list[Values]:
    """One arm per aggregation rule and attack."""
    return [
        {"aggregation.rule": rule, "aggregation.byzantine": share, **attack}
        for rule, share in RULES.items()
        for attack in attacks
    ]


STRESS = Sweep(
    name="stress",
    about="clients × skew × participation × method, each over the same rates and seeds",
    base=DIGITS,
    arms=_federations((8, 8), (64, 8), (512, 8), (64, 32)),
    grid={
        "federation.alpha": [0.1, 1.0, 100.0],
        "method.name": METHODS,
        "method.lr": RATES,
        "seed": SEEDS,
    },
    smoke=TINY
    | {
        "arms": _federations((4, 4), (16, 4)),
        "federation.alpha": [0.1, 100.0],
        "method.lr": [0.02],
    },
)

LR_GRID = Sweep(
    name="lr_grid",
    about="the same learning rates and budget for every method",
    base=DIGITS | {"federation.num_clients": 64},
    grid={"method.name": METHODS, "method.lr": [0.0025, *RATES], "seed": SEEDS},
    smoke=TINY,
)

CURVATURE = Sweep(
    name="curvature",
    about="what H does: every arm of it, in the probe, in the update or in both, and none",
    base=DIGITS | {"federation.num_clients": 64},
    arms=[
        *({"method.name": "hiso", "method.curvature": arm} for arm in ARMS),
        {"method.name": "hiso", "method.curvature": "diagonal", "method.curvature_in": "probe"},
        {"method.name": "hiso", "method.curvature": "diagonal", "method.curvature_in": "update"},
        {"method.name": "hiso", "method.curvature": "oracle", "method.curvature_in": "probe"},
        {"method.name": "decomfl"},
    ],
    grid={"method.lr": WIDE, "seed": SEEDS},
    smoke=TINY | {"method.lr": [0.02]},
)

FAMILY = Sweep(
    name="family",
    about="methods that send scalars, and variants of HiSo and DeComFL, with as many directions",
    base=DIGITS | {"federation.num_clients": 64, "method.num_perturbations": 5},
    arms=[
        {"method.name": "hiso"},
        {"method.name": "decomfl"},
        {"method.name": "hizoo"},
        {"method.name": "feedsign"},
        {"method.name": "fedkseed"},
        {"method.name": "hiso", "method.directions": "per_client"},
        {"method.name": "decomfl", "method.directions": "per_client"},
        {"method.name": "decomfl", "method.momentum": 0.9},
        {"method.name": "hiso", "uplink.precision": "int8"},
        {"method.name": "hiso", "uplink.precision": "sign"},
    ],
    grid={"method.lr": WIDE, "seed": SEEDS},
    smoke=TINY | {"method.lr": [0.02]},
)

WEIGHTS = Sweep(
    name="weights",
    about="methods that send weights; rates of clients are those of gradients, so higher ones",
    base=DIGITS | {"federation.num_clients": 64},
    arms=[
        {"method.name": "fedzo"},
        {"method.name": "fedavg"},
        *({"method.name": name, "method.server_lr": 0.03} for name in ADAPTIVE),
        {"method.name": "fedprox", "federation.local_steps": 5},
        {"method.name": "fedavg", "federation.local_steps": 5},
    ],
    grid={"method.lr": GRADIENT_RATES, "seed": SEEDS},
    smoke=TINY,
)

ATTACKS = Sweep(
    name="attacks",
    about="aggregation rules × share of attackers, 16 of 64 clients a round",
    base=DIGITS
    | {
        "federation.num_clients": 64,
        "federation.clients_per_round": 16,
        "method.lr": 0.02,
    },
    arms=_defences(_attacks(("sign_flip", 4.0), ("colluding", 4.0), shares=(0.1, 0.3))),
    grid={"seed": SEEDS},
    smoke={
        "federation.rounds": 10,
        "eval.every": 2,
        "seed": [0],
        "arms": _defences(_attacks(("sign_flip", 4.0), shares=(0.3,))),
    },
)

PROBE = Sweep(
    name="probe",
    about="smoothing radius μ, perturbations P and local steps τ, one at a time",
    base=DIGITS | {"federation.num_clients": 64},
    arms=[
        {"method.mu": mu, "method.num_perturbations": p, "federation.local_steps": tau}
        for mu, p, tau in (
            (1e-3, 5, 1),
            (1e-4, 5, 1),
            (1e-2, 5, 1),
            (1e-3, 1, 1),
            (1e-3, 20, 1),
            (1e-3, 5, 2),
            (1e-3, 5, 5),
        )
    ],
    grid={"method.name": METHODS, "method.lr": RATES, "seed": SEEDS},
    smoke=TINY | {"method.lr": [0.02]},
)

READY = {s.name: s for s in (STRESS, LR_GRID, CURVATURE, FAMILY, WEIGHTS, ATTACKS, PROBE)}
