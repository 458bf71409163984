from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hiso_ray.method import direction, torch_stream
from hiso_ray.method.direction import CHUNK, Directions
from hiso_ray.method.torch_stream import stream
from hiso_ray.method.reference import direction as whole
from hiso_ray.seeds import direction_key

CPU = torch.device("cpu")


def gather(directions: Directions, seed: int, p: int) -> torch.Tensor:
    out = torch.empty(directions.dimension)
    for where, u in directions.chunks((seed, p)):
        out[where] = u
    return out


@pytest.mark.parametrize("dimension", [1, 5, 16, 2410, CHUNK["cpu"], CHUNK["cpu"] + 1, 200_003])
@pytest.mark.parametrize("budget", [0, 10**9])
def test_streamed_and_remembered_directions_are_one_long_draw(dimension: int, budget: int) -> None:
    directions = Directions(dimension, CPU, budget)
    for _ in range(2):
        assert torch.equal(gather(directions, 11, 3), whole(11, 3, dimension))


def test_remembers_as_many_as_fit_the_budget() -> None:
    directions = Directions(1000, CPU, 2 * 4000 + 3999)
    first = [gather(directions, 1, p) for p in range(5)]
    assert len(directions._kept) == 2
    assert all(torch.equal(a, gather(directions, 1, p)) for p, a in enumerate(first))
    directions.forget()
    assert not directions._kept


def test_the_whole_key_reaches_the_generator() -> None:
    # Trap: on the CPU manual_seed keeps 32 bits, so 2^32 apart is the same stream.
    a, b = (torch.Generator().manual_seed(s) for s in (5, 5 + 2**32))
    assert torch.equal(torch.randn(16, generator=a), torch.randn(16, generator=b))
    assert not torch.equal(whole(5, 0, 16), whole(5 + 2**32, 0, 16))


def test_the_state_is_a_mersenne_twister_that_numpy_agrees_with() -> None:
    key = direction_key(77, 2)
    twister = np.random.MT19937()
    words = np.random.Philox(key).random_raw(direction._MT_WORDS // 2).view(np.uint32)
    twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    drawn = torch.empty(2000, dtype=torch.int32).random_(generator=stream((77, 2), CPU))
    expected = twister.random_raw(2000) & (2**31 - 1)
    assert drawn.tolist() == expected.tolist()


def test_is_standard_normal_and_independent_of_its_neighbours() -> None:
    n = 400_000
    u = [whole(9, p, n) for p in range(2)] + [whole(10, 0, n)]
    for one in u:
        assert float(one.mean()) == pytest.approx(0, abs=5 / math.sqrt(n))
        assert float(one.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / n))
        assert float((one**4).mean()) == pytest.approx(3, abs=5 * math.sqrt(96 / n))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert float((u[a] * u[b]).mean()) == pytest.approx(0, abs=5 / math.sqrt(n))


def test_global_torch_state_is_neither_read_nor_written() -> None:
    torch.manual_seed(1)
    before, one = torch.get_rng_state(), whole(3, 1, 100)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(one, whole(3, 1, 100))


def test_the_generator_is_described() -> None:
    found = direction.describe_generator(CPU)
    assert found == {"name": "torch-cpu-vectorised", "scheme": direction.SCHEME}


def test_the_norm_is_of_the_whole_direction() -> None:
    d = CHUNK["cpu"] + 77
    directions = Directions(d, CPU, 0)
    assert directions.norm((4, 2)) == pytest.approx(float(whole(4, 2, d).double().norm()), rel=1e-6)


def test_a_clients_own_directions_are_no_others() -> None:
    directions = Directions(64, CPU, 10**6)

    def drawn(*name: int) -> torch.Tensor:
        ((_, u),) = directions.chunks(name)
        return u

    found = [drawn(5, 1), drawn(5, 1, 0), drawn(5, 0, 1), drawn(5, 1, 1), drawn(5, 0, 0)]
    for i, one in enumerate(found):
        assert not any(torch.equal(one, other) for other in found[:i])
    assert torch.equal(drawn(5, 0, 1), found[2])
