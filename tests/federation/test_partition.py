from __future__ import annotations

import hashlib
import time
from typing import Any

import numpy as np
import pytest

from hiso_ray.config import FederationConfig
from hiso_ray.federation import partition
from hiso_ray.federation.partition import Partition, skew

LABELS = np.repeat(np.arange(10), 150)
KINDS = ["dirichlet", "dirichlet_balanced", "shards", "sizes", "iid"]


def split(
    kind: str, clients: int, seed: int = 0, labels: np.ndarray = LABELS, **fields: Any
) -> Partition:
    federation = FederationConfig(
        num_clients=clients, clients_per_round=1, partition=kind, **fields
    )
    return partition.split(federation, labels, seed)


def counts(kind: str, clients: int = 30, **fields: Any) -> np.ndarray:
    return split(kind, clients, **fields).label_counts(LABELS, 10)


def authors(number: int, n: int) -> np.ndarray:
    """Groups as a column of the data makes them: a few large, many small, some empty."""
    return np.minimum(np.random.default_rng(1).zipf(1.3, n), number) - 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [LABELS, authors(400, 1500)], ids=["classes", "authors"])
@pytest.mark.parametrize(("clients", "least"), [(1, 1), (7, 20), (300, 5), (1500, 1)])
def test_every_example_once_and_every_client_has_enough(
    kind: str, labels: np.ndarray, clients: int, least: int
) -> None:
    found = split(
        kind,
        clients,
        3,
        labels,
        alpha=0.1,
        min_examples=least,
        shards_per_client=1,
        size_exponent=3,
    )
    assert found.num_clients == clients
    assert sorted(found.examples.tolist()) == list(range(len(labels)))
    assert np.diff(found.offsets).min() >= least


@pytest.mark.parametrize("kind", ["dirichlet", "dirichlet_balanced"])
@pytest.mark.parametrize("alpha", [1e-300, 1e-6, 1e-3, 1.0, 100.0, 1e6])
@pytest.mark.parametrize(("clients", "least"), [(1, 1), (7, 20), (300, 5), (1500, 1)])
def test_any_alpha_leaves_no_client_empty(
    kind: str, alpha: float, clients: int, least: int
) -> None:
    # Trap: a tiny α with few classes leaves clients empty.
    found = split(kind, clients, 3, alpha=alpha, min_examples=least)
    assert sorted(found.examples.tolist()) == list(range(len(LABELS)))
    assert np.diff(found.offsets).min() >= least


@pytest.mark.parametrize("kind", KINDS)
def test_is_a_function_of_the_seed(kind: str) -> None:
    one, two = (split(kind, 20, seed=0) for _ in range(2))
    assert np.array_equal(one.examples, two.examples)
    assert np.array_equal(one.offsets, two.offsets)
    assert not np.array_equal(one.examples, split(kind, 20, seed=1).examples)


GOLDEN = {
    ("dirichlet", 64, 0, 1.0, 1): "0be8a168ba2be6a7",
    ("dirichlet", 30, 1, 0.1, 40): "0a846aaddd35d9d4",
    ("dirichlet", 300, 3, 1e-300, 5): "2a9a888431d41aba",
    ("iid", 64, 0, 1.0, 1): "9d72e9c00326cdbc",
    ("iid", 7, 5, 1.0, 20): "bebc2d9a24571f5b",
}


