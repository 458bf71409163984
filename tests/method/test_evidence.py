"""Numbers about vectors and spectra, against hand-computed ones, scipy, and known matrices."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from hiso_ray.method import evidence
from hiso_ray.method.evidence import (
    cosine,
    effective_rank,
    histogram,
    largest_eigenvalue,
    log_pearson,
    spearman,
    stability_bound,
    whitened,
    whitening_rank,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed))


# histogram


def test_histogram_by_hand() -> None:
    assert evidence.EDGES.log10().tolist() == pytest.approx([i / 10 - 12 for i in range(201)])
    h = torch.tensor([0.0, 9e-13, 1e-12, 1.0, 1.0, 3.0, 3.2, 9.9e7, 1e8, 1e30])
    counts = histogram(h)
    wanted = dict.fromkeys(range(202), 0) | {0: 2, 1: 1, 121: 2, 125: 1, 126: 1, 200: 1, 201: 2}
    assert dict(enumerate(counts.tolist())) == wanted


def test_histogram_counts_every_entry_and_each_edge_in_the_bin_above_it() -> None:
    counts = histogram(evidence.EDGES.float())
    assert counts.tolist() == [0] + [1] * 201
    assert histogram(normal(10_000).exp()).sum() == 10_000


# correlations


def test_log_pearson_by_hand() -> None:
    # logs in units of log 2: (0, 1, 2) and (0, 2, 1): covariance 1/3, both variances 2/3.
    a, b = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 4.0, 2.0])
    assert log_pearson(a, b) == pytest.approx(0.5)
    assert log_pearson(a, 8 * a**-3) == pytest.approx(-1)


def test_log_pearson_reads_entries_where_both_are_positive() -> None:
    a = torch.tensor([1.0, 2.0, 4.0, 0.0, 5.0, -1.0])
    b = torch.tensor([1.0, 4.0, 2.0, 7.0, -2.0, -1.0])
    assert log_pearson(a, b) == pytest.approx(0.5)


def test_correlations_agree_with_scipy() -> None:
    a = normal(5000).exp()
    b = (a.log() + normal(5000, seed=1)).exp()
    tied = (b * 4).round()
    assert log_pearson(a, b) == pytest.approx(stats.pearsonr(a.log(), b.log())[0], abs=1e-6)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b)[0], abs=1e-12)
    assert tied.unique().numel() < 500
    assert spearman(a, tied) == pytest.approx(stats.spearmanr(a, tied)[0], abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0, 2.0], [1.0, 3.0]),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]),
        ([0.7, 0.7, 0.7, 0.7], [1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_correlations_that_do_not_exist_are_nan(a: list[float], b: list[float]) -> None:
    assert math.isnan(spearman(torch.tensor(a), torch.tensor(b)))
    assert math.isnan(log_pearson(torch.tensor(a), torch.tensor(b)))


def test_log_pearson_of_nothing_positive_is_nan() -> None:
    assert math.isnan(log_pearson(-normal(9).abs(), normal(9)))


def test_large_vectors_are_read_at_evenly_spaced_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every 4th entry of rows of 4 would be one column, here the one that says nothing.
    monkeypatch.setattr(evidence, "SAMPLE", 300)
    rows = normal(250, 4, seed=3)
    rows[:, 0] = 0
    column = rows.flatten()
    assert spearman(column, column) == pytest.approx(1)
    read = evidence._sample(torch.arange(1000.0))
    assert (read.numel(), read[0], read[-1]) == (300, 0, 996)
    assert set(read.diff().tolist()) == {3, 4}


def test_cosine_by_hand() -> None:
    a = torch.tensor([3.0, 4.0])
    assert cosine(a, torch.tensor([4.0, 3.0])) == pytest.approx(24 / 25)
    assert cosine(a, -2 * a) == pytest.approx(-1)
    assert math.isnan(cosine(a, torch.zeros(2)))
    assert cosine(1e-15 * a, 1e-15 * a) == pytest.approx(1)


# spectra


def spectrum(values: list[float]) -> tuple[Tensor, Tensor]:
    """A symmetric matrix with these eigenvalues, not diagonal, and its diagonal."""
    turn, _ = torch.linalg.qr(normal(len(values), len(values)))
    matrix = turn @ torch.diag(torch.tensor(values)) @ turn.T
    return matrix, matrix.diagonal()


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([5.0, 2.0, 1.0, 0.5], 5.0),
        ([-7.0, 3.0, 1.0, 0.0], 3.0),  # the largest in magnitude is not the largest
        ([-7.0, -3.0, -1.0, -2.0], -1.0),
        ([4.0, -4.0, 1.0], 4.0),
        ([0.0, 0.0, 0.0], 0.0),
    ],
)
def test_largest_eigenvalue(values: list[float], wanted: float) -> None:
    matrix, _ = spectrum(values)
    found = largest_eigenvalue(lambda v: matrix @ v, normal(len(values)), 100)
    assert found == pytest.approx(wanted, abs=1e-4)


def test_power_iteration_comes_from_below() -> None:
    matrix, _ = spectrum([5.0, 4.5, 1.0, 0.5])
    start = normal(4)
    found = [largest_eigenvalue(lambda v: matrix @ v, start, n) for n in (1, 3, 10, 100)]
    assert found == sorted(found)
    assert found[-1] <= 5.0 + 1e-5


def test_whitening_rank_by_hand() -> None:
    h, curvature = torch.tensor([4.0, 0.5, 1.0]), torch.tensor([8.0, 1.0, -3.0])
    assert whitening_rank(h, curvature) == 2 + 2 + 3
    assert whitening_rank(torch.tensor([2.0]), curvature) == 6


def test_whitening_rank_is_the_trace_of_the_whitened_matrix() -> None:
    matrix, diagonal = spectrum([5.0, 2.0, 1.0, 0.5])
    h = normal(4, seed=1).exp()
    root = torch.diag(h.rsqrt())
    plain = root @ matrix @ root
    assert whitening_rank(h, diagonal) == pytest.approx(float(plain.trace()), rel=1e-5)
    product = whitened(lambda v: matrix @ v, h)
    v = normal(4, seed=2)
    assert torch.allclose(product(v), plain @ v, atol=1e-5)
    largest = largest_eigenvalue(product, normal(4), 200)
    assert largest == pytest.approx(float(torch.linalg.eigvalsh(plain)[-1]), rel=1e-4)


def test_whitening_with_the_curvature_itself_makes_the_rank_d_and_every_eigenvalue_one() -> None:
    curvature = torch.logspace(-3, 3, 50)
    assert whitening_rank(curvature, curvature) == pytest.approx(50)
    product = whitened(lambda v: curvature * v, curvature)
    assert effective_rank(50, largest_eigenvalue(product, normal(50), 5)) == pytest.approx(50)


def test_effective_rank_by_hand_and_whatever_the_scale() -> None:
    assert effective_rank(8.5, 5.0) == pytest.approx(1.7)
    assert effective_rank(8.5e-6, 5e-6) == pytest.approx(1.7)
    assert math.isnan(effective_rank(1.0, 0.0))
    assert math.isnan(effective_rank(-1.0, -0.5))


# stability


def growth(values: Tensor, lr: float, perturbations: int) -> float:
    """Spectral radius of the map from the second moments E[x_i²] of one step to the next's."""
    each = 1 - 2 * lr * values + (1 + 1 / perturbations) * (lr * values) ** 2
    mixed = torch.ones(len(values), 1, dtype=values.dtype) * (lr * values) ** 2 / perturbations
    return float(torch.linalg.eigvals(torch.diag(each) + mixed).abs().max())


