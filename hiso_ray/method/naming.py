"""The names of a local step's directions, which every replica derives from the step's seed.

================  ===============================================  ============================
``shared``        all sampled clients probe along (s, p)           HiSo, DeComFL, FeedSign
``per_client``    client i probes along (s, i, p)                  FedZO
with a pool       client i along (pool seed, j), j drawn from K    FedKSeed, arXiv 2312.06353
================  ===============================================  ============================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hiso_ray.seeds import direction_key

Name = tuple[int, ...]
"""(seed, *index) of a direction; ``seeds.direction_key`` turns it into a generator's key."""


@dataclass(frozen=True)
class Naming:
    """How a method names its directions.

    Attributes:
        perturbations: P.
        shared: whether all clients of a round use the same directions.
        pool: (seed, K) of a finite pool that clients' own directions are drawn from.
    """

    perturbations: int
    shared: bool = True
    pool: tuple[int, int] | None = None

    def of(self, step_seed: int, client: int) -> list[Name]:
        """The P directions of a client's local step."""
        if self.shared:
            return [(step_seed, p) for p in range(self.perturbations)]
        own: list[Name] = [(step_seed, client, p) for p in range(self.perturbations)]
        return own if self.pool is None else [(self.pool[0], self._drawn(name)) for name in own]

    def of_record(self, step_seed: int, cohort: Sequence[int]) -> list[Name]:
        """The directions of a record's step, in the order of its scalars: shared ones once, others
        client by client."""
        if self.shared:
            return self.of(step_seed, 0)
        return [name for client in cohort for name in self.of(step_seed, client)]

    def _drawn(self, name: Name) -> int:
        """j in [0, K), uniform to within one part in 2^44."""
        assert self.pool is not None
        return int(direction_key(*name).generate_state(1, np.uint64)[0]) % self.pool[1]
