"""Randomness has one source, and no two keys share a stream."""

from __future__ import annotations

import itertools

import pytest

from hiso_ray.seeds import Purpose, direction_key, generator, key, pool_seed, step_seeds


def test_step_seeds_and_direction_keys_never_collide() -> None:
    # Trap: s·(i+17)+i gives (17, 0) and (16, 1) the same direction.
    seeds = [s for r in range(2000) for s in step_seeds(0, r, 3)]
    assert len(set(seeds)) == len(seeds)
    states = {
        tuple(direction_key(s, p).generate_state(4))
        for s, p in itertools.product(range(60), repeat=2)
    }
    assert len(states) == 3600


def test_directions_of_steps_of_clients_and_of_the_pool_never_collide() -> None:
    names = [
        *itertools.product(range(20), repeat=2),  # seed, perturbation
        *itertools.product(range(20), repeat=3),  # seed, client, perturbation
        *((pool_seed(run), j) for run in range(20) for j in range(20)),
    ]
    states = {tuple(direction_key(*name).generate_state(4)) for name in names}
    assert len(states) == len(names)


def test_no_two_purposes_have_the_same_number() -> None:
    assert len(Purpose) == len(Purpose.__members__)  # a second name of a number is an alias


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
