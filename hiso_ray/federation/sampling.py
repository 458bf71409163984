"""Cohorts and minibatches: pure functions of the run seed.

``federation.participation`` says how a cohort is sampled:

- ``uniform``: from all clients, with equal probability.
- ``size``: from all clients, one after another, each draw with probability proportional to the
  number of examples among the clients not drawn yet.
- ``cyclic``: clients are split at random, once per run, into ``cycle_groups`` nearly equal groups;
  round r samples uniformly from group r mod ``cycle_groups`` (Cho et al. 2023, arXiv 2302.03109).
"""

from __future__ import annotations

import functools

import numpy as np

from hiso_ray.config import FederationConfig
from hiso_ray.seeds import Purpose, generator

# Up to this many times the sample size, shuffling everything costs less than the fixed cost of
# numpy's choice.
SHUFFLED = 8


def cohort(
    run_seed: int, round_: int, federation: FederationConfig, sizes: np.ndarray
) -> np.ndarray:
    """The sampled clients of a round.

    Args:
        sizes: (num_clients,) int64 number of examples of each client, at least one.

    Returns:
        (m,) int64, ascending, drawn without replacement.
    """
    rng, m = generator(run_seed, Purpose.COHORT, round_), federation.clients_per_round
    if federation.participation == "cyclic":
        drawn = _draw(rng, available(run_seed, round_, federation), m)
    elif federation.participation == "size":
        drawn = rng.choice(len(sizes), size=m, replace=False, p=sizes / sizes.sum())
    else:
        drawn = _draw(rng, np.arange(federation.num_clients), m)
    drawn.sort()
    return drawn


def available(run_seed: int, round_: int, federation: FederationConfig) -> np.ndarray:
    """(n,) int64 clients that are available in a round of ``cyclic`` participation."""
    groups = _groups(run_seed, federation.num_clients, federation.cycle_groups)
    return groups[round_ % federation.cycle_groups]


@functools.lru_cache(maxsize=1)
def _groups(run_seed: int, num_clients: int, groups: int) -> list[np.ndarray]:
    """The cyclic groups, the same for the whole run."""
    dealt = generator(run_seed, Purpose.AVAILABILITY).permutation(num_clients)
    return np.array_split(dealt, groups)


def minibatch(
    run_seed: int, round_: int, client: int, step: int, examples: np.ndarray, batch_size: int
) -> np.ndarray:
    """The examples on which a client evaluates every probe of one local step.

    Args:
        examples: (n_i,) indices of the client's own examples.
        batch_size: the most examples to draw; a client that holds fewer uses all of them.

    Returns:
        (min(n_i, batch_size),) indices, drawn without replacement.
    """
    rng = generator(run_seed, Purpose.MINIBATCH, round_, client, step)
    return _draw(rng, examples, batch_size)


def _draw(rng: np.random.Generator, held: np.ndarray, size: int) -> np.ndarray:
    """(min(n, size),) entries of ``held`` (n,), without replacement, in random order."""
    if len(held) <= SHUFFLED * size:
        return rng.permutation(held)[:size]
    return rng.choice(held, size=size, replace=False)
