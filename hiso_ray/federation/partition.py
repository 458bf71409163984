"""Which client holds which examples.

Examples come in groups (``federation.by``): their class, a range of lengths, or the value of a
column such as a topic or an author. ``federation.partition`` selects one of five splits:

- ``dirichlet``: for each group, the clients' shares are one draw from a symmetric Dirichlet with
  concentration α (Yurochkin et al. 2019, arXiv 1905.12022), so both groups and sizes are skewed.
- ``dirichlet_balanced``: equal sizes and skewed groups, as the code of DeComFL and HiSo splits
  classes: a client's mix of groups is one draw from Dir(α · prior), where the prior is the mix of
  all examples (Hsu et al. 2019, arXiv 1909.06335); each group is divided in proportion to the
  mixes, and clients with too many examples give random ones to those with too few.
- ``shards``: the examples, sorted by group, are cut into ``num_clients · shards_per_client``
  nearly equal pieces, and each client gets ``shards_per_client`` of them at random: the
  pathological split of McMahan et al. 2017 (arXiv 1602.05629).
- ``sizes``: random contents; the client at rank k holds a share ∝ k^-``size_exponent`` (Zipf's
  law); ranks are assigned at random.
- ``iid``: random contents, equal sizes.

A client left with fewer than ``min_examples`` then takes one example at a time from the client that
holds most, out of that client's most frequent group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hiso_ray.config import FederationConfig
from hiso_ray.errors import UserError
from hiso_ray.seeds import Purpose, generator

Dealt = tuple[np.ndarray, np.ndarray]
"""(n,) examples in dealing order, and (n,) the client that got each."""


@dataclass(frozen=True)
class Partition:
    """The examples of every client, in two arrays that can be shared between processes.

    Attributes:
        examples: (n,) int64 example indices, client after client.
        offsets: (num_clients + 1,) int64 start of each client's examples.
    """

    examples: np.ndarray
    offsets: np.ndarray

    def of(self, client: int) -> np.ndarray:
        return self.examples[self.offsets[client] : self.offsets[client + 1]]

    @property
    def num_clients(self) -> int:
        return len(self.offsets) - 1

    def label_counts(self, labels: np.ndarray, num_labels: int) -> np.ndarray:
        """(num_clients, num_labels) int64 examples of each group that each client holds."""
        owner = np.repeat(np.arange(self.num_clients), np.diff(self.offsets))
        cells = self.num_clients * num_labels
        counts = np.bincount(owner * num_labels + labels[self.examples], minlength=cells)
        return counts.reshape(self.num_clients, num_labels)


def split(federation: FederationConfig, labels: np.ndarray, run_seed: int) -> Partition:
    """Splits the examples; a pure function of its arguments.

    Args:
        labels: (n,) int64, the group of each training example.

    Raises:
        UserError: fewer than ``num_clients * min_examples`` examples, or more shards than
            examples.
    """
    num_clients, least = federation.num_clients, federation.min_examples
    if num_clients * least > len(labels):
        raise UserError(
            f"federation.num_clients = {num_clients} with min_examples = {least} needs "
            f"{num_clients * least} training examples, the task has {len(labels)}: at most "
            f"{len(labels) // least} clients"
        )
    rng = generator(run_seed, Purpose.PARTITION)
    dealt, owner = KINDS[federation.partition](federation, labels, rng)
    owner = _fill_up(owner, labels[dealt], num_clients, least)
    # Minibatches are drawn by position, so the order within a client affects a run's bits: the
    # skewed kinds sort each client's examples, the others keep the dealing order.
    own_order = dealt if federation.partition in SKEWED else np.arange(len(dealt))
    examples = dealt[np.lexsort((own_order, owner))].astype(np.int64)
    sizes = np.bincount(owner, minlength=num_clients)
    return Partition(examples, np.concatenate([[0], np.cumsum(sizes)]))


def _dirichlet(federation: FederationConfig, groups: np.ndarray, rng: np.random.Generator) -> Dealt:
    num_clients = federation.num_clients
    by_group = np.argsort(groups, kind="stable")
    borders = np.cumsum(np.unique(groups, return_counts=True)[1])[:-1]
    dealt, owner = [], []
    for group in np.split(by_group, borders):
        dealt.append(rng.permutation(group))
        owner.append(_portions(_dirichlet_shares(federation.alpha, num_clients, rng), len(group)))
    return np.concatenate(dealt), np.concatenate(owner)


def _dirichlet_shares(alpha: float, num_clients: int, rng: np.random.Generator) -> np.ndarray:
    shares = rng.dirichlet(np.full(num_clients, alpha))
    if not np.isfinite(shares).all() or shares.sum() == 0:
        # At tiny α every gamma draw underflows; in the limit one client gets everything.
        shares = np.zeros(num_clients)
        shares[rng.integers(num_clients)] = 1.0
    return shares


def _dirichlet_balanced(
    federation: FederationConfig, groups: np.ndarray, rng: np.random.Generator
) -> Dealt:
    num_clients, n = federation.num_clients, len(groups)
    group_sizes = np.unique(groups, return_counts=True)[1]
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(group_sizes)[:-1])
    mixes = _mixes(federation.alpha * group_sizes / n, num_clients, rng)
    owner = np.empty(n, np.int64)
    for group, column in zip(members, mixes.T, strict=True):
        wanted = column if column.sum() > 0 else np.ones(num_clients)
        owner[rng.permutation(group)] = _portions(wanted / wanted.sum(), len(group))
    dealt = rng.permutation(n)
    owner = owner[dealt]
    fair = n // num_clients + (np.arange(num_clients) < n % num_clients)
    surplus = np.flatnonzero(_position_among_equals(owner) >= fair[owner])
    missing = np.maximum(fair - np.bincount(owner, minlength=num_clients), 0)
    owner[rng.permutation(surplus)] = np.repeat(np.arange(num_clients), missing)
    return dealt, owner


def _mixes(concentration: np.ndarray, num_clients: int, rng: np.random.Generator) -> np.ndarray:
    """(num_clients, groups) each client's draw from Dir(``concentration``)."""
    mixes = rng.dirichlet(concentration, num_clients)
    lost = ~np.isfinite(mixes).all(1) | (mixes.sum(1) == 0)  # underflow, as for one group above
    prior = concentration / concentration.sum()
    mixes[lost] = np.eye(len(prior))[rng.choice(len(prior), lost.sum(), p=prior)]
    return mixes


