"""Where every random number comes from.

Cohorts, minibatches, partitions, initial weights and directions are pure functions of a key
(run seed, purpose, round, client, step, ...). Keys are hashed by ``numpy.random.SeedSequence``,
which mixes every word of the key, so two keys that differ anywhere give unrelated streams;
arithmetic such as ``seed * (i + 17) + i`` does not. No global generator is read or written.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """The second word of every key; numbers are part of the file format and never reused."""

    COHORT = 0
    MINIBATCH = 1
    STEP = 2
    PARTITION = 3
    INITIAL_WEIGHTS = 4
    HOLD_OUT = 5
    TASK_DATA = 6
    SPARSE_MASK = 7
    AVAILABILITY = 8
    DROPOUT = 9
    DEVICES = 10
    JITTER = 11
    CURVATURE = 12
    QUANTIZE = 13
    ATTACK = 14
    ATTACKERS = 15
    NOISE = 16
    SEED_POOL = 17
    ORACLE = 18
    DIAGNOSTICS = 19


def key(run_seed: int, purpose: Purpose, *index: int) -> np.random.SeedSequence:
    """The key (run_seed, purpose, *index). Each index must fit 32 bits, so that none can spill
    into its neighbour's word."""
    assert all(0 <= i < 2**32 for i in index), f"index out of range: {index}"
    return np.random.SeedSequence(run_seed, spawn_key=(int(purpose), *index))


def generator(run_seed: int, purpose: Purpose, *index: int) -> np.random.Generator:
    """A numpy generator that only this key reaches."""
    return np.random.Generator(np.random.Philox(key(run_seed, purpose, *index)))


def step_seeds(run_seed: int, round_: int, local_steps: int) -> tuple[int, ...]:
    """The seeds s_{r,0..τ-1} of a round: one 64-bit integer per local step, shared by the cohort.

    They are what the server sends; a client needs nothing else to rebuild the directions of the
    round (:func:`direction_key`).
    """
    return tuple(
        int(key(run_seed, Purpose.STEP, round_, step).generate_state(1, np.uint64)[0])
        for step in range(local_steps)
    )


def direction_key(seed: int, *index: int) -> np.random.SeedSequence:
    """The key of a direction: of perturbation p of the local step with seed s_{r,k}, or, where
    clients have directions of their own, of (client, p)."""
    return np.random.SeedSequence(seed, spawn_key=index)


def pool_seed(run_seed: int) -> int:
    """The seed of a finite pool of directions (FedKSeed), whose j-th is
    ``direction_key(seed, j)``."""
    return int(key(run_seed, Purpose.SEED_POOL).generate_state(1, np.uint64)[0])
