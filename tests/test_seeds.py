"""Randomness has one source, and no two keys share a stream."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from hiso_ray.sampling import cohort, minibatch
from hiso_ray.seeds import Purpose, direction_key, generator, key, step_seeds


def test_step_seeds_and_direction_keys_never_collide() -> None:
    # Trap: s·(i+17)+i gives (17, 0) and (16, 1) the same direction.
    seeds = [s for r in range(2000) for s in step_seeds(0, r, 3)]
    assert len(set(seeds)) == len(seeds)
    states = {
        tuple(direction_key(s, p).generate_state(4))
        for s, p in itertools.product(range(60), repeat=2)
    }
    assert len(states) == 3600


def test_every_word_of_the_key_matters() -> None:
    words = {
        tuple(key(run, purpose, i, j).generate_state(4))
        for run, purpose, i, j in itertools.product(range(4), Purpose, range(5), range(5))
    }
    assert len(words) == 4 * len(Purpose) * 25
    assert tuple(key(0, Purpose.STEP, 1).generate_state(4)) != tuple(
        key(0, Purpose.STEP, 1, 0).generate_state(4)
    )


def test_seed_zero_is_a_seed() -> None:
    # Trap: `if seed:`.
    assert step_seeds(0, 5, 1) == step_seeds(0, 5, 1) != step_seeds(1, 5, 1)


def test_an_index_that_would_spill_is_refused() -> None:
    with pytest.raises(AssertionError):
        generator(0, Purpose.COHORT, 2**32)


def test_cohort_is_a_pure_function_of_seed_and_round() -> None:
    # Trap: the global random / numpy / torch state.
    expected = [cohort(7, r, 1000, 8).tolist() for r in range(20)]
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    assert [cohort(7, r, 1000, 8).tolist() for r in range(20)] == expected
    assert all(c == sorted(set(c)) and len(c) == 8 for c in expected)
    assert len({tuple(c) for c in expected}) == 20


def test_every_client_is_sampled_equally_often() -> None:
    counts = np.bincount(np.concatenate([cohort(0, r, 10, 3) for r in range(3000)]), minlength=10)
    # 900 expected, standard deviation 25
    assert np.abs(counts - 900).max() < 5 * 25


def test_minibatch_draws_without_replacement_and_uses_all_of_a_small_client() -> None:
    examples = np.arange(100, 140)
    batch = minibatch(0, 1, 2, 0, examples, 16)
    assert len(set(batch.tolist())) == 16
    assert set(batch.tolist()) <= set(examples.tolist())
    assert sorted(minibatch(0, 1, 2, 0, examples[:5], 16).tolist()) == examples[:5].tolist()
    others = [minibatch(0, 1, 2, 1, examples, 16), minibatch(0, 1, 3, 0, examples, 16),
              minibatch(0, 2, 2, 0, examples, 16), minibatch(1, 1, 2, 0, examples, 16)]  # fmt: skip
    assert all(not np.array_equal(batch, other) for other in others)