@pytest.mark.parametrize("perturbations", [1, 5])
def test_the_second_moment_of_the_mean_of_random_directions(perturbations: int) -> None:
    # What the test below, and the bound, are built on: E[MAM] = (1 + 1/P) A + Tr(A)/P I.
    a = torch.diag(torch.tensor([1.0, 2.0, 6.0]))
    z = normal(200_000, perturbations, 3)
    m = torch.einsum("npi,npj->nij", z, z) / perturbations
    wanted = (1 + 1 / perturbations) * a + a.trace() / perturbations * torch.eye(3)
    assert torch.allclose((m @ a @ m).mean(0), wanted, atol=0.5)


@pytest.mark.parametrize("perturbations", [1, 2, 5])
@pytest.mark.parametrize("values", [[1.0] * 40, [1.0, *[0.01] * 200], [2.0, 1.0, 0.5]])
def test_steps_below_the_bound_shrink_and_above_it_grow(
    values: list[float], perturbations: int
) -> None:
    exact = torch.tensor(values, dtype=torch.float64)
    low, high = stability_bound(float(exact.sum()), float(exact.max()), perturbations)
    assert low < high
    assert growth(exact, 0.999 * low, perturbations) < 1
    assert growth(exact, 1.001 * high, perturbations) > 1


def test_stability_bound_by_hand() -> None:
    assert stability_bound(10.0, 3.0) == (2 / 16, 2 / 10)
    assert stability_bound(10.0, 3.0, perturbations=5) == (10 / 28, 10 / 10)
    assert all(math.isnan(bound) for bound in stability_bound(0.0, 1.0))
    assert all(math.isnan(bound) for bound in stability_bound(-1.0, 1.0))
