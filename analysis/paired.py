"""Paired comparison of two methods: their difference, its interval, and what was detectable.

Paired, because most of a score's variance comes from which examples are in the test set, and that
affects both methods alike: the difference per example is known far better than either score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from hiso_ray.errors import UserError

LEVEL = 0.05  # of the interval and the tests, two-sided
POWER = 0.8
RESAMPLES = 2000
SEED = 20261129  # of the resampling, so that the same data give the same numbers
AT_ONCE = 500  # resamples in memory


@dataclass(frozen=True)
class Difference:
    """A mean difference between two methods, in units of what was measured.

    Attributes:
        mean: of the first minus that of the second.
        error: its standard error; nan if there is only one example.
        low, high: the 95 % interval; nan likewise.
        detectable: the smallest true difference that such an experiment finds four times in five
            at the 5 % level; nan likewise.
    """

    mean: float
    error: float
    low: float
    high: float
    detectable: float

    @property
    def told_apart(self) -> bool:
        """Whether the interval excludes 0; the interval [0, 0] does not."""
        return self.low > 0 or self.high < 0


def difference(one: np.ndarray, other: np.ndarray) -> Difference:
    """The mean of ``one`` − ``other`` with a bootstrap interval.

    *What is resampled.* Examples, with replacement, each with its values of both methods and all
    seeds: this simulates another test set of the same kind. With several seeds, seeds too, each
    with its runs of both methods: this simulates other partitions, cohorts and directions. Seeds
    and examples are crossed (every seed is scored on the same examples), so they are drawn
    independently, and a resample is every drawn seed on every drawn example (Owen 2007, "The
    pigeonhole bootstrap"). Drawing examples alone would describe these seeds only; drawing (seed,
    example) pairs independently would assume S·n independent examples. The interaction of seed
    and example counts up to three times, so with several seeds the error tends to be too large.
    Of S seeds S − 1 are drawn (Rao and Wu 1988): drawing all S gives (S − 1) ÷ S of the variance,
    which for three seeds is a third too little.

    *The interval* is the mean ± t × the resamples' standard deviation, not their percentiles:
    the percentiles of three seeds end at the extreme seeds, and cover the truth three times in
    four. t has the degrees of freedom of both sources together (Satterthwaite); if seeds hardly
    differ, or there is one, it is the normal 1.96 for all but the smallest test sets.

    *The detectable difference* is (t_0.975 + t_0.8) × the standard error: (1.96 + 0.84) × it for
    a normal t.

    Args:
        one, other: (seeds, examples), the same seeds and examples in the same order.

    Raises:
        UserError: the shapes differ, or there is no example.
    """
    if one.shape != other.shape or one.ndim != 2 or one.size == 0:
        raise UserError(
            f"paired values of shapes {one.shape} and {other.shape}: give the same seeds and "
            "examples of both, (seeds, examples), at least one of each"
        )
    apart = one - other
    mean = float(apart.mean())
    if apart.shape[1] == 1:
        return Difference(mean, *[float("nan")] * 4)  # one example has no spread
    error = float(_resampled_means(apart).std())
    freedom = _degrees_of_freedom(apart)
    within = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
    found = float(stats.t.ppf(POWER, freedom)) * error
    return Difference(mean, error, mean - within, mean + within, within + found)


def _resampled_means(apart: np.ndarray) -> np.ndarray:
    """(seeds, examples) -> (RESAMPLES,)."""
    seeds, examples = apart.shape
    random = np.random.default_rng(SEED)
    drawn_seeds = max(1, seeds - 1)
    means = []
    for _ in range(0, RESAMPLES, AT_ONCE):
        of_seed = random.multinomial(drawn_seeds, np.full(seeds, 1 / seeds), AT_ONCE)
        of_example = random.multinomial(examples, np.full(examples, 1 / examples), AT_ONCE)
        means.append(((of_seed @ apart) * of_example).sum(axis=1) / (drawn_seeds * examples))
    return np.concatenate(means)


def _degrees_of_freedom(apart: np.ndarray) -> float:
    """Satterthwaite's, for the variances over examples and seeds; infinite without variance."""
    parts = []
    for axis in (0, 1):
        means = apart.mean(axis=axis)
        if len(means) > 1:
            parts.append((means.var(ddof=1) / len(means), len(means) - 1))
    together = sum(variance for variance, _ in parts)
    if together == 0:
        return float("inf")
    return float(together**2 / sum(variance**2 / freedom for variance, freedom in parts))


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test (McNemar 1947).

    Attributes:
        only_one: b, the number of examples that only the first has right.
        only_other: c, the number that only the second has right.
        p: the probability of a split of b + c at least as uneven, if both are equally likely
            (binomial, two-sided); 1 if they agree on every example.
    """

    only_one: int
    only_other: int
    p: float


def mcnemar(one: np.ndarray, other: np.ndarray) -> McNemar:
    """The test of two runs.

    It takes one seed only: with several, each example would be counted once per seed.

    Args:
        one, other: (examples,), 1 if right and 0 if wrong.

    Raises:
        UserError: the shapes differ, or there are other values.
    """
    if one.shape != other.shape or one.ndim != 1:
        raise UserError(f"outcomes of shapes {one.shape} and {other.shape}: give the same examples")
    if not (is_binary(one) and is_binary(other)):
        raise UserError("McNemar's test is for right (1) and wrong (0): there are other values")
    b, c = int((one > other).sum()), int((one < other).sum())
    p = float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0
    return McNemar(b, c, p)


def is_binary(values: np.ndarray) -> bool:
    """Whether all are 0 or 1."""
    return bool(np.isin(values, (0, 1)).all())
