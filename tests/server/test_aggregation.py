"""Rules against numbers worked out by hand, outliers, and cohorts that are too small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hiso_ray.config.aggregation import (
    AggregationConfig,
    check_cohort,
    shortage,
    smallest_cohort,
    withstood,
)
from hiso_ray.server.aggregation import aggregate

ROBUST = [("median", 0.0), ("trimmed_mean", 0.2), ("krum", 0.2), ("multi_krum", 0.2)]


def rows(*values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_mean_has_the_bits_of_a_loop_over_clients() -> None:
    sent = np.random.default_rng(0).standard_normal((97, 3, 5)).astype(np.float32) * 1e3
    total = np.zeros((3, 5))
    for row in sent:
        total += row
    expected = (total / len(sent)).astype(np.float32)
    assert aggregate(sent, "mean").tobytes() == expected.tobytes()
    assert aggregate(sent, "mean", weights=np.ones(97)).tobytes() == expected.tobytes()


def test_the_mean_sums_in_float64() -> None:
    # In float32 the 1 would be lost beside 2^25.
    assert aggregate(rows([2**25], [1], [-(2**25)], [1]), "mean").tolist() == [0.5]


def test_the_weighted_mean_by_hand() -> None:
    sent = rows([1, 10], [2, 20], [4, -40])
    weights = np.array([1.0, 2.0, 5.0])
    assert aggregate(sent, "mean", weights=weights).tolist() == [25 / 8, -150 / 8]


@pytest.mark.parametrize("m", [1, 2, 5])
def test_the_median_by_hand(m: int) -> None:
    sent = rows([5, 0], [1, 9], [2, -1], [80, 3], [3, 1])[:m]
    assert aggregate(sent, "median").tolist() == {1: [5, 0], 2: [3, 4.5], 5: [3, 1]}[m]


def test_the_trimmed_mean_by_hand() -> None:
    # f = ⌈0.2 · 6⌉ = 2: of each column the two middle values remain.
    sent = rows([1, 6], [2, 5], [3, 4], [4, -9], [90, 2], [-80, 1])
    assert aggregate(sent, "trimmed_mean", byzantine=0.2).tolist() == [2.5, 3]
    assert aggregate(sent[:5], "trimmed_mean", byzantine=0.2).tolist() == pytest.approx([3, 11 / 3])


# One coordinate, m = 6, f = 1: scores are the three smallest squared distances to others.
#     0: 1+9+36 = 46   1: 1+4+25 = 30   3: 4+9+9 = 22   6: 4+9+25 = 38   8: 4+25+49 = 78   40: ...
LINE = rows([0], [40], [3], [1], [8], [6])


def test_krum_by_hand() -> None:
    assert aggregate(LINE, "krum", byzantine=0.1).tolist() == [3]


def test_multi_krum_by_hand() -> None:
    # f = 1: all of the line but 40.
    five = pytest.approx([18 / 5], rel=1e-7)
    assert aggregate(LINE, "multi_krum", byzantine=0.1).tolist() == five
    # m = 7, f = 2, three nearest again: the scores above stay, and -50 is as lonely as 40.
    seven = np.concatenate([LINE, rows([-50])])
    assert aggregate(seven, "multi_krum", byzantine=0.2).tolist() == five


def test_krum_of_equals_takes_the_first() -> None:
    # 1 and 2 score 1+1+4; with a fourth neighbour it would be 2 alone, with two both again.
    assert aggregate(rows([11], [1], [10], [0], [2], [3]), "krum", byzantine=0.1) == 1
    assert aggregate(rows([11], [2], [10], [0], [1], [3]), "krum", byzantine=0.1) == 2


def test_krum_squares_distances() -> None:
    # f = 1, two nearest: 0 scores 0 + 3², its rival 2² + 2² = 8, then 2.2² + 2.2² = 9.68.
    assert aggregate(rows([0], [0], [3], [5], [7]), "krum", byzantine=0.2) == 5
    assert aggregate(rows([7.4], [5.2], [3], [0], [0]), "krum", byzantine=0.2) == 0


def test_krum_takes_a_whole_client() -> None:
    # Its scalars are not those of the median, which is (2, 2).
    sent = rows([[1, 3]], [[1, 3]], [[9, 2]], [[2, -9]], [[3, 0]])
    assert aggregate(sent, "krum", byzantine=0.2).tolist() == [[1, 3]]
    assert aggregate(sent, "median").tolist() == [[2, 2]]


def test_majority_by_hand() -> None:
    sent = rows([5, -5, 1, 0], [-1, -1, -9, 0], [-1, 7, 1, -3], [2, -2, 9, -3])
    assert aggregate(sent, "majority").tolist() == [1, -1, 1, 1]  # 2:2, 1:3, 3:1, 2:2 of zeros


@pytest.mark.parametrize("rule", ["mean", "median", "majority", "trimmed_mean", "krum"])
def test_one_scalar_per_client_and_its_type(rule: str) -> None:
    found = aggregate(rows(1, 1, 1, 1, 1), rule, byzantine=0.2 if rule[0] in "tk" else 0.0)
    assert found.shape == ()
    assert found.dtype == np.float32
    assert found == 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("rule", "byzantine"), ROBUST)
def test_one_gross_outlier_moves_the_mean_only(rule: str, byzantine: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sent = rng.standard_normal((5, 2, 3)).astype(np.float32)
    liar = int(rng.integers(5))
    honest = np.delete(sent, liar, axis=0)
    low, high = honest.min(axis=0), honest.max(axis=0)
    for lie in (1e6, -1e6):
        sent[liar] = lie
        found = aggregate(sent, rule, byzantine=byzantine)
        # A mean of honest values only, up to a rounding of the last bit.
        assert (found >= low - 1e-6).all()
        assert (found <= high + 1e-6).all()
        assert (np.abs(aggregate(sent, "mean")) > 1e5).all()


@pytest.mark.parametrize(("rule", "byzantine"), ROBUST)
def test_more_attackers_than_withstood_win(rule: str, byzantine: float) -> None:
    sent = rows([0.1], [0.2], [1e6], [1e6], [1e6])
    assert aggregate(sent, rule, byzantine=byzantine) > 1e5


def test_the_order_of_clients_matters_to_no_robust_rule() -> None:
    rng = np.random.default_rng(4)
    sent = rng.integers(-50, 50, (11, 4)).astype(np.float32)  # sums of integers are exact
    for rule, byzantine in [*ROBUST, ("mean", 0.0), ("majority", 0.0)]:
        expected = aggregate(sent, rule, byzantine=byzantine)
        assert np.array_equal(
            aggregate(sent[rng.permutation(11)], rule, byzantine=byzantine), expected
        )


def test_nothing_that_was_sent_is_written_to() -> None:
    sent = np.random.default_rng(5).standard_normal((7, 3)).astype(np.float32)
    sent.flags.writeable = False
    for rule, byzantine in [*ROBUST, ("mean", 0.0), ("majority", 0.0)]:
        aggregate(sent, rule, byzantine=byzantine)


@pytest.mark.parametrize(
    ("byzantine", "m", "f"),
    [(0.1, 30, 3), (0.07, 100, 7), (0.3, 10, 3), (0.3, 4, 2), (0.0, 9, 0), (0.01, 1, 1)],
)
def test_shares_of_clients_are_decimal(byzantine: float, m: int, f: int) -> None:
    # Trap: ⌈0.07 · 100⌉ is 8 in floats.
    assert withstood(byzantine, m) == f


@pytest.mark.parametrize("rule", ["trimmed_mean", "krum", "multi_krum", "median", "mean"])
@pytest.mark.parametrize("byzantine", [0.01, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.4, 0.45, 0.49])
def test_the_smallest_cohort_is_the_first_that_is_enough(rule: str, byzantine: float) -> None:
    beyond = {"trimmed_mean": 1, "krum": 3, "multi_krum": 3}.get(rule)

    def enough(m: int) -> bool:
        return m >= 1 if beyond is None else m >= 2 * withstood(byzantine, m) + beyond

    for m in range(160):
        first = next(n for n in range(m, 500) if enough(n))
        assert smallest_cohort(rule, byzantine, m) == first
        assert (shortage(rule, byzantine, m) is None) == (first == m)


def test_too_few_clients_in_words() -> None:
    with pytest.raises(ValueError, match=r"2f \+ 3 = 7") as caught:
        aggregate(np.zeros((4, 5), np.float32), "krum", byzantine=0.3)
    assert "byzantine = 0.3 of 4 clients (f = 2)" in str(caught.value)
    assert "the next that is enough has 9 (f = 3)" in str(caught.value)
    assert str(shortage("krum", 0.2, 4)).endswith("needs 2f + 3 = 5")
    with pytest.raises(ValueError, match="no clients"):
        aggregate(np.zeros((0, 5), np.float32), "mean")


def test_a_cohort_that_is_too_small_is_refused_at_the_start() -> None:
    krum = AggregationConfig(rule="krum", byzantine=0.3)
    with pytest.raises(ValueError, match=r"aggregation\.rule = krum") as caught:
        check_cohort(krum, 4)
    for words in ("federation.clients_per_round = 4", "has 9", "lower aggregation.byzantine"):
        assert words in str(caught.value)
    check_cohort(krum, 9)
    check_cohort(AggregationConfig(), 1)
    check_cohort(AggregationConfig(rule="median"), 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rule": "krum"}, "krum with byzantine = 0 withstands nobody"),
        ({"rule": "trimmed_mean"}, "withstands nobody"),
        ({"byzantine": 0.1}, "byzantine = 0.1 is of trimmed_mean, krum, multi_krum only"),
        ({"rule": "median", "byzantine": 0.1}, "rule is median"),
        ({"rule": "median", "weights": "examples"}, "weights = examples is of the mean only"),
        ({"rule": "krum", "byzantine": 0.5}, "less than 0.5"),
        ({"rule": "krum", "byzantine": -0.1}, "greater than or equal to 0"),
        ({"rule": "majority"}, "'mean', 'median'"),
    ],
)
def test_options_that_nobody_reads_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AggregationConfig(**values)
    assert words in str(caught.value)


def test_weights_are_of_the_mean_only() -> None:
    with pytest.raises(AssertionError):
        aggregate(np.zeros((3, 1), np.float32), "median", weights=np.ones(3))
