"""Randomness has one source, and no two keys share a stream."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hiso_ray.seeds import Purpose, direction_key, generator, pool_seed, step_seeds


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


def words(run_seed: int, purpose: Purpose, *index: int) -> tuple[int, ...]:
    """The beginning of a stream."""
    return tuple(generator(run_seed, purpose, *index).bit_generator.random_raw(4).tolist())


def test_every_word_of_the_key_matters() -> None:
    ends = (0, 1, 2**32 - 1)
    indices = [index for n in range(4) for index in itertools.product(ends, repeat=n)]
    keys = itertools.product((0, 1, 2**63 - 1), Purpose, indices)
    streams = [words(run, purpose, *index) for run, purpose, index in keys]
    assert len({word for stream in streams for word in stream}) == 4 * len(streams)


def test_streams_of_one_purpose_do_not_overlap() -> None:
    """The index is in words of the counter that drawing does not reach in 2^64 steps."""

    def counter(*index: int) -> list[int]:
        bits = generator(5, Purpose.MINIBATCH, *index).bit_generator
        bits.random_raw(1000)
        return bits.state["state"]["counter"].tolist()

    assert counter(7, 8, 9) == [250, 8, 9, 10]
    assert counter(7) == [250, 8, 0, 0]
    assert counter() == [250, 0, 0, 0]


def test_a_stream_is_independent_of_what_was_drawn_before() -> None:
    expected = words(3, Purpose.MINIBATCH, 1, 2, 3)
    generator(3, Purpose.MINIBATCH, 1, 2, 2).random(999)
    generator(3, Purpose.MINIBATCH, 1, 2, 3).random(999)
    assert words(3, Purpose.MINIBATCH, 1, 2, 3) == expected


def test_neighbouring_streams_are_unrelated() -> None:
    """Of minibatches: normals of every (round, client, step) near another's."""
    index = itertools.product(range(12), range(12), range(3))
    drawn = np.stack([generator(0, Purpose.MINIBATCH, *i).standard_normal(500) for i in index])
    correlation = np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]
    # 93 096 pairs, each with a standard deviation of 500^-1/2
    assert np.abs(correlation).max() < 5.5 / np.sqrt(500)
    assert abs(correlation.std() * np.sqrt(500) - 1) < 0.02


def test_seed_zero_is_a_seed() -> None:
    # Trap: `if seed:`.
    assert step_seeds(0, 5, 1) == step_seeds(0, 5, 1) != step_seeds(1, 5, 1)


def test_an_index_that_would_spill_is_refused() -> None:
    for index in ((2**32,), (0, -1), (0, 0, 0, 0)):
        with pytest.raises(AssertionError):
            generator(0, Purpose.COHORT, *index)
