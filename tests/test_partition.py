from __future__ import annotations

import numpy as np
import pytest

from hiso_ray.config import FederationConfig
from hiso_ray.tasks import partition
from hiso_ray.tasks.partition import Partition, skew

LABELS = np.repeat(np.arange(10), 150)


def split(kind: str, clients: int, alpha: float, least: int, seed: int) -> Partition:
    federation = FederationConfig(
        num_clients=clients, clients_per_round=1, partition=kind, alpha=alpha, min_examples=least
    )
    return partition.split(federation, LABELS, seed)


def counts(alpha: float, clients: int = 30, least: int = 1, kind: str = "dirichlet") -> np.ndarray:
    return split(kind, clients, alpha, least, 0).label_counts(LABELS, 10)


@pytest.mark.parametrize("kind", ["dirichlet", "iid"])
@pytest.mark.parametrize("alpha", [1e-300, 1e-6, 1e-3, 0.1, 1.0, 100.0, 1e6])
@pytest.mark.parametrize(("clients", "least"), [(1, 1), (7, 20), (300, 5), (1500, 1)])
def test_every_example_once_and_every_client_has_enough(
    kind: str, alpha: float, clients: int, least: int
) -> None:
    # Trap: a tiny α with few classes leaves clients empty.
    found = split(kind, clients, alpha, least, 3)
    assert found.num_clients == clients
    assert sorted(found.examples.tolist()) == list(range(len(LABELS)))
    assert np.diff(found.offsets).min() >= least


def test_is_a_function_of_the_seed() -> None:
    one, two = (split("dirichlet", 20, 0.5, 1, seed) for seed in (0, 0))
    assert np.array_equal(one.examples, two.examples)
    assert np.array_equal(one.offsets, two.offsets)
    other = split("dirichlet", 20, 0.5, 1, 1)
    assert not np.array_equal(one.examples, other.examples)


def test_shares_have_the_variance_of_the_dirichlet_that_is_stated() -> None:
    # Trap: a skew milder than the α it reports. Var of a share = (1/N)(1-1/N)/(Nα+1).
    clients, alpha = 10, 0.5
    shares = np.concatenate(
        [
            split("dirichlet", clients, alpha, 1, s).label_counts(LABELS, 10).ravel() / 150
            for s in range(40)
        ]
    )
    expected = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    assert shares.var() == pytest.approx(expected, rel=0.1)


def test_smaller_alpha_is_more_skewed() -> None:
    distances = [skew(counts(alpha))["distance"] for alpha in (0.05, 0.5, 5.0, 500.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.7
    assert distances[-1] < 0.1


def test_skew_by_hand() -> None:
    found = skew(np.array([[4, 0], [0, 4], [2, 2]]))
    assert found == {"min": 4, "median": 4.0, "max": 4, "labels": 4 / 3, "distance": 1 / 3}


def test_more_clients_than_examples_says_how_many_fit() -> None:
    with pytest.raises(ValueError, match=r"num_clients = 2000 .* has 1500: at most 1500"):
        split("dirichlet", 2000, 1.0, 1, 0)
    with pytest.raises(ValueError, match="at most 75 clients"):
        split("iid", 100, 1.0, 20, 0)
