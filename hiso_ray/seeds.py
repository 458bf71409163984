"""Where every random number comes from.

Cohorts, minibatches, partitions, initial weights and directions are pure functions of a key
(run seed, purpose, round, client, step, ...). No global generator is read or written.

``numpy.random.SeedSequence`` hashes run seed and purpose once, into the 128-bit key of a Philox
generator; round, client and step are words of its counter. Philox maps different counters to
unrelated numbers (Salmon et al. 2011), and every index has 2^64 counters of its own, so no two
streams overlap. Seed arithmetic such as ``seed * (i + 17) + i`` would repeat some streams.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np

COUNTER_WORDS = 4  # of 64 bits; the lowest counts within a stream, the others hold the index


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


class _Key(np.random.SeedSequence):
    """(run seed, purpose), hashed once: hashing costs more than drawing a minibatch."""

    def __init__(self, run_seed: int, purpose: Purpose) -> None:
        super().__init__(run_seed, spawn_key=(int(purpose),))
        self._philox = super().generate_state(2, np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        assert (n_words, dtype) == (2, np.uint64), f"{n_words} of {dtype}"
        return self._philox


_key = lru_cache(maxsize=64)(_Key)


def generator(run_seed: int, purpose: Purpose, *index: int) -> np.random.Generator:
    """The numpy generator of one key; no other key shares its stream.

    Args:
        index: at most three words of 32 bits.
    """
    assert len(index) < COUNTER_WORDS, f"index too long: {index}"
    assert all(0 <= i < 2**32 for i in index), f"index out of range: {index}"
    counter = [0, 0, 0, 0]
    for word, i in enumerate(index, start=1):
        counter[word] = i + 1  # 0 means no index, so (1,) differs from (1, 0)
    return np.random.Generator(np.random.Philox(_key(run_seed, purpose), counter=counter))


def step_seeds(run_seed: int, round_: int, local_steps: int) -> tuple[int, ...]:
    """The seeds s_{r,0..τ-1} of a round: one 64-bit integer per local step, shared by the cohort.

    The server sends them; a client needs nothing else to rebuild the directions of the round
    (:func:`direction_key`).
    """
    bits = generator(run_seed, Purpose.STEP, round_).bit_generator
    return tuple(bits.random_raw(local_steps).tolist())


def direction_key(seed: int, *index: int) -> np.random.SeedSequence:
    """The key of a direction in the local step with seed s_{r,k}. The index is the perturbation
    p, or (client, p) where clients have directions of their own."""
    return np.random.SeedSequence(seed, spawn_key=index)


def pool_seed(run_seed: int) -> int:
    """The seed of a finite pool of directions (FedKSeed): direction j has the key
    ``direction_key(seed, j)``."""
    return int(_key(run_seed, Purpose.SEED_POOL).generate_state(2, np.uint64)[0])
