"""Cohorts and minibatches are pure functions of the run seed, with the stated probabilities."""

from __future__ import annotations

import itertools
import random
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

from hiso_ray.config import FederationConfig
from hiso_ray.federation import sampling
from hiso_ray.federation.sampling import SHUFFLED, minibatch

KINDS = ["uniform", "size", "cyclic"]


def cohort(
    seed: int, round_: int, clients: int, m: int, sizes: list[int] | None = None, **fields: Any
) -> list[int]:
    federation = FederationConfig(num_clients=clients, clients_per_round=m, **fields)
    held = np.arange(1, clients + 1) if sizes is None else np.array(sizes)
    return sampling.cohort(seed, round_, federation, held).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_cohort_is_a_pure_function_of_seed_and_round(kind: str) -> None:
    # Trap: the global random / numpy / torch state.
    def cohorts() -> list[list[int]]:
        return [cohort(7, r, 1000, 8, participation=kind) for r in range(20)]

    expected = cohorts()
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    assert cohorts() == expected
    assert all(c == sorted(set(c)) and len(c) == 8 for c in expected)
    assert len({tuple(c) for c in expected}) == 20
    assert cohort(8, 0, 1000, 8, participation=kind) != expected[0]


GOLDEN = {
    (0, 0, 64, 8): [3, 5, 7, 16, 20, 33, 37, 44],
    (0, 17, 64, 8): [9, 10, 15, 27, 36, 39, 50, 57],
    (7, 3, 1000, 8): [105, 155, 305, 321, 371, 441, 536, 834],
    (3, 199, 12, 3): [3, 4, 9],
}


@pytest.mark.parametrize("arguments", GOLDEN, ids=str)
def test_uniform_cohorts_stay_the_same(arguments: tuple[int, int, int, int]) -> None:
    assert cohort(*arguments) == GOLDEN[arguments]


def test_every_client_is_sampled_equally_often() -> None:
    counts = np.bincount(np.concatenate([cohort(0, r, 10, 3) for r in range(3000)]), minlength=10)
    # 900 expected, standard deviation 25
    assert np.abs(counts - 900).max() < 5 * 25


def test_larger_clients_are_sampled_more_often_as_successive_draws_have_it() -> None:
    """π_i = p_i + Σ_{j≠i} p_j · p_i / (1 - p_j) for a cohort of two."""
    sizes, rounds = [1, 2, 4, 8, 16], 4000
    p = np.array(sizes) / sum(sizes)
    after = p[:, None] * p[None, :] / (1 - p[:, None])  # j first, then i
    expected = p + after.sum(0) - np.diag(after)
    assert expected.sum() == pytest.approx(2)
    drawn = [cohort(0, r, 5, 2, sizes, participation="size") for r in range(rounds)]
    found = np.bincount(np.concatenate(drawn), minlength=5) / rounds
    deviation = np.sqrt(expected * (1 - expected) / rounds)
    assert (np.abs(found - expected) < 4 * deviation).all()


def test_all_clients_of_a_federation_can_be_sampled_by_size() -> None:
    assert cohort(0, 0, 5, 5, [1, 1, 1, 1, 10**9], participation="size") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("clients", "groups"), [(12, 3), (14, 4), (9, 1), (6, 6)])
def test_cyclic_groups_are_near_equal_and_hold_everyone_once(clients: int, groups: int) -> None:
    federation = FederationConfig(
        num_clients=clients, clients_per_round=1, participation="cyclic", cycle_groups=groups
    )
    found = [sampling.available(5, r, federation).tolist() for r in range(2 * groups)]
    assert sorted(chain.from_iterable(found[:groups])) == list(range(clients))
    assert found[:groups] == found[groups:]
    assert {len(group) for group in found} <= {clients // groups, -(-clients // groups)}


def test_cyclic_cohorts_come_from_the_group_whose_turn_it_is() -> None:
    federation = FederationConfig(
        num_clients=20, clients_per_round=3, participation="cyclic", cycle_groups=4
    )
    for round_ in range(40):
        group = sampling.available(0, round_, federation)
        assert set(sampling.cohort(0, round_, federation, np.ones(20, int))) <= set(group)
    again = [cohort(0, r, 20, 3, participation="cyclic", cycle_groups=4) for r in (0, 4, 8, 12)]
    assert len({tuple(c) for c in again}) > 1


def test_cyclic_groups_are_dealt_at_random() -> None:
    federation = FederationConfig(num_clients=40, clients_per_round=1, participation="cyclic")
    dealt = {tuple(sorted(sampling.available(seed, 0, federation))) for seed in range(5)}
    assert len(dealt) == 5


@pytest.mark.parametrize("held", [40, 16 * SHUFFLED, 16 * SHUFFLED + 1, 5000])
def test_minibatch_draws_without_replacement_and_uses_all_of_a_small_client(held: int) -> None:
    examples = np.arange(100, 100 + held)
    batch = minibatch(0, 1, 2, 0, examples, 16)
    assert len(set(batch.tolist())) == 16
    assert set(batch.tolist()) <= set(examples.tolist())
    assert sorted(minibatch(0, 1, 2, 0, examples[:5], 16).tolist()) == examples[:5].tolist()
    others = [minibatch(0, 1, 2, 1, examples, 16), minibatch(0, 1, 3, 0, examples, 16),
              minibatch(0, 2, 2, 0, examples, 16), minibatch(1, 1, 2, 0, examples, 16)]  # fmt: skip
    assert all(not np.array_equal(batch, other) for other in others)


@pytest.mark.parametrize(("n", "size"), [(10, 4), (2 * SHUFFLED + 4, 2)])
def test_every_example_is_drawn_equally_often_and_with_every_other(n: int, size: int) -> None:
    """Over the minibatches of 100 rounds, 10 clients and 3 steps."""
    indices = list(itertools.product(range(100), range(10), range(3)))
    drawn = [minibatch(0, r, c, k, np.arange(n), size) for r, c, k in indices]
    held = np.stack([np.bincount(batch, minlength=n) for batch in drawn])
    together, alone = held.T @ held, size / n
    pairs = together[np.triu_indices(n, 1)]
    for counts, chance in ((np.diag(together), alone), (pairs, alone * (size - 1) / (n - 1))):
        expected, variance = len(indices) * chance, len(indices) * chance * (1 - chance)
        assert np.abs(counts - expected).max() < 4.5 * np.sqrt(variance)
