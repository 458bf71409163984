from __future__ import annotations

import math

import numpy as np
import pytest

from hiso_ray.analysis.paired import difference, is_binary, mcnemar


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, float)


def test_mcnemar_by_hand() -> None:
    # both right 4, only one 6, only other 1, both wrong 2
    one = rows([1] * 4 + [1] * 6 + [0] * 1 + [0] * 2)[0]
    other = rows([1] * 4 + [0] * 6 + [1] * 1 + [0] * 2)[0]
    test = mcnemar(one, other)
    assert (test.only_one, test.only_other) == (6, 1)
    # 2 · (C(7,0) + C(7,1)) / 2⁷
    assert test.p == pytest.approx(2 * (1 + 7) / 128)
    assert mcnemar(other, one) == type(test)(1, 6, test.p)


def test_mcnemar_of_agreement_and_of_an_even_split() -> None:
    assert mcnemar(np.ones(5), np.ones(5)).p == 1
    assert mcnemar(np.array([1.0, 0.0]), np.array([0.0, 1.0])).p == 1


def test_mcnemar_is_of_right_and_wrong() -> None:
    assert is_binary(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"right \(1\) and wrong \(0\)"):
        mcnemar(np.array([0.5]), np.array([1.0]))
    with pytest.raises(ValueError, match="the same examples"):
        mcnemar(np.ones(2), np.ones(3))


def test_of_one_seed_the_error_is_that_of_a_mean() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 1, 500))
    found = difference(one, other)
    apart = one - other
    assert found.mean == pytest.approx(apart.mean())
    closed = apart.std() / math.sqrt(500)
    assert found.error == pytest.approx(closed, rel=0.05)  # of 2000 resamples: 1.6 %
    assert found.high - found.mean == pytest.approx(found.mean - found.low)
    assert found.high - found.mean == pytest.approx(1.9647 * found.error, rel=1e-3)  # t of 499
    # by hand: 1.9647 and 0.8423 are t's quantiles
    assert found.detectable == pytest.approx((1.9647 + 0.8423) * found.error, rel=1e-3)
    assert found == difference(one, other)  # the same every time


def test_seeds_that_differ_count_as_seeds() -> None:
    # The examples are all alike: three numbers, and t of two degrees of freedom.
    apart = np.repeat(rows([1.0], [2.0], [6.0]), 50, axis=1)
    found = difference(apart, np.zeros_like(apart))
    assert found.mean == 3
    assert found.error == pytest.approx(math.sqrt(7 / 3), rel=0.05)  # s² = 7
    assert found.high - 3 == pytest.approx(4.303 * found.error, rel=1e-3)
    assert not found.told_apart


def test_examples_that_differ_alike_for_all_seeds_count_once() -> None:
    values = np.random.default_rng(1).normal(size=400)
    three = np.repeat(values[None], 3, axis=0)
    found = difference(three, np.zeros_like(three))
    assert found.error == pytest.approx(values.std() / 20, rel=0.05)  # not less for three seeds


@pytest.mark.parametrize("seeds", [1, 3])
def test_nothing_between_the_two(seeds: int) -> None:
    same = np.tile([0.0, 1.0, 1.0], (seeds, 1))
    found = difference(same, same)
    assert (found.mean, found.error, found.low, found.high, found.detectable) == (0, 0, 0, 0, 0)
    assert not found.told_apart


def test_one_example_says_nothing_of_others() -> None:
    found = difference(rows([1.0], [1.0]), rows([0.0], [0.0]))
    assert found.mean == 1
    assert math.isnan(found.error)
    assert math.isnan(found.low)
    assert not found.told_apart


def test_what_is_not_paired_is_refused() -> None:
    for one, other in ((np.ones((1, 2)), np.ones((1, 3))), (np.ones((1, 0)), np.ones((1, 0)))):
        with pytest.raises(ValueError, match="the same seeds and examples"):
            difference(one, other)


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_detectable_difference_is_found_four_times_in_five(seeds: int) -> None:
    """And where there is none, one is found one time in twenty."""
    random = np.random.default_rng(2)
    count, examples, found, invented = 200, 100, 0, 0
    for _ in range(count):
        apart = 0.3 * random.normal(size=(seeds, 1)) * (seeds > 1)
        apart = apart + random.normal(size=(1, examples)) + np.zeros((seeds, examples))
        none = np.zeros_like(apart)
        first = difference(apart, none)
        invented += first.told_apart
        found += difference(apart + first.detectable, none).told_apart
    assert 0.7 < found / count < 0.9
    assert invented / count < 0.1