@pytest.mark.parametrize("arguments", GOLDEN, ids=str)
def test_who_holds_what_stays_the_same_bits(
    arguments: tuple[str, int, int, float, int],
) -> None:
    """Every ledger written so far was run on these partitions."""
    kind, clients, seed, alpha, least = arguments
    digest = hashlib.sha256()
    for labels in (LABELS, authors(400, 1500)):
        found = split(kind, clients, seed, labels, alpha=alpha, min_examples=least)
        digest.update(found.examples.astype("<i8").tobytes())
        digest.update(found.offsets.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == GOLDEN[arguments]


def test_filling_up_passes_one_example_at_a_time_from_the_richest() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, clients = int(rng.integers(1, 80)), int(rng.integers(1, 12))
        least = int(rng.integers(0, n // clients + 1))
        owner = rng.integers(0, rng.integers(1, clients + 1), n)
        group = rng.integers(0, 4, n)
        expected = fill_up_by_hand(owner, group, clients, least)
        assert np.array_equal(partition._fill_up(owner, group, clients, least), expected)


def fill_up_by_hand(owner: np.ndarray, group: np.ndarray, clients: int, least: int) -> np.ndarray:
    owner = owner.copy()
    for client in range(clients):
        while np.sum(owner == client) < least:
            giver = int(np.argmax(np.bincount(owner, minlength=clients)))
            largest = np.argmax(np.bincount(group[owner == giver]))
            owner[np.flatnonzero((owner == giver) & (group == largest))[-1]] = client
    return owner


def test_shares_have_the_variance_of_the_dirichlet_that_is_stated() -> None:
    # Trap: a skew milder than the α it reports. Var of a share = (1/N)(1-1/N)/(Nα+1).
    clients, alpha = 10, 0.5
    shares = np.concatenate(
        [counts("dirichlet", clients, seed=s, alpha=alpha).ravel() / 150 for s in range(40)]
    )
    expected = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    assert shares.var() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("kind", ["dirichlet", "dirichlet_balanced"])
def test_smaller_alpha_is_more_skewed(kind: str) -> None:
    distances = [skew(counts(kind, alpha=a))["distance"] for a in (0.05, 0.5, 5.0, 500.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.7
    assert distances[-1] < 0.1


@pytest.mark.parametrize("alpha", [1e-300, 0.1, 1.0, 1e6])
def test_balanced_clients_differ_by_one_example_at_most(alpha: float) -> None:
    sizes = counts("dirichlet_balanced", 37, alpha=alpha).sum(1)
    assert sizes.max() - sizes.min() == 1  # 1,500 examples


def as_the_authors_split(labels: np.ndarray, clients: int, alpha: float, seed: int) -> np.ndarray:
    """(clients, classes) counts by the procedure of DeComFL's and HiSo's code, step by step."""
    rng = np.random.RandomState(seed)
    classes = np.unique(labels)
    prior = np.array([(labels == c).mean() for c in classes])
    mixes = rng.dirichlet(alpha * prior, clients)
    held: list[list[int]] = [[] for _ in range(clients)]
    for k, c in enumerate(classes):
        indices, ends = np.flatnonzero(labels == c), np.cumsum(mixes[:, k]) / mixes[:, k].sum()
        for i in range(clients):
            start = int((ends[i - 1] if i else 0.0) * len(indices))
            held[i] += indices[start : int(ends[i] * len(indices))].tolist()
    fair, pool = len(labels) // clients, list[int]()
    for i in range(clients):
        rng.shuffle(held[i])
        held[i], extra = held[i][:fair], held[i][fair:]
        pool += extra
    rng.shuffle(pool)
    for mine in held:
        while len(mine) < fair and pool:
            mine.append(pool.pop())
    return np.array([np.bincount(labels[mine], minlength=len(classes)) for mine in held])


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_balanced_has_the_skew_of_the_authors_split(alpha: float) -> None:
    def measured(made: Any) -> np.ndarray:
        found = [skew(made(seed)) for seed in range(30)]
        return np.array([[s["distance"], s["labels"]] for s in found])

    ours = measured(lambda s: counts("dirichlet_balanced", 30, seed=s, alpha=alpha))
    theirs = measured(lambda s: as_the_authors_split(LABELS, 30, alpha, s))
    error = np.sqrt((ours.var(0) + theirs.var(0)) / 30)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()


def test_thousands_of_groups_and_clients_are_split_in_seconds() -> None:
    labels = np.random.default_rng(0).integers(0, 2000, 100_000)
    start = time.perf_counter()
    found = split("dirichlet", 1000, labels=labels, alpha=0.1, min_examples=90)
    assert time.perf_counter() - start < 5  # half a second on one core
    assert np.diff(found.offsets).min() == 90


def test_shards_are_the_sorted_examples_in_equal_pieces() -> None:
    """With as many pieces a group as fit, each is of one group (McMahan et al. 2017, §3)."""
    held = counts("shards", 50, shards_per_client=2)  # 100 pieces of 15, ten a group
    assert set(held.ravel().tolist()) <= {0, 15, 30}
    assert (held.sum(1) == 30).all()
    assert set((held > 0).sum(1).tolist()) == {1, 2}


@pytest.mark.parametrize("each", [1, 2, 3])
def test_a_client_sees_few_groups_where_pieces_straddle_them(each: int) -> None:
    held = counts("shards", 37, shards_per_client=each)
    assert (held > 0).sum(1).max() <= 2 * each
    pieces = 37 * each
    smallest, largest = each * (1500 // pieces), each * (1500 // pieces + 1)
    assert smallest <= held.sum(1).min() <= held.sum(1).max() <= largest


def test_shards_differ_in_their_random_contents() -> None:
    # Trap: sorting alone would put the same neighbours of the file into every seed's shards.
    one, two = (split("shards", 50, seed=seed).examples.reshape(100, 15) for seed in (0, 1))
    assert not {tuple(sorted(p)) for p in one.tolist()} & {tuple(sorted(p)) for p in two.tolist()}


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_sizes_follow_the_power_law(exponent: float) -> None:
    found = np.diff(split("sizes", 12, size_exponent=exponent).offsets)
    law = np.arange(1, 13) ** -exponent
    expected = 1500 * law / law.sum()
    assert np.abs(np.sort(found)[::-1] - expected).max() <= 1
    assert found.sum() == 1500


def test_ranks_are_dealt_at_random() -> None:
    richest = {int(np.argmax(np.diff(split("sizes", 12, seed=s).offsets))) for s in range(20)}
    assert len(richest) > 5


def test_sizes_have_random_contents() -> None:
    held = counts("sizes", 5, size_exponent=0.5)
    assert skew(held)["distance"] < 0.1
    assert len(np.unique(np.diff(split("sizes", 5).examples))) > 100


def test_skew_by_hand() -> None:
    found = skew(np.array([[4, 0], [0, 4], [2, 2]]))
    assert found == {"min": 4, "median": 4.0, "max": 4, "labels": 4 / 3, "distance": 1 / 3}


def test_counts_by_hand() -> None:
    found = Partition(np.array([3, 0, 1, 2]), np.array([0, 1, 4]))
    assert found.label_counts(np.array([0, 2, 0, 2]), 4).tolist() == [[0, 0, 1, 0], [2, 0, 1, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_more_clients_than_examples_says_how_many_fit(kind: str) -> None:
    with pytest.raises(ValueError, match=r"num_clients = 2000 .* has 1500: at most 1500 clients"):
        split(kind, 2000)
    with pytest.raises(ValueError, match="at most 75 clients"):
        split(kind, 100, min_examples=20)


def test_more_shards_than_examples_says_how_many_fit() -> None:
    with pytest.raises(ValueError, match=r"needs 1600 shards .* at most 3 shards per client"):
        split("shards", 400, shards_per_client=4)
    assert split("shards", 375, shards_per_client=4).num_clients == 375
