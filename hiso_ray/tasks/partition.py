"""Which client holds which examples.

``dirichlet(α)``: for each label, the clients' shares are one draw from a symmetric Dirichlet with
concentration α (Yurochkin et al. 2019, arXiv 1905.12022), so both the labels and the sizes are
skewed. Clients left with fewer than ``min_examples`` then take one example at a time from whoever
holds most, from that client's most frequent label. ``iid``: a random split into equal sizes.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from hiso_ray.config import FederationConfig
from hiso_ray.seeds import Purpose, generator


@dataclass(frozen=True)
class Partition:
    """The examples of every client, in two arrays that can be shared between processes.

    Attributes:
        examples: (n,) example indices, client after client.
        offsets: (num_clients + 1,) where each client's begin.
    """

    examples: np.ndarray
    offsets: np.ndarray

    def of(self, client: int) -> np.ndarray:
        return self.examples[self.offsets[client] : self.offsets[client + 1]]

    @property
    def num_clients(self) -> int:
        return len(self.offsets) - 1

    def label_counts(self, labels: np.ndarray, num_labels: int) -> np.ndarray:
        """(num_clients, num_labels) examples of each label that each client holds."""
        owner = np.repeat(np.arange(self.num_clients), np.diff(self.offsets))
        counts = np.zeros((self.num_clients, num_labels), np.int64)
        np.add.at(counts, (owner, labels[self.examples]), 1)
        return counts


def split(federation: FederationConfig, labels: np.ndarray, run_seed: int) -> Partition:
    """Splits the examples; a pure function of its arguments.

    Args:
        labels: (n,) int64, one per training example.

    Raises:
        ValueError: fewer than ``num_clients * min_examples`` examples.
    """
    num_clients, least = federation.num_clients, federation.min_examples
    if num_clients * least > len(labels):
        raise ValueError(
            f"federation.num_clients = {num_clients} with min_examples = {least} needs "
            f"{num_clients * least} training examples, the task has {len(labels)}: at most "
            f"{len(labels) // least} clients"
        )
    rng = generator(run_seed, Purpose.PARTITION)
    if federation.partition == "iid":
        shards = np.array_split(rng.permutation(len(labels)), num_clients)
    else:
        shards = _dirichlet(labels, num_clients, federation.alpha, least, rng)
    sizes = [len(shard) for shard in shards]
    return Partition(
        np.concatenate(shards).astype(np.int64), np.concatenate([[0], np.cumsum(sizes)])
    )


def _dirichlet(
    labels: np.ndarray, num_clients: int, alpha: float, least: int, rng: np.random.Generator
) -> list[np.ndarray]:
    holdings: list[list[list[int]]] = [[] for _ in range(num_clients)]  # client -> label -> indices
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.floor(np.cumsum(_shares(alpha, num_clients, rng))[:-1] * len(members) + 0.5)
        for client, part in enumerate(np.split(members, cuts.astype(np.int64))):
            holdings[client].append(part.tolist())
    _fill_up(holdings, least)
    return [np.sort(np.concatenate([np.array(p, np.int64) for p in h])) for h in holdings]


def _shares(alpha: float, num_clients: int, rng: np.random.Generator) -> np.ndarray:
    shares = rng.dirichlet(np.full(num_clients, alpha))
    if not np.isfinite(shares).all() or shares.sum() == 0:
        # At tiny α every gamma draw underflows; the limit of the distribution is one winner.
        shares = np.zeros(num_clients)
        shares[rng.integers(num_clients)] = 1.0
    return shares


def _fill_up(holdings: list[list[list[int]]], least: int) -> None:
    sizes = [sum(map(len, h)) for h in holdings]
    richest = [(-size, client) for client, size in enumerate(sizes)]
    heapq.heapify(richest)
    for client in range(len(holdings)):
        while sizes[client] < least:
            negative, giver = heapq.heappop(richest)
            if -negative != sizes[giver]:
                continue  # an outdated entry; the current one is in the heap as well
            label = max(range(len(holdings[giver])), key=lambda k: len(holdings[giver][k]))
            holdings[client][label].append(holdings[giver][label].pop())
            sizes[client] += 1
            sizes[giver] -= 1
            heapq.heappush(richest, (-sizes[giver], giver))
            heapq.heappush(richest, (-sizes[client], client))


def skew(counts: np.ndarray) -> dict[str, float]:
    """The realised skew of a partition.

    Returns:
        Sizes (``min``, ``median``, ``max`` examples), ``labels`` (mean number of labels a client
        holds) and ``distance`` (mean total variation distance between a client's label mix and
        the whole; 0 for identical mixes).
    """
    sizes = counts.sum(1)
    mix = counts / sizes[:, None]
    whole = counts.sum(0) / counts.sum()
    return {
        "min": int(sizes.min()),
        "median": float(np.median(sizes)),
        "max": int(sizes.max()),
        "labels": float((counts > 0).sum(1).mean()),
        "distance": float(0.5 * np.abs(mix - whole).sum(1).mean()),
    }
