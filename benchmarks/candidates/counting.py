"""Forward passes and bytes of a method that the product does not know yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REQUEST, SEED_AND_RATES, SCALAR = 16, 16, 4  # bytes, as ``federation.traffic`` counts them


@dataclass
class Counted:
    """What a method has used so far.

    Attributes:
        seen: (num_clients,) bytes of records that each client holds.
        forwards: forward passes of all clients, each over one minibatch.
        up, down: protocol bytes of all clients, by the rule of ``federation.traffic``.
        records: bytes of all records.
    """

    seen: np.ndarray
    forwards: int = 0
    up: int = 0
    down: int = 0
    records: int = 0

    def add(self, clients: np.ndarray, forwards: int, up: int, record: int) -> None:
        """Adds a round.

        Args:
            clients: of the cohort.
            forwards, up: of each client: forward passes, and scalars that it sends.
            record: scalars of the record, which all clients receive before their next turn.
        """
        self.forwards += len(clients) * forwards
        self.up += SCALAR * len(clients) * up
        self.down += int((REQUEST + self.records - self.seen[clients]).sum())
        self.seen[clients] = self.records
        self.records += SEED_AND_RATES + SCALAR * record
