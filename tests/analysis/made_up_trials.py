"""Small frames as the loader gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


def trial(
    method: str, lr: float, seed: int, score: float | None = None, **changed: Any
) -> dict[str, Any]:
    """One row of trials; without a score it failed."""
    row = {
        "run": f"runs/{method}-{lr:g}-{seed}",
        "seed": seed,
        "method": method,
        "status": "finished" if score is not None else "failed",
        "error": None if score is not None else "worker died",
        "error_kind": None if score is not None else "TurnFailed",
        "task.name": "digits",
        "federation.alpha": 1.0,
        "federation.rounds": 30,
        "federation.clients_per_round": 8,
        "federation.local_steps": 1,
        "method.name": method,
        "method.lr": lr,
        "method.mu": 1e-3,
        "method.num_perturbations": 5,
        "eval.every": 10,
        "metric": "accuracy" if score is not None else None,
        "final_score": score,
        "best_score": score,
    }
    return row | changed


def course(run: str, scores: Sequence[float], every: int = 10) -> pd.DataFrame:
    """Evaluated rounds 0, 10, 20, …; a round is 2 KiB per client and 100 forward passes."""
    at = [every * i for i in range(len(scores))]
    return pd.DataFrame(
        {
            "run": run,
            "round": at,
            "score": scores,
            "kib_per_client": [2.0 * round_ for round_ in at],
            "forward_passes": [100 * round_ for round_ in at],
        }
    )


def frames(
    courses: dict[tuple[str, int], Sequence[float]], **changed: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials at one rate and their rounds, from {(method, seed): scores}; no scores: it failed."""
    trials = pd.DataFrame(
        [
            trial(method, 0.1, seed, scores[-1] if scores else None, **changed)
            for (method, seed), scores in courses.items()
        ]
    )
    rounds = [course(run, s) for run, s in zip(trials["run"], courses.values(), strict=True) if s]
    return trials, pd.concat(rounds, ignore_index=True)
