"""Directions are named alike by everyone who needs them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from hiso_ray.method.naming import Naming
from hiso_ray.seeds import direction_key, pool_seed


def test_shared_directions_are_the_same_for_all_clients_and_once_in_a_record() -> None:
    naming = Naming(3)
    assert naming.of(70, 0) == naming.of(70, 9) == [(70, 0), (70, 1), (70, 2)]
    assert naming.of_record(70, [4, 9]) == naming.of(70, 0)
    assert naming.of_record(70, ()) == naming.of(70, 0)  # a replica is not told of the cohort


def test_own_directions_stand_client_by_client_in_a_record() -> None:
    naming = Naming(2, shared=False)
    assert naming.of(70, 4) == [(70, 4, 0), (70, 4, 1)]
    assert naming.of_record(70, [4, 9]) == [*naming.of(70, 4), *naming.of(70, 9)]


def test_a_pool_has_no_more_directions_than_its_size_all_used_alike() -> None:
    seed, size, n = pool_seed(3), 8, 4000
    naming = Naming(2, shared=False, pool=(seed, size))
    found = Counter(name for s in range(n // 2) for name in naming.of(s, 5))
    assert set(found) == {(seed, j) for j in range(size)}
    spread = 5 * (n * (1 / size) * (1 - 1 / size)) ** 0.5
    assert all(abs(count - n / size) < spread for count in found.values())


def test_what_is_drawn_from_a_pool_is_a_function_of_seed_client_and_number() -> None:
    pool = (pool_seed(3), 2**20)
    drawn = {
        (s, client): tuple(Naming(2, False, pool).of(s, client))
        for s in range(20)
        for client in (0, 1)
    }
    assert len(set(drawn.values())) == 40
    assert all(tuple(Naming(2, False, pool).of(*key)) == names for key, names in drawn.items())
    number = int(direction_key(7, 1, 0).generate_state(1, np.uint64)[0]) % 2**20
    assert drawn[7, 1][0] == (pool[0], number)


def test_the_pool_is_the_runs_own() -> None:
    assert pool_seed(0) == pool_seed(0) != pool_seed(1)