def _shards(federation: FederationConfig, groups: np.ndarray, rng: np.random.Generator) -> Dealt:
    num_clients, each = federation.num_clients, federation.shards_per_client
    pieces, n = num_clients * each, len(groups)
    if pieces > n:
        raise UserError(
            f"federation.num_clients = {num_clients} with shards_per_client = {each} needs "
            f"{pieces} shards of at least one training example, the task has {n}: at most "
            f"{n // num_clients} shards per client"
        )
    shuffled = rng.permutation(n)
    dealt = shuffled[np.argsort(groups[shuffled], kind="stable")]
    client_of_shard = rng.permutation(pieces) // each
    return dealt, client_of_shard[np.arange(n) * pieces // n]


def _sizes(federation: FederationConfig, groups: np.ndarray, rng: np.random.Generator) -> Dealt:
    rank = 1 + rng.permutation(federation.num_clients)
    shares = rank**-federation.size_exponent
    return rng.permutation(len(groups)), _portions(shares / shares.sum(), len(groups))


def _iid(federation: FederationConfig, groups: np.ndarray, rng: np.random.Generator) -> Dealt:
    shards = np.array_split(rng.permutation(len(groups)), federation.num_clients)
    return np.concatenate(shards), np.repeat(np.arange(len(shards)), [len(s) for s in shards])


Kind = Callable[[FederationConfig, np.ndarray, np.random.Generator], Dealt]
SKEWED: dict[str, Kind] = {
    "dirichlet": _dirichlet,
    "dirichlet_balanced": _dirichlet_balanced,
    "shards": _shards,
}
KINDS: dict[str, Kind] = SKEWED | {"sizes": _sizes, "iid": _iid}


def _portions(shares: np.ndarray, n: int) -> np.ndarray:
    """(n,) the owner of each of n examples, in client order, in proportion to ``shares``.

    The running total is rounded, so sizes add up to n and each is within one of its share.
    """
    ends = np.floor(np.cumsum(shares)[:-1] * n + 0.5).astype(np.int64)
    return np.repeat(np.arange(len(shares)), np.diff(ends, prepend=0, append=n))


def _fill_up(owner: np.ndarray, group: np.ndarray, num_clients: int, least: int) -> np.ndarray:
    """Moves examples from the richest clients to those with fewer than ``least``.

    Equivalent to moving one example at a time, with receivers in client order: the client that
    holds most (ties: lowest id) gives the last-dealt example of its most frequent group (ties:
    lowest group). Here all moves are sorted at once, in O(n log n). That works because the richest
    client holds more than ``least`` while anyone lacks examples: no client both gives and
    receives, and what a giver gives next depends on its own examples only.

    Args:
        owner: (n,) the client of each example, in dealing order.
        group: (n,) the group of each.

    Returns:
        (n,) the client of each afterwards.
    """
    sizes = np.bincount(owner, minlength=num_clients)
    missing = np.maximum(least - sizes, 0)
    # A group shrinks from its end: an example leaves when its group's size equals its height.
    height = 1 + _position_among_equals(group, owner)
    giving = np.lexsort((group, -height, owner))  # client after client, first gift first
    giver = owner[giving]
    held_before = sizes[giver] - _position_among_equals(giver)
    gifts = giving[np.lexsort((giver, -held_before))][: missing.sum()]
    filled = owner.copy()
    filled[gifts] = np.repeat(np.arange(num_clients), missing)
    return filled


def _position_among_equals(*keys: np.ndarray) -> np.ndarray:
    """(n,) how many earlier entries have the same keys."""
    order = np.lexsort(keys)
    changes = np.any([np.diff(key[order], prepend=-1) != 0 for key in keys], axis=0)
    first = np.maximum.accumulate(np.where(changes, np.arange(len(order)), 0))
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order)) - first
    return position


def skew(counts: np.ndarray) -> dict[str, float]:
    """The realised skew of a partition.

    Args:
        counts: (num_clients, groups) examples, from :meth:`Partition.label_counts`.

    Returns:
        Sizes (``min``, ``median``, ``max`` examples), ``labels`` (mean number of groups a client
        holds) and ``distance`` (mean total variation distance between a client's mix of groups
        and that of all examples; 0 for identical mixes).
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
