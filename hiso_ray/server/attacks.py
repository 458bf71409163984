"""Simulated attackers: clients that send something other than their scalars.

An attacker computes its turn like any client, knows what the others computed, and replaces its
scalars before they are encoded. Below, g are its own scalars, and the honest clients are those of
the cohort that do not attack:

- *sign_flip*: -scale · g (Li et al. 2019, arXiv 1811.03761, with scale 4).
- *gaussian*: N(0, (scale · rms)²), rms the root mean square of the honest scalars. In the
  Gaussian attack of Blanchard et al. 2017 (arXiv 1703.02757) σ is an absolute 200, whose strength
  would depend on the loss.
- *scaled*: scale · g, the right direction, amplified (Bagdasaryan et al. 2020,
  arXiv 1807.00459).
- *constant*: scale, in every scalar (the same-value attack of Li et al. 2019).
- *colluding*: all attackers send -scale times the honest clients' mean (inner product
  manipulation, Xie et al. 2020, arXiv 1903.03936). Being close together, they get the low
  scores that Krum selects.

In a cohort without honest clients, the attackers' own scalars are used instead. Values beyond
the range of a float32 are clipped to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hiso_ray.config.aggregation import count_attackers
from hiso_ray.seeds import Purpose, generator

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def attackers(run_seed: int, num_clients: int, fraction: float) -> np.ndarray:
    """The attackers of a run; a larger fraction includes those of a smaller one.

    Returns:
        (⌊fraction · num_clients⌋,) int64 client ids, ascending.
    """
    order = generator(run_seed, Purpose.ATTACKERS).permutation(num_clients)
    return np.sort(order[: count_attackers(fraction, num_clients)])


def corrupt(
    sent: np.ndarray, bad: np.ndarray, kind: str, scale: float, rng: np.random.Generator
) -> np.ndarray:
    """What a cohort sends when some of its clients attack.

    Args:
        sent: (m, ...) float32 what every client computed, in client-id order.
        bad: (m,) bool, true for attackers.
        kind: the attack; not none.
        rng: for this round; only gaussian draws from it.

    Returns:
        (m, ...) float32, a copy; honest rows are unchanged.
    """
    received = sent.copy()
    if bad.any():
        honest = sent[bad if bad.all() else ~bad].astype(np.float64)
        lies = _KINDS[kind](sent[bad].astype(np.float64), honest, scale, rng)
        received[bad] = np.clip(lies, -LARGEST_FLOAT32, LARGEST_FLOAT32)
    return received


# (own (a, ...), honest (h, ...), scale, rng) -> broadcastable to (a, ...); all float64
_KINDS: dict[str, Callable[[np.ndarray, np.ndarray, float, np.random.Generator], Any]] = {
    "sign_flip": lambda own, honest, scale, rng: -scale * own,
    "gaussian": lambda own, honest, scale, rng: (
        scale * np.sqrt((honest**2).mean()) * rng.standard_normal(own.shape)
    ),
    "scaled": lambda own, honest, scale, rng: scale * own,
    "constant": lambda own, honest, scale, rng: scale,
    "colluding": lambda own, honest, scale, rng: -scale * honest.mean(axis=0),
}
