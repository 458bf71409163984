from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hiso_ray.method import direction, torch_stream
from hiso_ray.method.direction import CHUNK, Directions, Generator
from hiso_ray.method.naming import Name
from hiso_ray.method.reference import direction as whole
from hiso_ray.seeds import direction_key

CPU = torch.device("cpu")


def gather(directions: Directions, name: Name) -> torch.Tensor:
    out = torch.empty(directions.dimension)
    for where, u in directions.chunks(name):
        out[where] = u
    return out


def one_draw(name: Name, dimension: int, generator: Generator) -> torch.Tensor:
    if generator == "philox":
        return whole(name[0], name[1], dimension)
    rng = torch_stream.stream(name, CPU)
    return torch.randn(-(-dimension // 16) * 16, generator=rng)[:dimension]


@pytest.mark.parametrize("dimension", [1, 5, 16, 2410, CHUNK["cpu"], CHUNK["cpu"] + 1, 200_003])
@pytest.mark.parametrize("budget", [0, 10**9])
@pytest.mark.parametrize("generator", ["philox", "torch"])
def test_streamed_and_remembered_directions_are_one_long_draw(
    dimension: int, budget: int, generator: Generator
) -> None:
    directions = Directions(dimension, CPU, budget, generator)
    for _ in range(2):
        assert torch.equal(gather(directions, (11, 3)), one_draw((11, 3), dimension, generator))


@pytest.mark.parametrize("budget", [0, 10**9])
def test_any_part_can_be_had_alone(budget: int) -> None:
    directions = Directions(200_003, CPU, budget)
    expected = whole(7, 1, 200_003)
    for part in (slice(199_999, 200_003), slice(3, 70_001), slice(65_537, 65_538)):
        chunks = list(directions.chunks((7, 1), part))
        assert torch.cat([u.clone() for _, u in directions.chunks((7, 1), part)]).equal(
            expected[part]
        )
        assert (chunks[0][0].start, chunks[-1][0].stop) == (part.start, part.stop)


def test_remembers_as_many_as_fit_the_budget() -> None:
    directions = Directions(1000, CPU, 2 * 4000 + 3999)
    first = [gather(directions, (1, p)) for p in range(5)]
    assert len(directions._kept) == 2
    assert all(torch.equal(a, gather(directions, (1, p))) for p, a in enumerate(first))
    directions.forget()
    assert not directions._kept


def test_the_whole_key_reaches_torchs_generator() -> None:
    # Trap: on the CPU manual_seed keeps 32 bits, so 2^32 apart is the same stream.
    a, b = (torch.Generator().manual_seed(s) for s in (5, 5 + 2**32))
    assert torch.equal(torch.randn(16, generator=a), torch.randn(16, generator=b))
    near, far = (one_draw((s, 0), 16, "torch") for s in (5, 5 + 2**32))
    assert not torch.equal(near, far)


def test_torchs_state_is_a_mersenne_twister_that_numpy_agrees_with() -> None:
    key = direction_key(77, 2)
    twister = np.random.MT19937()
    words = np.random.Philox(key).random_raw(torch_stream._MT_WORDS // 2).view(np.uint32)
    twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    rng = torch_stream.stream((77, 2), CPU)
    drawn = torch.empty(2000, dtype=torch.int32).random_(generator=rng)
    expected = twister.random_raw(2000) & (2**31 - 1)
    assert drawn.tolist() == expected.tolist()


@pytest.mark.parametrize("generator", ["philox", "torch"])
def test_is_standard_normal_and_independent_of_its_neighbours(generator: Generator) -> None:
    n = 400_000
    u = [one_draw(name, n, generator) for name in ((9, 0), (9, 1), (10, 0))]
    for one in u:
        assert float(one.mean()) == pytest.approx(0, abs=5 / math.sqrt(n))
        assert float(one.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / n))
        assert float((one**4).mean()) == pytest.approx(3, abs=5 * math.sqrt(96 / n))
        assert float((one[:-1] * one[1:]).mean()) == pytest.approx(0, abs=5 / math.sqrt(n))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert float((u[a] * u[b]).mean()) == pytest.approx(0, abs=5 / math.sqrt(n))


@pytest.mark.parametrize("generator", ["philox", "torch"])
def test_global_torch_state_is_neither_read_nor_written(generator: Generator) -> None:
    torch.manual_seed(1)
    before, one = torch.get_rng_state(), gather(Directions(100, CPU, 0, generator), (3, 1))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(one, gather(Directions(100, CPU, 0, generator), (3, 1)))


def test_the_generator_is_described() -> None:
    found = direction.describe_generator("torch", CPU)
    assert found == {"name": "torch-cpu-vectorised", "scheme": torch_stream.SCHEME}
    for device in (CPU, torch.device("cuda")):  # the same wherever it runs
        found = direction.describe_generator("philox", device)
        assert found == {"name": "philox4x32-10", "version": 1}


def test_the_norm_is_of_the_whole_direction() -> None:
    d = CHUNK["cpu"] + 77
    directions = Directions(d, CPU, 0)
    assert directions.norm((4, 2)) == pytest.approx(float(whole(4, 2, d).double().norm()), rel=1e-6)


def test_a_clients_own_directions_are_no_others() -> None:
    directions = Directions(64, CPU, 10**6)
    names = [(5, 1), (5, 1, 0), (5, 0, 1), (5, 1, 1), (5, 0, 0)]
    found = [gather(directions, name) for name in names]
    for i, one in enumerate(found):
        assert not any(torch.equal(one, other) for other in found[:i])
    assert torch.equal(gather(directions, (5, 0, 1)), found[2])
