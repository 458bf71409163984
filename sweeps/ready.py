"""Sweeps that are ready to run: each a table, to be taken as it is or as a beginning.

All are on ``digits``, which takes seconds a run; ``--task.name sst2 --task.model … --task.data …``
puts another task in its place, and the rates that suit it.
"""

from __future__ import annotations

from sweeps.table import Sweep, Values

METHODS = ["hiso", "decomfl"]
SEEDS = [0, 1, 2]
RATES = [0.005, 0.01, 0.02, 0.04, 0.08, 0.16]
DIGITS: Values = {
    "task.name": "digits",
    "federation.clients_per_round": 8,
    "federation.rounds": 800,
    "eval.every": 20,
}
TINY: Values = {"federation.rounds": 10, "eval.every": 2, "method.lr": [0.01, 0.02], "seed": [0]}


def _federations(*sizes: tuple[int, int]) -> list[Values]:
    """Arms of (clients, of which are sampled a round)."""
    return [
        {"federation.num_clients": clients, "federation.clients_per_round": sampled}
        for clients, sampled in sizes
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
    about="what H does: diagonal, a single number, none",
    base=DIGITS | {"federation.num_clients": 64},
    arms=[
        {"method.name": "hiso", "method.curvature": "diagonal"},
        {"method.name": "hiso", "method.curvature": "scalar"},
        {"method.name": "decomfl", "method.curvature": "none"},
    ],
    grid={"method.lr": RATES, "seed": SEEDS},
    smoke=TINY,
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

READY = {sweep.name: sweep for sweep in (STRESS, LR_GRID, CURVATURE, PROBE)}
